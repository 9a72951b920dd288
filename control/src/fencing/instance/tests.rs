use super::*;
use crate::{
    node::Call,
    testing::{ClusterBuilder, Reply, Script},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, sync::Mutex};
use tempfile::TempDir;

/// Nodes `a`, `b` and `c`, each by its port, with the description of their key; `None` without the key.
#[derive(Clone)]
struct Nodes {
    told: Arc<Mutex<BTreeMap<u16, Option<String>>>>,
    script: Arc<Script>,
}

impl Nodes {
    fn new() -> Self {
        let unserved = Serving::default().to_string();
        let told = Arc::new(Mutex::new(BTreeMap::from([1, 2, 3].map(|port| (port, Some(unserved.clone()))))));
        let shared = told.clone();
        let answer = move |call: &Call| {
            let mut told = shared.lock().unwrap();
            let description = told.get_mut(&call.url.port().unwrap()).unwrap();
            match (call.method.as_str(), call.url.path(), description) {
                (_, "/health" | "/version" | "/keys", _) => Reply::Answer(200, json!({"results": []})),
                (_, _, None) => Reply::Answer(404, json!({"code": "api_key_not_found"})),
                ("PATCH", _, Some(description)) => {
                    let key: Value = serde_json::from_slice(&call.body).unwrap();
                    *description = key["description"].as_str().unwrap().to_owned();
                    Reply::Answer(200, json!({}))
                }
                (_, _, Some(description)) => Reply::Answer(200, json!({"description": description})),
            }
        };
        Self { told, script: Script::new(answer) }
    }

    fn told(&self) -> Vec<Option<Serving>> {
        let read = |text: &String| Serving::of(&json!({"description": text})).unwrap();
        self.told.lock().unwrap().values().map(|text| text.as_ref().map(read)).collect()
    }

    fn tell(&self, port: u16, serving: Option<Serving>) {
        self.told.lock().unwrap().insert(port, serving.map(|serving| serving.to_string()));
    }

    /// Gives the node a description that no control plane writes.
    fn edit(&self, port: u16) {
        self.told.lock().unwrap().insert(port, Some("the key of search".to_owned()));
    }

    fn changes(&self) -> usize {
        self.script.calls().iter().filter(|call| call.method != "GET").count()
    }

    /// A start of a control plane with this ledger, whose nodes are up.
    async fn start(&self, data: &Path) -> Arc<Cluster> {
        let nodes = [1, 2, 3].map(|port| format!("{}=http://127.0.0.1:{port}", ["", "a", "b", "c"][port]));
        let mut cluster = ClusterBuilder::new(data).nodes(nodes).transport(self.script.clone()).build();
        cluster.options.place = Some(data.display().to_string());
        for node in cluster.nodes().iter() {
            node.check().await;
        }
        Arc::new(cluster)
    }
}

/// A copy of a ledger, while its control plane runs.
async fn copy(cluster: &Cluster) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(crate::ledger::FILE).display().to_string();
    let source = Path::new(cluster.options.place.as_ref().unwrap()).join(crate::ledger::FILE);
    rusqlite::Connection::open(source).unwrap().execute("VACUUM INTO ?1", [path]).unwrap();
    folder
}

async fn waited(cluster: &Cluster) -> (Result<()>, Duration) {
    let begun = cluster.clock.monotonic();
    (take_over(cluster).await, cluster.clock.since(begun))
}

fn by(cluster: &Cluster) -> Option<Serving> {
    Some(Serving::by(cluster.instance.id))
}

#[tokio::test(start_paused = true)]
async fn a_start_with_the_same_ledger_in_the_same_place_takes_over_at_once() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    nodes.tell(3, None);
    for _ in 0..2 {
        let cluster = nodes.start(folder.path()).await;
        let (taken, waited) = waited(&cluster).await;
        taken.unwrap();
        assert!(waited < POLL, "{waited:?}");
        assert_eq!(nodes.told(), [by(&cluster), by(&cluster), None], "one has lost its disk");
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_that_cannot_be_read_says_nothing_and_is_written_anew() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let older = nodes.start(folder.path()).await;
    take_over(&older).await.unwrap();
    nodes.edit(1);
    let cluster = nodes.start(folder.path()).await;
    let node = cluster.node("a").unwrap();
    assert!(matches!(node.serving().await, Err(Error::UnreadableAnswer { .. })));
    take_over(&cluster).await.unwrap();
    look(&cluster).await.unwrap();
    assert_eq!(nodes.told(), [by(&cluster); 3]);
}

// In real time: a paused clock goes on while the ledger, which has threads of its own, answers the one that lives.
#[tokio::test]
async fn a_copy_does_not_take_over_from_a_control_plane_that_lives() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let living = nodes.start(folder.path()).await;
    take_over(&living).await.unwrap();
    let copy = copy(&living).await;
    let watching = tokio::spawn(watch(living.clone()));
    let other = nodes.start(copy.path()).await;
    let (refused, waited) = waited(&other).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("another control plane serves this cluster with a copy of this ledger"),
        "{error}"
    );
    assert!(waited < CHALLENGE, "{waited:?}");
    while nodes.told() != [by(&living); 3] {
        tokio::time::sleep(POLL).await;
    }
    assert!(!living.instance.is_stopped());
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_copy_takes_over_from_one_that_is_silent_and_that_ends_when_it_wakes() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let paused = nodes.start(folder.path()).await;
    take_over(&paused).await.unwrap();
    let copy = copy(&paused).await;
    let other = nodes.start(copy.path()).await;
    let (taken, waited) = waited(&other).await;
    taken.unwrap();
    assert!(waited >= CHALLENGE, "{waited:?}");
    assert_eq!(nodes.told(), [by(&other); 3]);
    assert!(is_anothers(&paused, &by(&other).unwrap()).await.unwrap(), "no node gets a key from it");
    assert!(!is_anothers(&other, &by(&paused).unwrap()).await.unwrap(), "a node that was away gets its keys");
    look(&paused).await.unwrap();
    look(&other).await.unwrap();
    assert!(paused.instance.is_stopped() && !other.instance.is_stopped());
    assert_eq!(nodes.told(), [by(&other); 3]);
    assert!(matches!(paused.instance.stopped().await, Error::Superseded(_)));
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_changes_nothing() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let first = nodes.start(folder.path()).await;
    take_over(&first).await.unwrap();
    let copy = copy(&first).await;
    let second = nodes.start(folder.path()).await;
    take_over(&second).await.unwrap();
    let (before, changes) = (nodes.told(), nodes.changes());
    let older = nodes.start(copy.path()).await;
    let (refused, waited) = waited(&older).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("3 of 3 nodes") && error.contains("`miroir recover`"), "{error}");
    assert!(waited < POLL, "{waited:?}");
    assert_eq!((nodes.told(), nodes.changes()), (before, changes));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_were_away_are_told_and_one_of_many_decides_nothing() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let first = nodes.start(folder.path()).await;
    take_over(&first).await.unwrap();
    let second = nodes.start(folder.path()).await;
    take_over(&second).await.unwrap();
    nodes.tell(1, by(&first));
    nodes.tell(2, Some(Serving::by(Uuid::from_u128(7))));
    look(&second).await.unwrap();
    assert!(!second.instance.is_stopped());
    assert_eq!(nodes.told(), [by(&second); 3]);
    // As from a newer build, and back.
    look(&first).await.unwrap();
    assert!(first.instance.is_stopped(), "the ledger names a newer one");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_a_newer_topology_ends_this_start_and_is_waited_for_by_the_next() {
    let (folder, nodes) = (tempfile::tempdir().unwrap(), Nodes::new());
    let cluster = nodes.start(folder.path()).await;
    let version = cluster.cluster_state().version;
    hear_gateways(&cluster).await.unwrap();
    check_topology(&cluster, "g", version).await.unwrap();
    let error = check_topology(&cluster, "g", version + 1).await.unwrap_err().to_string();
    assert!(
        error.contains("gateway `g` has the topology 2") && error.contains("`miroir recover`"),
        "{error}"
    );
    for reports in [true, false, false] {
        let next = nodes.start(folder.path()).await;
        let begun = next.clock.monotonic();
        let report = async {
            tokio::time::sleep(INTERVAL).await;
            if reports {
                check_topology(&next, "g", version + 1).await.unwrap_err();
            }
        };
        let (heard, ()) = tokio::join!(hear_gateways(&next), report);
        assert_eq!(heard.is_err(), reports);
        if !reports {
            break;
        }
        assert!(next.clock.since(begun) < REPORT);
    }
}
