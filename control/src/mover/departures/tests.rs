use super::*;
use crate::{
    node::Call,
    testing::{ClusterBuilder, Reply, Script},
};
use serde_json::json;
use std::sync::{Mutex, PoisonError};

/// A node `c` with an index, a client's key, a write key and the key that gateways read under.
#[derive(Clone)]
struct Leaver {
    /// What it has.
    has: Arc<Mutex<Vec<&'static str>>>,
    /// How many requests it answers.
    answers: Arc<Mutex<usize>>,
    script: Arc<Script>,
}

const INDEX: &str = "/indexes/books";
const CLIENTS: &str = "/keys/00000000-0000-0000-0000-000000000001";
const WRITER: &str = "/keys/00000000-0000-0000-0000-000000000002";
const READS: &str = "/keys/00000000-0000-0000-0000-000000000000";

impl Leaver {
    fn new() -> Self {
        let has = Arc::new(Mutex::new(vec![INDEX, CLIENTS, WRITER, READS]));
        let answers = Arc::new(Mutex::new(usize::MAX));
        let (had, left) = (has.clone(), answers.clone());
        let script = Script::new(move |call: &Call| {
            if call.url.port() != Some(3) {
                return Reply::Answer(200, json!({"results": []}));
            }
            let mut left = left.lock().unwrap();
            let Some(fewer) = left.checked_sub(1) else { return Reply::NoConnection };
            *left = fewer;
            let mut had = had.lock().unwrap();
            let path = call.url.path();
            match (call.method.as_str(), path) {
                ("GET", "/indexes") => {
                    let indexes: Vec<_> =
                        had.iter().filter(|what| **what == INDEX).map(|_| json!({"uid": "books"})).collect();
                    Reply::Answer(200, json!({"results": indexes}))
                }
                ("GET", "/keys") => {
                    let keys: Vec<_> = had.iter().filter_map(|what| key(what)).collect();
                    Reply::Answer(200, json!({"results": keys}))
                }
                ("GET", _) => match had.iter().find(|what| **what == path) {
                    Some(what) => Reply::Answer(200, key(what).unwrap()),
                    None => Reply::Answer(404, json!({"code": "api_key_not_found"})),
                },
                ("DELETE", _) => {
                    had.retain(|what| *what != path);
                    Reply::Answer(202, json!({"taskUid": 1}))
                }
                _ => Reply::Answer(200, json!({})),
            }
        });
        Self { has, answers, script }
    }

    fn has(&self) -> Vec<&'static str> {
        self.has.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self, data: &std::path::Path) -> Arc<Cluster> {
        let nodes = ["a=http://127.0.0.1:1", "b=http://127.0.0.1:2", "c=http://127.0.0.1:3"];
        let nodes = nodes.map(ToOwned::to_owned);
        Arc::new(ClusterBuilder::new(data).nodes(nodes).transport(self.script.clone()).build())
    }
}

fn key(path: &str) -> Option<serde_json::Value> {
    let uid = path.strip_prefix("/keys/")?;
    let [name, description] = match path {
        READS => ["miroir:read", "Reads of gateways themselves"],
        WRITER => ["miroir:epoch", "Writes of 17"],
        _ => ["mine", ""],
    };
    Some(json!({"uid": uid, "name": name, "description": description, "key": "k"}))
}

/// Lets node `c` be one that leaves and holds nothing.
async fn empty(cluster: &Cluster) {
    let empty = |cluster_state: &mut ClusterState| {
        for replicas in &mut cluster_state.replicas {
            replicas.retain(|replica| replica.node != "c");
        }
        for member in cluster_state.nodes.iter_mut().filter(|member| member.config.name == "c") {
            member.leaving = true;
        }
    };
    cluster.change(empty).await.unwrap();
}

fn has_left(cluster: &Cluster) -> bool {
    cluster.node("c").is_none()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_while_it_is_cleared_is_cleared_later_and_by_the_next_start() {
    let before = [INDEX, CLIENTS, WRITER, READS];
    // It asks for the key, for all keys and for indexes, and deletes three things.
    for answers in 0..6 {
        let (folder, node) = (tempfile::tempdir().unwrap(), Leaver::new());
        let cluster = node.start(folder.path());
        empty(&cluster).await;
        *node.answers.lock().unwrap() = answers;
        let mut departures = Departures::default();
        departures.look(&cluster).await.unwrap();
        assert!(has_left(&cluster));
        let kept = node.has();
        assert!(kept.contains(&READS), "{answers}: {kept:?}");
        assert!(answers > 3 || kept == before, "{answers}: {kept:?}");

        *node.answers.lock().unwrap() = usize::MAX;
        departures.look(&cluster).await.unwrap();
        assert_eq!(node.has(), kept, "it was tried just before");
        if answers % 2 == 0 {
            tokio::time::sleep(PAUSE).await;
        } else {
            // A restart knows what the ledger has.
            departures = Departures::default();
        }
        departures.look(&cluster).await.unwrap();
        assert_eq!(node.has(), [CLIENTS], "{answers}");
        assert_eq!(cluster.ledger.read(departed::all).await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_clusters_stays() {
    for lacks in [READS, WRITER] {
        let (folder, node) = (tempfile::tempdir().unwrap(), Leaver::new());
        let cluster = node.start(folder.path());
        let member =
            cluster.cluster_state().nodes.iter().find(|member| member.config.name == "c").unwrap().clone();
        empty(&cluster).await;
        *node.answers.lock().unwrap() = 0;
        let mut departures = Departures::default();
        departures.look(&cluster).await.unwrap();
        *node.answers.lock().unwrap() = usize::MAX;
        if lacks == READS {
            // Another Meilisearch has its address now.
            node.has.lock().unwrap().retain(|what| *what != READS);
        } else {
            // It has joined again.
            cluster.change(|cluster_state| cluster_state.nodes.push(member.clone())).await.unwrap();
        }
        let had = node.has();
        tokio::time::sleep(PAUSE).await;
        departures.look(&cluster).await.unwrap();
        assert_eq!(node.has(), had);
        assert_eq!(cluster.ledger.read(departed::all).await.unwrap(), []);
    }
}
