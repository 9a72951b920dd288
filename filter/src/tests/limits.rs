use super::{DOCUMENTS, JSON, KEY, SEARCH, configured, found, leased, managed, refused, search, topology};
use miroir_filter_host::Vm;
use serde_json::json;
use std::time::{Duration, Instant};

fn status(vm: &Vm, stream: &miroir_filter_host::Stream) -> Option<u32> {
    vm.reply(stream).map(|reply| reply.status)
}

#[test]
fn one_client_has_so_many_reads_under_way() {
    let mut config = topology();
    config.limits.max_reads_per_client = 2;
    configured(&config, |vm| {
        let first = [search(vm, &json!({})), search(vm, &json!({}))];
        let third = search(vm, &json!({}));
        assert_eq!(refused(vm, &third), Some((429, "too_many_search_requests".to_owned())));
        assert_eq!(vm.reply(&third).unwrap().header("retry-after"), Some("10"));
        vm.end(third);
        vm.client("127.0.0.2");
        let neighbour = search(vm, &json!({}));
        assert_eq!(status(vm, &neighbour), None, "it is asked of nodes");
        vm.client("127.0.0.1");
        for call in vm.callouts() {
            vm.answer(&call, 200, &found(&[1]));
        }
        assert_eq!(first.each_ref().map(|stream| status(vm, stream)), [Some(200); 2]);
        let again = search(vm, &json!({}));
        assert_eq!(status(vm, &again), None, "what is answered is under way no more");
    });
}

#[test]
fn a_body_that_is_too_large_is_refused_when_it_is_announced_or_has_come() {
    let mut config = managed();
    config.limits.max_read_bytes = 100;
    config.limits.max_payload_bytes = 1_000;
    leased(&config, |vm| {
        for (path, announced) in [(SEARCH, "101"), (DOCUMENTS, "1001")] {
            let stream = vm.request("POST", path, &[KEY, JSON, ("content-length", announced)], true);
            assert_eq!(refused(vm, &stream), Some((413, "payload_too_large".to_owned())), "{path}");
            vm.end(stream);
        }
        let mut stream = vm.request("POST", SEARCH, &[KEY, JSON], true);
        vm.body(&mut stream, &[b' '; 60], false);
        assert_eq!(status(vm, &stream), None);
        vm.body(&mut stream, &[b' '; 60], false);
        assert_eq!(refused(vm, &stream), Some((413, "payload_too_large".to_owned())));
        // What comes after that is let go.
        vm.body(&mut stream, &[b' '; 60], true);
        assert_eq!(vm.buffered(&stream), 0);
        assert!(vm.callouts().is_empty());
    });
}

#[test]
fn one_client_does_not_fill_a_worker() {
    let mut config = managed();
    config.limits.max_payload_bytes = 1_000_000;
    config.limits.max_buffered_bytes = 3_000_000;
    config.limits.max_buffered_bytes_per_client = Some(1_000_000);
    leased(&config, |vm| {
        let upload = || {
            let mut stream = vm.request("POST", DOCUMENTS, &[KEY, JSON], true);
            vm.body(&mut stream, format!("[{{\"id\":1}}{}", " ".repeat(200_000)).as_bytes(), false);
            vm.body(&mut stream, " ".repeat(200_000).as_bytes(), false);
            stream
        };
        let mut held = Vec::new();
        let refusal = loop {
            let stream = upload();
            if vm.reply(&stream).is_some() {
                break stream;
            }
            held.push(stream);
            assert!(held.len() < 10, "one client holds everything");
        };
        assert!(!held.is_empty());
        let reply = vm.reply(&refusal).unwrap();
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("10")), "{}", reply.text());
        vm.client("127.0.0.2");
        let neighbour = upload();
        assert_eq!(status(vm, &neighbour), None);
        // What is held goes with its client.
        vm.client("127.0.0.1");
        held.into_iter().for_each(|stream| vm.end(stream));
        vm.end(refusal);
        let again = upload();
        assert_eq!(status(vm, &again), None);
    });
}

#[test]
fn a_body_that_takes_too_long_is_not_waited_for() {
    let mut config = topology();
    config.limits.body_timeout_ms = 20;
    configured(&config, |vm| {
        let mut stalled = vm.request("POST", SEARCH, &[KEY, JSON], true);
        vm.body(&mut stalled, b"{", false);
        let whole = search(vm, &json!({}));
        let begun = Instant::now();
        while vm.reply(&stalled).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "a stalled body is waited for");
            vm.tick();
        }
        assert!(begun.elapsed() >= Duration::from_millis(15));
        assert_eq!(status(vm, &stalled), Some(408));
        assert!(vm.reply(&stalled).unwrap().text().contains("limits.bodyTimeoutMs"));
        assert_eq!(status(vm, &whole), None, "a body that is whole has no such limit");
    });
}

/// Envoy takes a callout's timeout of no milliseconds for none.
#[test]
fn a_read_whose_time_is_up_asks_nobody_any_more() {
    let mut config = topology();
    config.limits.search_timeout_ms = 5;
    configured(&config, |vm| {
        let stream = search(vm, &json!({}));
        let begun = Instant::now();
        while vm.reply(&stream).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is asked of one replica after the other");
            let calls = vm.callouts();
            for call in &calls {
                assert!((1..=5).contains(&call.timeout.as_millis()), "{call:?}");
            }
            // Their time passes; then Envoy says that they have failed.
            std::thread::sleep(Duration::from_millis(5));
            calls.iter().for_each(|call| vm.fail(call));
        }
        assert_eq!(vm.reply(&stream).unwrap().header("x-miroir-missing-shards"), Some("0,1,2"));
    });
}
