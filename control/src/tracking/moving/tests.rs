use super::{super::finish::finish, *};
use crate::{
    cluster::{locks::Scope, missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::{
        cluster_state::Index,
        intent::{ImmediateEffect, NodeTask},
        task::TaskKind,
        verdict::ReportedState,
    },
    ledger::tasks::NewTask,
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::error::{ApiError, Code};
use std::sync::{Mutex, MutexGuard};

fn dates(of: &[(&str, &str)]) -> Dates {
    of.iter().map(|(name, date)| ((*name).to_owned(), (*date).to_owned())).collect()
}

const SWAP: (&str, &str, bool) = ("a", "b", true);
const RENAME: (&str, &str, bool) = ("a", "c", false);

fn moves((from, to, is_exchange): (&str, &str, bool)) -> Moves {
    vec![(from.to_owned(), to.to_owned(), is_exchange)]
}

#[test]
fn the_date_of_an_index_tells_where_it_is() {
    let (both, one) = (&[("a", "1"), ("b", "2")][..], &[("a", "1")][..]);
    for (before, now, moved, expected) in [
        (both, &[("a", "1"), ("b", "2")][..], SWAP, Place::Unmoved),
        (both, &[("a", "2"), ("b", "1")], SWAP, Place::Moved),
        // The other one was not there before, was deleted, or was made anew.
        (one, &[("a", "3"), ("b", "1")], SWAP, Place::Moved),
        (both, &[("b", "1")], SWAP, Place::Moved),
        (both, &[("a", "3"), ("b", "2")], SWAP, Place::Unmoved),
        (both, &[("a", "3"), ("b", "4")], SWAP, Place::Unclear),
        (both, &[], SWAP, Place::Unclear),
        (&[], both, SWAP, Place::Unclear),
        // They cannot be told apart.
        (&[("a", "1"), ("b", "1")], &[("a", "1"), ("b", "1")], SWAP, Place::Unclear),
        (one, one, RENAME, Place::Unmoved),
        (one, &[("c", "1")], RENAME, Place::Moved),
        (one, &[("a", "2"), ("c", "1")], RENAME, Place::Moved),
        (one, &[("a", "1"), ("c", "2")], RENAME, Place::Unmoved),
        (one, &[("c", "2")], RENAME, Place::Unclear),
    ] {
        let found = place(Some(&dates(before)), &dates(now), &moves(moved));
        assert_eq!(found, expected, "{before:?} {now:?} {moved:?}");
    }
    assert_eq!(place(None, &dates(both), &moves(SWAP)), Place::Unclear);
}

fn effect((from, to, is_exchange): (&str, &str, bool), is_swap: bool) -> Effect {
    match is_swap {
        true => Effect::Swap { pairs: vec![(from.to_owned(), to.to_owned(), !is_exchange)] },
        false => {
            Effect::UpdateIndex { index: from.to_owned(), primary_key: None, rename: Some(to.to_owned()) }
        }
    }
}

#[tokio::test]
async fn nodes_get_what_they_have_missed_before_they_move_indexes() {
    let data = tempfile::tempdir().unwrap();
    let cluster = ClusterBuilder::new(data.path()).build();
    let index = |uid: &str| (uid.to_owned(), Index { primary_key: Some("id".into()), ..Index::default() });
    cluster.change(|state| state.indexes.extend([index("a"), index("b")])).await.unwrap();
    let swap = r#"POST /swap-indexes [{"indexes":["a","b"]}]"#;
    let rename = r#"PATCH /indexes/a {"uid":"c"}"#;
    for (moved, is_swap, now, expected) in [
        (SWAP, true, &[("a", "1"), ("b", "2")][..], &[swap][..]),
        (SWAP, true, &[("a", "1")], &["POST /indexes b", swap]),
        (RENAME, false, &[("a", "1")], &[rename]),
        (RENAME, true, &[("a", "1")], &[r#"POST /swap-indexes [{"indexes":["a","c"],"rename":true}]"#]),
        (RENAME, false, &[("a", "1"), ("c", "9")], &["DELETE /indexes/c", rename]),
        // It is not the index that it had: nothing is deleted.
        (RENAME, false, &[("a", "8"), ("c", "9")], &[rename]),
    ] {
        let before = dates(&[("a", "1"), ("b", "2")]);
        let (effect, created) = (effect(moved, is_swap), CreationDates::new());
        let order = Order { uid: 1, effect, moves: moves(moved), created };
        let first = order.preparation(&cluster, Some(&before), &dates(now));
        let told = first.into_iter().filter(|request| request.main || request.method != "PATCH");
        let told = told.chain([order.request()]).map(|NodeRequest { method, path, body, main }| {
            let of = |body: Value| {
                if main { body.to_string() } else { body["uid"].as_str().unwrap_or_default().to_owned() }
            };
            format!("{method} {path} {}", body.map(of).unwrap_or_default()).trim_end().to_owned()
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "{moved:?} {now:?}");
    }
}

/// Two nodes that swap, unless their disks are full.
#[derive(Default)]
struct Nodes(Mutex<[(Dates, bool, u32); 2]>);

impl Nodes {
    fn new(of: [&[(&str, &str)]; 2], are_full: [bool; 2]) -> Arc<Self> {
        let [a, b] = [0, 1].map(|node: usize| (dates(of[node]), are_full[node], 3));
        Arc::new(Self(Mutex::new([a, b])))
    }

    fn lock(&self) -> MutexGuard<'_, [(Dates, bool, u32); 2]> {
        self.0.lock().unwrap()
    }

    fn answer(&self, method: &str, url: &url::Url) -> Reply {
        let mut nodes = self.lock();
        let (dates, is_full, newest) = &mut nodes[usize::from(url.port() == Some(2))];
        match (method, url.path()) {
            ("GET", "/indexes") => {
                let of = |(uid, date): (&String, &String)| json!({"uid": uid, "createdAt": date});
                Reply::Answer(200, json!({"results": dates.iter().map(of).collect::<Vec<_>>()}))
            }
            ("POST", "/swap-indexes") => {
                *newest += 1;
                if !*is_full {
                    let (a, b) = (dates.remove("a"), dates.remove("b"));
                    dates.extend(a.map(|date| ("b".to_owned(), date)));
                    dates.extend(b.map(|date| ("a".to_owned(), date)));
                }
                Reply::Answer(202, json!({"taskUid": *newest}))
            }
            ("GET", "/health") => Reply::Answer(200, json!({"status": "available"})),
            ("GET", "/tasks") => Reply::Answer(200, json!({"results": []})),
            ("GET", path) if path.starts_with("/tasks/") => {
                let status = if *is_full { "failed" } else { "succeeded" };
                Reply::Answer(200, json!({"uid": *newest, "status": status, "error": null}))
            }
            _ => Reply::Answer(200, json!({"uid": 3, "results": []})),
        }
    }
}

/// A swap of which both nodes have told the end.
async fn told(cluster: &Cluster, states: &[(&str, State)]) -> u32 {
    let created = ["a", "b"].map(|node| (NodeName::from(node), dates(&[("a", "1"), ("b", "2")])));
    let effect = effect(SWAP, true);
    let intent = Intent::Broadcast {
        requests: Vec::new(),
        effect: effect.clone(),
        at_once: ImmediateEffect::Nothing,
        newest: BTreeMap::new(),
        created: created.into(),
    };
    let new = NewTask { kind: TaskKind::IndexSwap, ..NewTask::default() };
    let begin = move |connection: &_| {
        let task = intents::begin(connection, &new, &intent, 1)?;
        intents::sent(connection, task.uid, &[])?;
        Ok(task)
    };
    let task = cluster.ledger.call(begin).await.unwrap();
    let uid = task.uid;
    let part = |node: &str| NodeTask { node: node.into(), node_task: 3, main: true, shards: Vec::new() };
    let guard = Some(cluster.locks.lock(Scope::indexes(["a", "b"])).await);
    let (node_tasks, written) = (states.iter().map(|(node, _)| part(node)).collect(), WrittenIds::new());
    cluster.tracked_tasks.add(TrackedTask { task, node_tasks, effect, indexed: None, written, guard });
    let mut pending = cluster.tracked_tasks.pending();
    for (part, (_, state)) in pending.get_mut(&uid).unwrap().parts.iter_mut().zip(states) {
        let state = *state;
        let error =
            (state == State::Failed).then(|| ApiError::new(Code::INTERNAL, "Input/output error").body);
        part.seen = ReportedState { state, error, ..ReportedState::default() };
    }
    drop(pending);
    uid
}

/// A control plane over indexes `a` and `b`, and two nodes.
async fn cluster(data: &std::path::Path, nodes: Arc<Script>, a_is_behind: bool) -> Arc<Cluster> {
    let cluster = Arc::new(ClusterBuilder::new(data).transport(nodes).build());
    let index = || Index { primary_key: Some("id".to_owned()), ..Index::default() };
    let fill = |state: &mut ClusterState| {
        state.indexes.extend([("a".to_owned(), index()), ("b".to_owned(), index())]);
        if a_is_behind {
            state.mark_behind("a");
        }
    };
    cluster.change(fill).await.unwrap();
    for node in cluster.nodes().iter() {
        node.learn(node.probe().await);
        assert!(node.is_up());
    }
    cluster
}

async fn end(
    nodes: &Arc<Nodes>,
    [a, b]: [State; 2],
    a_is_behind: bool,
    time: Duration,
) -> (Option<bool>, Vec<Option<String>>, Vec<NodeName>) {
    end_of(nodes, &[("a", a), ("b", b)], a_is_behind, time).await
}

/// What becomes of a swap: whether it has succeeded, what is under `a` on both nodes, and who is behind.
async fn end_of(
    nodes: &Arc<Nodes>,
    states: &[(&str, State)],
    a_is_behind: bool,
    time: Duration,
) -> (Option<bool>, Vec<Option<String>>, Vec<NodeName>) {
    let data = tempfile::tempdir().unwrap();
    let answers = nodes.clone();
    let script = Script::new(move |call| answers.answer(call.method.as_str(), &call.url));
    let cluster = cluster(data.path(), script, a_is_behind).await;
    let uid = told(&cluster, states).await;
    let begun = std::time::Instant::now();
    let mut ended = None;
    while ended.is_none() && begun.elapsed() < time {
        let mut outcome = Outcome { status: TaskStatus::Succeeded, ..Outcome::default() };
        let parts = cluster.tracked_tasks.pending().get(&uid).unwrap().parts.clone();
        let failed = parts.iter().filter(|part| part.seen.state != State::Succeeded);
        outcome.behind.extend(failed.map(|part| part.node.clone()));
        if let Moving::Over(over) = judge(&cluster, uid, &mut outcome, &BTreeSet::new()).await.unwrap() {
            assert!(over.is_enough(&cluster.cluster_state()));
            assert_eq!(outcome.error.is_some(), outcome.status == TaskStatus::Failed);
            ended = Some((outcome.status == TaskStatus::Succeeded, outcome.behind));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let under_a = nodes.lock().iter().map(|(dates, ..)| dates.get("a").cloned()).collect();
    let (succeeded, behind) = ended.unzip();
    (succeeded, under_a, behind.into_iter().flatten().collect())
}

#[tokio::test]
async fn a_swap_ends_when_every_shard_has_it() {
    let (swapped, not_swapped) = (&[("a", "2"), ("b", "1")][..], &[("a", "1"), ("b", "2")][..]);
    let (is, is_not) = (Some("2".to_owned()), Some("1".to_owned()));
    let (done, failed) = (State::Succeeded, State::Failed);
    for (of, states, a_is_behind, under_a, behind) in [
        ([swapped, swapped], [done, done], false, [&is, &is], &[][..]),
        // The other one has all documents.
        ([swapped, not_swapped], [done, failed], false, [&is, &is_not], &["b"]),
        // It has the only replicas that are read.
        ([swapped, not_swapped], [done, failed], true, [&is, &is], &[]),
        // It has done it, and could not store that.
        ([swapped, swapped], [done, failed], true, [&is, &is], &[]),
        // It has done it twice.
        ([swapped, not_swapped], [done, done], true, [&is, &is], &[]),
        ([not_swapped, not_swapped], [done, done], false, [&is, &is], &[]),
    ] {
        let nodes = Nodes::new(of, [false, false]);
        let found = end(&nodes, states, a_is_behind, Duration::from_secs(20)).await;
        let under_a = under_a.map(Clone::clone).into();
        let behind = behind.iter().map(|node| NodeName::from(*node)).collect();
        assert_eq!(found, (Some(true), under_a, behind), "{of:?} {states:?} {a_is_behind}");
    }
}

#[tokio::test]
async fn a_swap_that_a_node_cannot_do_waits_and_is_done_when_it_can() {
    let (swapped, not_swapped) = (&[("a", "2"), ("b", "1")][..], &[("a", "1"), ("b", "2")][..]);
    let nodes = Nodes::new([swapped, not_swapped], [false, true]);
    let states = [State::Succeeded, State::Failed];
    let (ended, under_a, _) = end(&nodes, states, true, Duration::from_millis(500)).await;
    assert_eq!((ended, under_a), (None, vec![Some("2".to_owned()), Some("1".to_owned())]));
    nodes.lock()[1].1 = false;
    let (ended, under_a, _) = end(&nodes, states, true, Duration::from_secs(20)).await;
    assert_eq!((ended, under_a), (Some(true), vec![Some("2".to_owned()); 2]));
}

#[tokio::test]
async fn a_node_that_has_never_got_a_swap_is_told_where_only_it_has_documents() {
    let (swapped, not_swapped) = (&[("a", "2"), ("b", "1")][..], &[("a", "1"), ("b", "2")][..]);
    let nodes = Nodes::new([swapped, not_swapped], [false, false]);
    let found = end_of(&nodes, &[("a", State::Succeeded)], true, Duration::from_secs(20)).await;
    assert_eq!(found, (Some(true), vec![Some("2".to_owned()); 2], vec![]));
}

#[tokio::test]
async fn a_swap_does_not_fail_while_a_node_is_away_that_may_have_done_it() {
    let not_swapped = &[("a", "1"), ("b", "2")][..];
    let nodes = Nodes::new([not_swapped, not_swapped], [false, false]);
    let data = tempfile::tempdir().unwrap();
    let answers = nodes.clone();
    let script = Script::new(move |call| answers.answer(call.method.as_str(), &call.url));
    let cluster = cluster(data.path(), script, true).await;
    let uid = told(&cluster, &[("a", State::Failed), ("b", State::Away)]).await;
    let failed = || Outcome { status: TaskStatus::Failed, ..Outcome::default() };
    let is_told = async |cluster| judge(cluster, uid, &mut failed(), &BTreeSet::new()).await.unwrap();
    assert!(matches!(is_told(&cluster).await, Moving::Waits));
    finish(&cluster, uid, failed()).await.unwrap();
    assert!(cluster.tracked_tasks.wait_for_holders(), "what catches up must not queue for all locks");
    for part in &mut cluster.tracked_tasks.pending().get_mut(&uid).unwrap().parts {
        part.seen.state = State::Failed;
    }
    assert!(matches!(is_told(&cluster).await, Moving::AsTold));
}
