//! What becomes of replicas while a history goes on: none is stale for more than it has missed.

use super::World;
use crate::node::NodeRequest;
use miroir_control::domain::{
    cluster_state::{ClusterState, Replica, ReplicaState},
    task_mark::TaskMark,
};
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What is known of replicas, and of why they may be stale.
#[derive(Default)]
pub struct Replicas {
    /// The state that was seen last.
    state: Option<Arc<ClusterState>>,
    /// The indexes that tasks of the ledger were about that had not ended when they were looked at last.
    written: BTreeSet<String>,
    /// Names of indexes that clients wanted to swap or rename.
    moved: BTreeSet<BTreeSet<String>>,
    /// Nodes that have taken requests to an index which nobody waits for any more.
    late: BTreeSet<(String, String)>,
}

impl Replicas {
    /// All names that an index has had, or that its documents may have.
    fn names_of(&self, index: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::from([index.to_owned()]);
        loop {
            let joined = self.moved.iter().filter(|moved| !moved.is_disjoint(&names)).flatten();
            let more: BTreeSet<String> = joined.chain(&names).cloned().collect();
            if more == names {
                return names;
            }
            names = more;
        }
    }
}

impl World {
    /// A client wants to swap indexes, or to rename one: what a replica misses of one of them, it misses of all.
    pub fn may_move(&mut self, indexes: &[&str]) {
        self.replicas.moved.insert(indexes.iter().map(|index| (*index).to_owned()).collect());
    }

    /// A node takes a request that changes something.
    pub(super) fn node_takes(&mut self, name: &str, request: &NodeRequest) {
        let segments = request.path.segments();
        let ["indexes", index, "documents", ..] = segments.as_slice() else { return };
        let parameters: BTreeMap<_, _> =
            url::form_urlencoded::parse(request.path.query().as_bytes()).collect();
        let mark = parameters.get("customMetadata").and_then(|mark| mark.parse().ok());
        let is_late = match mark {
            Some(TaskMark::Write(uid)) => !self.setup.disk.read(|connection| is_open(connection, uid)),
            Some(TaskMark::Copy { .. }) => true,
            None => false,
        };
        if is_late {
            self.replicas.late.insert((name.to_owned(), (*index).to_owned()));
        }
    }

    /// Looks at the state of replicas. A replica that is read misses nothing of indexes that nobody has written to, and is stale as a whole
    /// only where its node has missed an operation.
    pub(super) fn look_at_replicas(&mut self) {
        let Some(control) = &self.control else { return };
        let state = control.cluster.cluster_state();
        let written = self.setup.disk.read(written);
        let Some(before) = self.replicas.state.replace(state.clone()) else { return };
        let before_written = std::mem::replace(&mut self.replicas.written, written);
        if before.version == state.version {
            return;
        }
        let is_read = |shard, node: &str| before.replica(shard, node).is_some_and(Replica::is_active);
        let is_behind = |node: &str| before.behind.contains(node) || state.behind.contains(node);
        let mut wrong = Vec::new();
        for shard in state.shards() {
            for Replica { node, state: of } in state.of(shard) {
                if *of == ReplicaState::Stale && is_read(shard, node) && !is_behind(node) {
                    wrong.push(format!("21: shard {} on {node} is stale for all indexes", shard.0));
                }
            }
        }
        for (index, node, shard, _) in state.stale.iter() {
            let is_new = is_read(shard, node) && before.stale.get(index, node, shard).is_none();
            let why = |name: &String| {
                before_written.contains(name)
                    || self.replicas.written.contains(name)
                    || self.replicas.late.contains(&(node.to_string(), name.clone()))
                    || before.stale.get(name, node, shard).is_some()
            };
            if is_new && !is_behind(node) && !self.replicas.names_of(index).iter().any(why) {
                wrong.push(format!("21: shard {} on {node} is stale in {index}, which is at rest", shard.0));
            }
        }
        for what in wrong {
            self.note(|| format!("violates {what}"));
            self.violations.push(format!("{what} ({} ms)", self.now));
        }
    }
}

/// Whether a write is not decided yet.
fn is_open(connection: &Connection, uid: u32) -> bool {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM intents WHERE uid = ?1 AND state = 'open')")
        .and_then(|mut statement| statement.query_row([uid], |row| row.get(0)))
        .unwrap()
}

/// The indexes that tasks are about that have not ended.
fn written(connection: &Connection) -> BTreeSet<String> {
    let mut statement = connection
        .prepare_cached("SELECT DISTINCT index_uid FROM tasks WHERE status IN ('enqueued', 'processing')")
        .unwrap();
    let names = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
    names.filter_map(Result::unwrap).collect()
}
