//! A node over a scripted transport.

use super::*;
use crate::testing::{Reply, Script, node, node_config};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use uuid::Uuid;

#[test]
fn a_node_is_asked_for_what_was_meant_or_for_nothing() {
    let node = |url: &str| {
        let transport = Script::new(|_| Reply::NoConnection);
        let clock = Arc::new(crate::base::time::SystemClock);
        Node::new(node_config("a", url), transport, String::new(), clock)
    };
    for base in ["http://h:7700", "http://h:7700/", "https://h/below/"] {
        let node = node(base);
        let url =
            |segments: &[&str]| node.url_of(&ApiPath::new(segments.iter().copied()).with("q", "a/../b#?"));
        let base = base.trim_end_matches('/');
        let evil = [r"..\..\beta", "a/b", "beta/stats#", "?x", "%2e%2e", "a b", "é", ";"];
        for text in evil {
            let url = url(&["indexes", text, "documents"]).unwrap();
            let path = url.as_str().strip_prefix(base).unwrap();
            assert_eq!(ApiPath::parse(path).unwrap().segments(), ["indexes", text, "documents"]);
        }
        for text in [".", ".."] {
            assert!(url(&["indexes", text, "documents"]).is_err(), "{base} {text}");
        }
    }
}

#[tokio::test]
async fn a_request_carries_what_was_said_under_whose_authority_it_is() {
    let transport = Script::new(|_| Reply::Answer(202, json!({"taskUid": 7})));
    let node = node("a", transport.clone());
    let own = Request::own("POST", "/indexes", Some(&json!({"uid": "movies"})));
    assert_eq!(node.send(&own).await.unwrap().task_uid(), Some(7));
    let of_client = Authority::Header("Bearer key".into());
    for authority in [of_client, Authority::Nobody] {
        node.send(&Request { authority, ..own.clone() }).await.unwrap();
    }
    let calls = transport.calls();
    assert_eq!((calls[0].method.as_str(), calls[0].url.as_str()), ("POST", "http://node:7700/indexes"));
    assert_eq!(calls[0].content_type.as_deref(), Some("application/json"));
    assert_eq!((&*calls[0].body, calls[0].timeout), (&br#"{"uid":"movies"}"#[..], TIMEOUT));
    let authorities: Vec<_> = calls.iter().map(|call| call.authorization.as_deref()).collect();
    assert_eq!(authorities, [Some("Bearer master"), Some("Bearer key"), None]);
}

#[tokio::test]
async fn who_gives_no_answer_is_unreachable_and_who_refuses_is_not() {
    let unreachable = node("a", Script::new(|_| Reply::NoConnection)).settings("movies").await.unwrap_err();
    assert!(matches!(&unreachable, Error::Unreachable { node, is_unsent: true, .. } if node == "a"));
    assert_eq!(unreachable.chain().to_string(), "node `a` did not answer: connection refused");
    let refuses = Script::new(|_| Reply::Answer(404, json!({"code": "index_not_found"})));
    let refused = node("a", refuses).settings("movies").await.unwrap_err();
    assert!(matches!(&refused, Error::Unexpected { status: 404, request, .. }
        if request == "GET /indexes/movies/settings"));
}

#[tokio::test(start_paused = true)]
async fn a_task_is_asked_for_until_it_has_ended() {
    let asked = AtomicUsize::new(0);
    let transport = Script::new(move |_| {
        let status = ["enqueued", "processing", "succeeded"][asked.fetch_add(1, Ordering::Relaxed)];
        Reply::Answer(200, json!({"uid": 3, "status": status}))
    });
    node("a", transport.clone()).wait_for_task(3).await.unwrap();
    assert_eq!(transport.calls().len(), 3);
    assert!(transport.calls().iter().all(|call| call.url.path() == "/tasks/3"));
    let failed = node("a", Script::new(|_| Reply::Answer(200, json!({"status": "failed"}))));
    assert!(failed.wait_for_task(3).await.is_err());
}

#[tokio::test]
async fn health_is_what_the_last_check_saw() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = is_up.clone();
    let node = node(
        "a",
        Script::new(move |call| match call.url.path() {
            "/version" => Reply::Answer(200, json!({"pkgVersion": "1.50.0"})),
            _ if up.load(Ordering::Relaxed) => Reply::Answer(200, json!({"status": "available"})),
            _ => Reply::NoConnection,
        }),
    );
    assert!(!node.is_up());
    assert!(node.check().await, "it has come");
    assert!(!node.check().await && node.is_up());
    assert_eq!(node.health().version.as_deref(), Some("1.50.0"));
    is_up.store(false, Ordering::Relaxed);
    node.check().await;
    assert!(node.away().is_some());
    assert_eq!(node.health().error.as_deref(), Some("node `a` did not answer: connection refused"));
}

#[tokio::test]
async fn a_node_with_the_data_of_another_cluster_is_away() {
    let keys = |texts: &[&str]| {
        let key = |text: &&str| json!({"uid": text, "key": text, "name": "miroir:read"});
        let client = json!({"uid": "c", "key": "c", "name": "a client's"});
        json!({"results": texts.iter().map(key).chain([client]).collect::<Vec<_>>()})
    };
    for (there, is_own) in
        [(&["own"][..], true), (&[], true), (&["other"], false), (&["own", "other"], false)]
    {
        let answer = keys(there);
        let transport = Script::new(move |call| match call.url.path() {
            "/version" => Reply::Answer(200, json!({"pkgVersion": "1.50.0"})),
            "/keys" => Reply::Answer(200, answer.clone()),
            _ => Reply::Answer(200, json!({"status": "available"})),
        });
        let node =
            node("a", transport.clone()).of_cluster(ClusterKey { uid: Uuid::nil(), text: "own".into() });
        assert_eq!(
            (node.check().await, node.is_up(), node.health().is_foreign),
            (is_own, is_own, !is_own),
            "{there:?}"
        );
        node.check().await;
        let asked = transport.calls().iter().filter(|call| call.url.path() == "/keys").count();
        assert_eq!(asked, if is_own { 1 } else { 2 }, "{there:?}: its keys are listed when it comes");
        assert_eq!(node.health().error.is_some(), !is_own);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_to_a_node_that_goes_away_is_given_up() {
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = hangs.clone();
    let transport = Script::new(move |call| match call.url.path() {
        _ if is_hanging.load(Ordering::Relaxed) => Reply::Silence,
        "/slow" => Reply::Silence,
        _ => Reply::Answer(200, json!({})),
    });
    let node = Arc::new(node("a", transport));
    assert!(node.check().await);
    let begun = Instant::now();
    let request = Request::own("GET", ApiPath::from("/slow"), None);
    let goes_away = async {
        hangs.store(true, Ordering::Relaxed);
        while node.is_up() {
            node.check().await;
        }
    };
    let (answer, ()) = tokio::join!(node.send(&request), goes_away);
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::Unreachable { is_unsent: false, .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // What is asked of a node that is away already, it may answer.
    hangs.store(false, Ordering::Relaxed);
    let request = Request::own("GET", ApiPath::from("/health"), None);
    assert_eq!(node.send(&request).await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_health_check_ends_soon_whatever_the_node_leaves_unanswered() {
    for unanswered in ["/health", "/keys", "/version"] {
        let transport = Script::new(move |call| match call.url.path() {
            path if path == unanswered => Reply::Silence,
            _ => Reply::Answer(200, json!({"results": [], "pkgVersion": "1.50.0"})),
        });
        let node = node("a", transport).of_cluster(ClusterKey { uid: Uuid::nil(), text: "k".into() });
        let begun = Instant::now();
        node.check().await;
        assert!(begun.elapsed() < CHECK * 2, "{unanswered}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_tasks_none_may_fail() {
    let failing = Script::new(|call| match call.url.path() {
        "/tasks" => Reply::Answer(
            200,
            json!({"results": [
                {"uid": 1, "status": "failed", "type": "settingsUpdate", "indexUid": "books", "error": {
                    "message": "no vectors", "code": "vector_embedding_error", "type": "invalid_request", "link": ""
                }},
                {"uid": 2, "status": "succeeded"},
            ]}),
        ),
        _ => Reply::Answer(200, json!({"uid": 2, "status": "succeeded"})),
    });
    let node = node("a", failing);
    node.wait_for_tasks(&[]).await.unwrap();
    let error = node.wait_for_tasks(&[1, 2]).await.unwrap_err().to_string();
    assert_eq!(error, "node `a` refuses `settingsUpdate` of index `books` in its task 1: no vectors");
}
