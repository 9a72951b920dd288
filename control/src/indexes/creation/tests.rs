use super::*;
use crate::{
    domain::task_mark::TaskMark,
    testing::{ClusterBuilder, Reply, Script},
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What comes of an index that a write creates, if nodes answer changes of it by `answers`, in the order of the requests.
struct Made {
    is_ok: bool,
    is_in_catalogue: bool,
    behind: usize,
    steps: usize,
    took: Duration,
}

async fn made(answers: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Made {
    let data = tempfile::tempdir().unwrap();
    let asked = AtomicUsize::new(0);
    let transport = Script::new(move |call| match (call.method.as_str(), call.url.path()) {
        ("POST" | "PATCH" | "PUT", path) if path.starts_with("/indexes") => {
            Reply::Answer(answers(asked.fetch_add(1, Ordering::Relaxed)), json!({"taskUid": 1}))
        }
        _ => Reply::Answer(200, json!({"results": []})),
    });
    let cluster = ClusterBuilder::new(data.path()).transport(transport).build();
    for node in cluster.nodes().iter() {
        node.check().await;
    }
    let begun = cluster.clock.monotonic();
    let is_ok = ensure_index(&cluster, "books", None).await.is_ok();
    let cluster_state = cluster.cluster_state();
    Made {
        is_ok,
        is_in_catalogue: cluster_state.indexes.contains_key("books"),
        behind: cluster_state.behind.len(),
        steps: cluster.ledger.call(steps::all).await.unwrap().len(),
        took: cluster.clock.since(begun),
    }
}

#[tokio::test]
async fn a_registration_of_fields_carries_a_mark_by_which_it_is_found_if_it_comes_late() {
    let data = tempfile::tempdir().unwrap();
    let transport = Script::new(|_| Reply::Answer(202, json!({"taskUid": 1})));
    let cluster = ClusterBuilder::new(data.path()).transport(transport.clone()).build();
    let names = ["id".to_owned(), "title".to_owned()];
    let requests = creation_with("books", Some("id"), &names, &*cluster.random);
    send_all(&cluster, &cluster.node("a").unwrap(), &requests).await.unwrap();
    let calls = transport.calls();
    let of_documents: Vec<_> = calls.iter().filter(|call| call.url.path().ends_with("/documents")).collect();
    let [registration] = of_documents[..] else { panic!("{of_documents:?}") };
    let mark = registration.url.query_pairs().find(|(name, _)| name == "customMetadata").unwrap().1;
    let mark: TaskMark = mark.parse().unwrap();
    assert!(matches!(mark, TaskMark::Copy { shards, .. } if shards.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn what_some_node_may_have_of_an_index_is_finished() {
    // Both take the creation, and fail then; later they do not.
    let made = made(|request| if (2..4).contains(&request) { 500 } else { 202 }).await;
    assert!(made.is_ok && made.is_in_catalogue);
    assert_eq!((made.behind, made.steps), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_finished_is_undone() {
    let made = made(|request| if request < 2 { 202 } else { 507 }).await;
    assert!(!made.is_ok && !made.is_in_catalogue);
    assert_eq!((made.behind, made.steps), (2, 0), "nodes learn that there is no such index");
    assert!(made.took > PERSISTENCE);
}

#[tokio::test(start_paused = true)]
async fn what_no_node_has_is_given_up_at_once() {
    let made = made(|_| 422).await;
    assert!(!made.is_ok && !made.is_in_catalogue);
    assert_eq!((made.behind, made.steps), (0, 0));
    assert!(made.took < PAUSE);
}
