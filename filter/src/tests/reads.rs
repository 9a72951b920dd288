use super::{DOCUMENTS, JSON, KEY, SEARCH, body, configured, found, search, shown, topology};
use crate::tests::refused;
use miroir_core::topology::OnMissingShards;
use serde_json::json;
use std::{cell::RefCell, collections::BTreeSet, time::Duration};

#[test]
fn a_search_is_answered_once_all_nodes_have_answered() {
    configured(&topology(), |vm| {
        let stream = search(vm, &json!({"q": "red"}));
        assert!(!stream.goes_on(), "the router must not see it");
        let calls = vm.callouts();
        assert_eq!(calls.len(), 2, "two of three nodes have every shard: {calls:?}");
        let clusters: BTreeSet<&str> = calls.iter().map(|call| call.cluster.as_str()).collect();
        assert_eq!(clusters.len(), 2);
        for call in &calls {
            assert_eq!((call.path(), call.header("authorization")), (SEARCH, "Bearer client"));
            assert!(body(call)["filter"].to_string().contains("_miroir_shard IN"), "{call:?}");
            assert_eq!(call.timeout.as_millis(), 5_000);
        }
        vm.answer(&calls[1], 200, &found(&[3, 1]));
        assert_eq!(vm.reply(&stream), None);
        vm.answer(&calls[0], 200, &found(&[2]));
        let reply = vm.reply(&stream).unwrap();
        assert_eq!((reply.status, shown(&reply.text())), (200, vec![1, 2, 3]));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(vm.metric("miroir_requests_total;operation=search;outcome=ok"), 1);
        let told = ["miroir_operation", "miroir_index"].map(|name| vm.property(&stream, name).unwrap());
        assert_eq!(told, ["search", "movies"]);
        assert_eq!(vm.property(&stream, "miroir_nodes").unwrap().split(',').count(), 2);
        vm.end(stream);
    });
}

#[test]
fn no_read_waits_for_a_node_that_hangs_but_those_that_found_out() {
    configured(&topology(), |vm| {
        let seen = RefCell::new(BTreeSet::new());
        let ask = |number: u32| {
            let stream = search(vm, &json!({ "q": number.to_string() }));
            let mut calls = vm.callouts();
            calls.retain(|call| seen.borrow_mut().insert(call.token));
            (stream, calls)
        };
        let answer = |calls: &[_]| calls.iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
        // Seeds differ, so that each node is asked by some of these.
        let (mut hanging, mut left) = (Vec::new(), Vec::new());
        for number in 0..8 {
            let (stream, calls) = ask(number);
            let (of_b, others): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.cluster == "b");
            answer(&others);
            hanging.extend(of_b);
            left.push(stream);
        }
        assert!(!hanging.is_empty());
        std::thread::sleep(Duration::from_millis(180));
        for number in 8..16 {
            let (stream, calls) = ask(number);
            assert!(calls.iter().all(|call| call.cluster != "b"), "{calls:?}");
            answer(&calls);
            assert_eq!(vm.reply(&stream).unwrap().header("x-miroir-missing-shards"), None);
            vm.end(stream);
        }
        assert_eq!(vm.metric("miroir_nodes_avoided_total;node=b"), 1);
        // It goes on: it is asked again.
        answer(&hanging);
        let is_asked = (16..32).any(|number| {
            let (stream, calls) = ask(number);
            let is_asked = calls.iter().any(|call| call.cluster == "b");
            answer(&calls);
            vm.end(stream);
            is_asked
        });
        assert!(is_asked);
        left.into_iter().for_each(|stream| vm.end(stream));
    });
}

#[test]
fn a_read_that_a_node_does_not_answer_soon_is_sent_to_others() {
    configured(&topology(), |vm| {
        let ask = |number: u32| (search(vm, &json!({ "q": number.to_string() })), vm.callouts());
        for number in 0..60 {
            let (stream, calls) = ask(number);
            calls.iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
            assert_eq!(vm.reply(&stream).unwrap().status, 200);
            vm.end(stream);
        }
        let (stream, calls) = ask(60);
        assert!(calls.iter().all(|call| call.timeout.as_millis() == 250), "{calls:?}");
        vm.answer(&calls[0], 200, &found(&[1]));
        std::thread::sleep(calls[1].timeout);
        // What Envoy says of a request that takes too long.
        vm.answer(&calls[1], 504, "upstream request timeout");
        let others = vm.callouts();
        assert!(!others.is_empty());
        for call in &others {
            assert!(call.cluster != calls[1].cluster && call.timeout.as_millis() > 4_000, "{call:?}");
            vm.answer(call, 200, &found(&[2]));
        }
        assert_eq!(vm.reply(&stream).unwrap().header("x-miroir-missing-shards"), None);
        let given_up = format!("miroir_reads_given_up_total;node={}", calls[1].cluster);
        assert_eq!(vm.metric(&given_up), 1);
        vm.end(stream);
    });
}

#[test]
fn what_a_node_does_not_answer_is_asked_of_another_replica() {
    for failure in ["no answer", "an error", "half an answer"] {
        configured(&topology(), |vm| {
            let stream = search(vm, &json!({}));
            let calls = vm.callouts();
            match failure {
                "no answer" => vm.fail(&calls[0]),
                "an error" => vm.answer(&calls[0], 500, "{}"),
                _ => vm.answer(&calls[0], 200, r#"{"hits":[{"id":"#),
            }
            vm.answer(&calls[1], 200, &found(&[100]));
            assert_eq!(vm.reply(&stream), None, "{failure}");
            let others = vm.callouts();
            assert!(!others.is_empty(), "{failure}");
            assert!(others.iter().all(|call| call.cluster != calls[0].cluster), "{failure}: {others:?}");
            for call in &others {
                vm.answer(call, 200, &found(&[u64::from(call.token)]));
            }
            let reply = vm.reply(&stream).unwrap();
            assert_eq!(reply.status, 200, "{failure}");
            assert_eq!(reply.header("x-miroir-missing-shards"), None, "{failure}");
            assert_eq!(shown(&reply.text()).len(), 1 + others.len(), "{failure}");
            // An answer that cannot be read is no failed callout.
            let retries = vm.metric("miroir_retries_total;operation=search");
            assert_eq!(retries > 0, failure != "half an answer", "{failure}");
        });
    }
}

#[test]
fn a_node_that_nothing_can_be_sent_to_is_as_one_that_fails() {
    for is_unknown in [false, true] {
        configured(&topology(), |vm| {
            vm.refuse("b", is_unknown);
            for number in 0..6 {
                let stream = search(vm, &json!({ "q": number.to_string() }));
                let calls = vm.callouts();
                assert!(calls.iter().all(|call| call.cluster != "b"));
                calls.iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
                assert_eq!(vm.reply(&stream).unwrap().header("x-miroir-missing-shards"), None);
                vm.end(stream);
            }
            // That no endpoint is healthy is for Envoy to log; that there is no cluster is an error of the configuration.
            let is_logged = vm.log().iter().any(|line| line.contains("cluster b cannot be sent"));
            assert_eq!(is_logged, is_unknown);
        });
    }
}

#[test]
fn shards_without_a_replica_are_named_or_the_answer_is_an_error() {
    for on_missing in [OnMissingShards::Partial, OnMissingShards::Error] {
        let mut config = topology();
        config.on_missing_shards = on_missing;
        configured(&config, |vm| {
            vm.refuse("a", false);
            vm.refuse("b", false);
            let stream = search(vm, &json!({}));
            for call in vm.callouts() {
                assert_eq!(call.cluster, "c");
                vm.answer(&call, 200, &found(&[1]));
            }
            let reply = vm.reply(&stream).unwrap();
            assert_eq!(reply.header("x-miroir-missing-shards"), Some("0"));
            let status = if on_missing == OnMissingShards::Partial { 200 } else { 503 };
            assert_eq!(reply.status, status, "{}", reply.text());
            assert_eq!(vm.metric("miroir_missing_shards_total"), 1);
        });
    }
}

#[test]
fn nobody_waits_for_the_answers_of_a_client_that_has_left() {
    let mut config = topology();
    config.limits.max_reads_per_client = 1;
    configured(&config, |vm| {
        for _ in 0..3 {
            // In the middle of its body, and while nodes are asked.
            let mut stream = vm.request("POST", SEARCH, &[KEY, JSON], true);
            vm.body(&mut stream, b"{\"q\":", false);
            vm.end(stream);
            let stream = search(vm, &json!({"q": "red"}));
            let calls = vm.callouts();
            assert_eq!(calls.len(), 2);
            vm.answer(&calls[0], 200, &found(&[1]));
            vm.end(stream);
            assert!(vm.callouts().is_empty());
        }
        let stream = search(vm, &json!({}));
        vm.callouts().iter().for_each(|call| vm.answer(call, 200, &found(&[1])));
        assert_eq!(vm.reply(&stream).unwrap().status, 200, "what they held is let go");
    });
}

#[test]
fn a_body_in_pieces_is_taken_out_of_envoys_buffer_as_it_comes() {
    configured(&topology(), |vm| {
        let text = json!({"q": "red", "limit": 7}).to_string();
        let mut stream = vm.request("POST", SEARCH, &[KEY, JSON], true);
        for part in text.as_bytes().chunks(5) {
            vm.body(&mut stream, part, false);
            assert!(!stream.goes_on());
            assert_eq!(vm.buffered(&stream), 0);
            assert!(vm.callouts().is_empty(), "it is not whole");
        }
        vm.body(&mut stream, b"", true);
        let calls = vm.callouts();
        assert_eq!(calls.len(), 2);
        for call in &calls {
            assert_eq!((&body(call)["q"], &body(call)["limit"]), (&json!("red"), &json!(7)));
        }
    });
}

#[test]
fn a_document_is_asked_of_one_replica_after_the_other() {
    configured(&topology(), |vm| {
        let stream = vm.request("GET", &format!("{DOCUMENTS}/1"), &[KEY], false);
        let calls = vm.callouts();
        assert_eq!(calls.len(), 1);
        vm.fail(&calls[0]);
        let again = vm.callouts();
        assert_eq!(again.len(), 1);
        assert_ne!(again[0].cluster, calls[0].cluster);
        vm.answer(&again[0], 200, r#"{"id":1,"_miroir_shard":[",,,"]}"#);
        assert_eq!(vm.reply(&stream).unwrap().text(), r#"{"id":1}"#);
    });
}

#[test]
fn what_is_not_for_the_filter_goes_on_without_what_only_gateways_may_say() {
    configured(&topology(), |vm| {
        let headers = [KEY, ("x-miroir-secret", "stolen")];
        let stream = vm.request("GET", "/tasks", &headers, false);
        assert!(stream.goes_on());
        let kept = vm.request_headers(&stream);
        assert!(kept.iter().all(|(name, _)| name != "x-miroir-secret"), "{kept:?}");
        assert!(kept.contains(&("authorization".to_owned(), "Bearer client".to_owned())));
        vm.end(stream);
        let stream = vm.request("POST", "/_miroir/begin", &headers, false);
        assert!(!stream.goes_on());
        assert_eq!(refused(vm, &stream), Some((404, "not_found".to_owned())));
        assert!(vm.callouts().is_empty());
    });
}

#[test]
fn a_cluster_below_a_prefix_has_no_other_paths() {
    let mut config = topology();
    config.path_prefix = Some("/ms".to_owned());
    configured(&config, |vm| {
        let stream = vm.request("POST", SEARCH, &[KEY, JSON], true);
        assert!(stream.goes_on());
        vm.end(stream);
        let mut stream = vm.request("POST", &format!("/ms{SEARCH}"), &[KEY, JSON], true);
        vm.body(&mut stream, b"{}", true);
        assert!(vm.callouts().iter().all(|call| call.path() == SEARCH) && !vm.callouts().is_empty());
    });
}

#[test]
fn answers_of_all_kinds_are_for_pages_of_other_origins_too() {
    configured(&topology(), |vm| {
        let stream = vm.request("GET", "/tasks", &[KEY, ("origin", "http://example.org")], false);
        let headers = vm.response_headers(&stream, &[("content-type", "application/json")]);
        assert!(headers.iter().any(|(name, _)| name == "access-control-allow-origin"), "{headers:?}");
    });
}
