use super::{DOCUMENTS, body, leased, managed, post, refused};
use miroir_core::protocol::{BEGIN_PATH, COMMIT_PATH};
use miroir_filter_host::{Callout, Stream, Vm};
use serde_json::{Value, json};

/// Writes two documents, and gives the begin.
fn begun(vm: &Vm) -> (Stream, Callout) {
    let stream = post(vm, DOCUMENTS, &json!([{"id": 1}, {"id": 2}]));
    assert!(vm.callouts().is_empty(), "the root context writes, and has not been called yet");
    vm.run_queues();
    let begin = vm.callouts_to(BEGIN_PATH);
    assert_eq!(begin.len(), 1);
    assert_eq!((begin[0].cluster.as_str(), begin[0].header("x-miroir-secret")), ("control", "s3cret"));
    assert_eq!(body(&begin[0])["authorization"], "Bearer client");
    (stream, begin[0].clone())
}

/// The control plane lets it begin: every shard is written to nodes `a` and `b`.
fn send(vm: &Vm, begin: &Callout) {
    let shards = body(begin)["shards"].as_array().unwrap().len();
    let reply = json!({"decision": "send", "uid": 42, "key": "epoch", "primaryKey": "id", "nodes": ["a", "b"],
                       "writers": vec![[0, 1]; shards]});
    vm.answer(begin, 200, &reply.to_string());
    // Which documents are there already is asked first.
    for call in vm.callouts_to(&format!("{DOCUMENTS}/fetch")) {
        vm.answer(&call, 404, "{}");
    }
}

/// The callouts that write.
fn parts(vm: &Vm) -> Vec<Callout> {
    let parts = vm.callouts_to(&format!("{DOCUMENTS}?"));
    for part in &parts {
        assert_eq!(part.header("authorization"), "Bearer epoch", "nodes are not shown the client's key");
        assert!(part.path().contains("customMetadata=miroir%3A42"), "{}", part.path());
    }
    parts
}

fn enqueued(vm: &Vm, parts: &[Callout]) {
    parts.iter().for_each(|part| vm.answer(part, 202, r#"{"taskUid":7}"#));
}

fn commit(vm: &Vm) -> Callout {
    let commits = vm.callouts_to(COMMIT_PATH);
    assert_eq!(commits.len(), 1);
    commits[0].clone()
}

fn outcomes(commit: &Callout) -> Vec<Value> {
    let results = body(commit)["results"].as_array().unwrap().clone();
    let mut kinds: Vec<Value> = results.iter().map(|result| result["outcome"]["kind"].clone()).collect();
    kinds.sort_by_key(Value::to_string);
    kinds
}

#[test]
fn a_client_hears_of_its_write_once_it_is_committed() {
    leased(&managed(), |vm| {
        let (stream, begin) = begun(vm);
        send(vm, &begin);
        let parts = parts(vm);
        assert_eq!(parts.len(), 2);
        assert_eq!(body(&parts[0]).as_array().unwrap().len(), 2);
        enqueued(vm, &parts);
        let commit = commit(vm);
        assert_eq!(vm.reply(&stream), None);
        assert_eq!((&body(&commit)["uid"], outcomes(&commit)), (&json!(42), vec![json!("enqueued"); 2]));
        vm.answer(&commit, 200, r#"{"taskUid":42}"#);
        let reply = vm.reply(&stream).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (202, r#"{"taskUid":42}"#));
        assert_eq!(vm.metric("miroir_requests_total;operation=write;outcome=ok"), 1);
        vm.end(stream);
        assert!(vm.let_go(), "nothing is under way");
    });
}

#[test]
fn a_node_that_fails_is_told_to_the_control_plane() {
    leased(&managed(), |vm| {
        let (stream, begin) = begun(vm);
        vm.refuse("a", false);
        send(vm, &begin);
        let parts = parts(vm);
        assert_eq!(parts.iter().map(|part| part.cluster.as_str()).collect::<Vec<_>>(), ["b"]);
        enqueued(vm, &parts);
        let commit = commit(vm);
        assert_eq!(outcomes(&commit), ["enqueued", "unknown"]);
        vm.answer(&commit, 200, r#"{"taskUid":42}"#);
        assert_eq!(vm.reply(&stream).unwrap().status, 202);
    });
}

/// A client that leaves, and a newer configuration, tear no write in two: it goes on in the root context.
#[test]
fn a_write_goes_on_without_its_client_and_its_configuration() {
    for left_after in ["its body", "begin", "the nodes' answers"] {
        leased(&managed(), |vm| {
            let (stream, begin) = begun(vm);
            let mut stream = Some(stream);
            let mut leave = |now: &str| {
                if now == left_after {
                    vm.end(stream.take().unwrap());
                    assert!(!vm.let_go(), "a write is under way");
                }
            };
            leave("its body");
            send(vm, &begin);
            leave("begin");
            enqueued(vm, &parts(vm));
            leave("the nodes' answers");
            assert!(!vm.has_let_go());
            vm.answer(&commit(vm), 200, r#"{"taskUid":42}"#);
            assert!(vm.has_let_go(), "left after {left_after}");
            assert!(vm.callouts_to("/indexes").is_empty());
        });
    }
}

#[test]
fn a_write_that_may_not_be_begun_reaches_no_node() {
    let key = json!({"message": "m", "code": "invalid_api_key", "type": "auth", "link": "l"}).to_string();
    for (status, code) in [(403, "invalid_api_key"), (503, "")] {
        leased(&managed(), |vm| {
            let (stream, begin) = begun(vm);
            if status == 403 {
                vm.answer(&begin, 403, &key);
            } else {
                vm.fail(&begin);
            }
            let (told, told_code) = refused(vm, &stream).unwrap();
            assert_eq!(told, status);
            if status == 503 {
                assert_eq!(vm.reply(&stream).unwrap().header("retry-after"), Some("10"));
            } else {
                assert_eq!(told_code, code);
            }
            assert!(vm.callouts_to("/indexes").is_empty());
            assert!(vm.let_go());
        });
    }
}

#[test]
fn without_a_control_plane_nothing_is_written() {
    super::configured(&super::topology(), |vm| {
        let stream = post(vm, DOCUMENTS, &json!([{"id": 1}]));
        vm.run_queues();
        assert_eq!(refused(vm, &stream).map(|(status, _)| status), Some(503));
        assert!(vm.callouts().is_empty());
    });
}

#[test]
fn a_large_write_is_judged_while_it_comes_in() {
    let part = vec![b' '; 300 << 10];
    leased(&managed(), |vm| {
        let upload = || {
            let mut stream = vm.request("POST", DOCUMENTS, &[super::KEY, super::JSON], true);
            vm.body(&mut stream, &part, false);
            let question = vm.callouts_to("/_miroir/authorization");
            assert_eq!(question.len(), 1, "{:?}", vm.callouts());
            (stream, question[0].clone())
        };
        let (stream, question) = upload();
        let error = json!({"message": "m", "code": "invalid_api_key", "type": "auth", "link": "l"});
        vm.answer(&question, 403, &error.to_string());
        assert_eq!(refused(vm, &stream), Some((403, "invalid_api_key".to_owned())));
        vm.end(stream);
        // Who may write goes on, and is asked no more.
        let (mut stream, question) = upload();
        vm.answer(&question, 204, "");
        vm.body(&mut stream, &part, false);
        vm.body(&mut stream, b"[{\"id\":1}]", true);
        vm.run_queues();
        assert_eq!(vm.callouts().iter().map(Callout::path).collect::<Vec<_>>(), [BEGIN_PATH]);
    });
}
