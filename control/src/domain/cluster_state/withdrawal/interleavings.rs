//! All interleavings of a few writes to one shard, each of which some replicas miss or fail, with a move and an operation that a node
//! misses in between.

use crate::domain::{
    cluster_state::{ClusterState, Index, Missed, Replica, ReplicaState},
    intent::NodeTask,
    task::TaskStatus,
    verdict::{OutcomeRule, ReportedState, State, TrackedNodeTask, Verdict, judge},
};
use miroir_core::shard::Shard;
use std::collections::{BTreeMap, BTreeSet};

const SHARD: Shard = Shard(0);
const INDEX: &str = "movies";

/// A write whose task has not ended: its number, and the nodes that took it, with what became of it there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    write: u8,
    /// Whether its client has heard that it failed.
    is_failed: bool,
    parts: BTreeMap<&'static str, Option<bool>>,
    /// The nodes whose copies were replaced since.
    replaced: BTreeSet<&'static str>,
}

#[derive(Clone)]
struct World {
    state: ClusterState,
    /// By node: the writes that its copy has.
    content: BTreeMap<&'static str, BTreeSet<u8>>,
    /// By node: the writes that are recorded for its replica, while it misses only recorded ones.
    recorded: BTreeMap<&'static str, BTreeSet<u8>>,
    pending: Vec<Pending>,
    begun: u8,
    /// Acknowledged as succeeded.
    succeeded: BTreeSet<u8>,
    /// Operations that nodes may still miss, and restarts of the control plane, which forgets which copies were replaced.
    disturbances: u8,
}

impl World {
    fn new(replicas: &[(&'static str, ReplicaState)], desired: &[&str], disturbances: u8) -> Self {
        let names = replicas.iter().map(|(node, _)| *node);
        let replica = |(node, state): &(&str, ReplicaState)| Replica { node: (*node).into(), state: *state };
        let state = ClusterState {
            replicas: vec![replicas.iter().map(replica).collect()],
            desired: vec![desired.iter().map(|node| (*node).into()).collect()],
            replication: desired.len(),
            indexes: [INDEX, "at-rest"].map(|index| (index.to_owned(), Index::default())).into(),
            ..ClusterState::default()
        };
        let content = names.map(|node| (node, BTreeSet::new())).collect();
        let (recorded, pending, succeeded) = Default::default();
        Self { state, content, recorded, pending, begun: 0, succeeded, disturbances }
    }

    /// What makes two worlds the same: versions do not.
    fn key(&self) -> String {
        let Self { state, content, recorded, pending, begun, succeeded, disturbances } = self;
        let pending: Vec<_> = pending.iter().map(|p| (p.write, p.is_failed, &p.parts, &p.replaced)).collect();
        let states: Vec<_> = state.replicas[0].iter().map(|r| (&r.node, shape(r.state))).collect();
        let stale: Vec<_> = state.stale.iter().collect();
        format!(
            "{states:?} {stale:?} {recorded:?} {content:?} {pending:?} {begun} {succeeded:?} {disturbances} {:?}",
            state.behind
        )
    }

    fn state_of(&self, node: &str) -> Option<ReplicaState> {
        self.state.replica(SHARD, node).map(|replica| replica.state)
    }

    /// Everything that may happen next.
    fn next(&self, writes: u8) -> Vec<Self> {
        let mut next = Vec::new();
        if self.begun < writes {
            next.extend(self.begin_and_commit());
        }
        for (position, pending) in self.pending.iter().enumerate() {
            for (node, _) in pending.parts.iter().filter(|(_, end)| end.is_none()) {
                // A node does its tasks in order.
                let is_next = self.pending[..position].iter().all(|p| p.parts.get(node) != Some(&None));
                if is_next {
                    next.extend([true, false].map(|is_done| self.end_on_node(position, node, is_done)));
                }
            }
            if pending.parts.values().all(Option::is_some) {
                next.push(self.end(position));
            }
        }
        let nodes: Vec<&'static str> = self.content.keys().copied().collect();
        for target in &nodes {
            for source in &nodes {
                next.extend(self.copy(source, target));
            }
            if let Some(ReplicaState::Leaving { .. }) = self.state_of(target) {
                let mut world = self.clone();
                world.state.remove(SHARD, target);
                next.push(world);
            }
            // Its documents are deleted after what its queue has.
            if self.state_of(target) == Some(ReplicaState::Removing) && !self.is_busy(target) {
                let mut world = self.clone();
                world.state.removed(SHARD, target);
                world.content.insert(target, BTreeSet::new());
                next.push(world);
            }
            if self.disturbances > 0 {
                let mut world = self.clone();
                world.disturbances -= 1;
                world.state.mark_behind(target);
                next.push(world);
            }
            if self.state.behind.contains(*target) {
                let mut world = self.clone();
                world.state.behind.remove(*target);
                next.push(world);
            }
        }
        if self.disturbances > 0 && self.pending.iter().any(|pending| !pending.replaced.is_empty()) {
            let mut world = self.clone();
            world.disturbances -= 1;
            world.pending.iter_mut().for_each(|pending| pending.replaced.clear());
            next.push(world);
        }
        next
    }

    fn begin_and_commit(&self) -> Vec<Self> {
        let writers: Vec<&'static str> = {
            let writers: BTreeSet<&str> =
                self.state.writers(INDEX, SHARD).map(|node| node.as_str()).collect();
            self.content.keys().copied().filter(|node| writers.contains(node)).collect()
        };
        (0..1usize << writers.len()).map(|choice| self.committed(&writers, choice)).collect()
    }

    fn committed(&self, writers: &[&'static str], choice: usize) -> Self {
        let mut world = self.clone();
        let write = world.begun;
        world.begun += 1;
        let took: BTreeSet<&'static str> =
            writers.iter().enumerate().filter(|(n, _)| choice >> n & 1 == 1).map(|(_, node)| *node).collect();
        let all = BTreeMap::from([(SHARD, writers.iter().map(|node| (*node).into()).collect())]);
        let lost = world.state.commit(
            INDEX,
            &all,
            |node| took.contains(node),
            &BTreeSet::new(),
            |_| Missed::Recorded,
        );
        world.record(write);
        let parts: BTreeMap<_, _> = took.into_iter().map(|node| (node, None)).collect();
        if !parts.is_empty() {
            world.pending.push(Pending {
                write,
                is_failed: !lost.is_empty(),
                parts,
                replaced: BTreeSet::new(),
            });
        }
        world
    }

    fn end_on_node(&self, position: usize, node: &'static str, is_done: bool) -> Self {
        let mut world = self.clone();
        let pending = &mut world.pending[position];
        pending.parts.insert(node, Some(is_done));
        if is_done {
            let write = pending.write;
            world.content.get_mut(node).unwrap().insert(write);
        }
        world
    }

    fn end(&self, position: usize) -> Self {
        let mut world = self.clone();
        let Pending { write, is_failed, parts, replaced } = world.pending.remove(position);
        let parts: Vec<TrackedNodeTask> = parts
            .into_iter()
            .map(|(node, end)| {
                let task = NodeTask { node: node.into(), node_task: 0, main: true, shards: vec![SHARD] };
                let state = if end == Some(true) { State::Succeeded } else { State::Failed };
                let seen = ReportedState { state, ..ReportedState::default() };
                let replaced = replaced.iter().filter(|other| **other == node).map(|_| SHARD).collect();
                TrackedNodeTask { seen, replaced, ..TrackedNodeTask::of(task) }
            })
            .collect();
        let Verdict::Outcome(mut over) = judge(&parts, OutcomeRule::Best, &BTreeSet::new()) else {
            panic!("all parts have ended")
        };
        let lost = world.state.end_write(INDEX, &over, |_| Missed::Recorded);
        if !over.stale.is_empty() {
            world.record(write);
        }
        over.lose(&lost);
        if over.status == TaskStatus::Succeeded && !is_failed {
            world.succeeded.insert(write);
        }
        world
    }

    /// Records a write for all replicas that are stale in the index.
    fn record(&mut self, write: u8) {
        for node in self.content.keys() {
            match self.state.stale.get(INDEX, node, SHARD) {
                Some(Missed::Recorded) => _ = self.recorded.entry(*node).or_default().insert(write),
                _ => _ = self.recorded.remove(node),
            }
        }
    }

    fn is_busy(&self, node: &str) -> bool {
        self.pending.iter().any(|pending| pending.parts.get(node) == Some(&None))
    }

    /// A copy waits until the target has ended what it took, and until the source has done all of that; what it has not done, until
    /// the write's end has been applied.
    fn copy(&self, source: &'static str, target: &'static str) -> Option<Self> {
        let stale: Vec<String> = {
            let of_target = self.state.stale.iter().filter(|(_, node, ..)| **node == *target);
            of_target.map(|(index, ..)| index.to_owned()).collect()
        };
        let is_stale = self.state_of(target) == Some(ReplicaState::Stale);
        // What is stale in the index at rest, since its node was behind, is whole as soon as its node has learned.
        let is_source = match stale.first() {
            Some(_) => self.state.is_whole(INDEX, SHARD, source),
            None => self.state.has_everything(SHARD, source),
        };
        let is_open = |p: &Pending| p.parts.get(source).is_some_and(|end| *end != Some(true));
        let may = (is_stale || !stale.is_empty())
            && is_source
            && !self.state.behind.contains(target)
            && !self.state.behind.contains(source)
            && !self.is_busy(target)
            && !self.pending.iter().any(is_open);
        let is_replay = !is_stale && self.state.stale.get(INDEX, target, SHARD) == Some(Missed::Recorded);
        may.then(|| {
            let mut world = self.clone();
            let recorded = world.recorded.remove(target).unwrap_or_default();
            let mut content = self.content[source].clone();
            if is_replay {
                content.retain(|write| recorded.contains(write));
                content.extend(self.content[target].difference(&recorded));
            }
            world.content.insert(target, content);
            match is_stale {
                true => world.state.mark_active(SHARD, target),
                false => stale.iter().for_each(|index| world.state.mark_whole(index, SHARD, target)),
            }
            let of_target = world.pending.iter_mut().filter(|pending| pending.parts.contains_key(target));
            for pending in of_target.filter(|_| !is_replay) {
                pending.replaced.insert(target);
            }
            world
        })
    }

    /// At rest: what is acknowledged is on every replica that is read, and all of these are the same.
    fn check(&self, histories: &[(String, Option<usize>)], at: usize) {
        let active: Vec<&str> = self.state.whole(INDEX, SHARD).map(|node| node.as_str()).collect();
        let history = || history(histories, at);
        assert!(!active.is_empty(), "{}", history());
        for node in &active {
            let content = &self.content[node];
            assert!(self.succeeded.is_subset(content), "{node} lacks a write:\n{}", history());
            assert_eq!(*content, self.content[active[0]], "{node} differs:\n{}", history());
        }
    }
}

fn shape(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Active => "active",
        ReplicaState::Stale => "stale",
        ReplicaState::Leaving { written: true, .. } => "leaving",
        ReplicaState::Leaving { written: false, .. } => "left",
        ReplicaState::Removing => "removing",
    }
}

/// Follows every history from a world; gives how many worlds were at rest.
fn explore(world: World, writes: u8) -> usize {
    let mut seen = BTreeSet::from([world.key()]);
    // Each world's key, and the place of the world before it.
    let mut histories = vec![(world.key(), None)];
    let mut left = vec![(world, 0)];
    let mut rests = 0;
    while let Some((world, at)) = left.pop() {
        let next = world.next(writes);
        // Nothing is left but what may still disturb it.
        let is_still = next.iter().all(|next| next.disturbances < world.disturbances);
        if world.begun == writes && world.pending.is_empty() && is_still {
            rests += 1;
            world.check(&histories, at);
        }
        for world in next {
            let key = world.key();
            if seen.insert(key.clone()) {
                histories.push((key, Some(at)));
                left.push((world, histories.len() - 1));
            }
        }
    }
    rests
}

/// The worlds that led to one, the first one first.
fn history(histories: &[(String, Option<usize>)], at: usize) -> String {
    let (key, before) = &histories[at];
    before.map_or(String::new(), |before| history(histories, before) + "\n") + key
}

const STALE: ReplicaState = ReplicaState::Stale;
const ACTIVE: ReplicaState = ReplicaState::Active;

#[test]
fn what_is_acknowledged_is_on_every_replica_that_stays() {
    let two = World::new(&[("a", ACTIVE), ("b", ACTIVE)], &["a", "b"], 1);
    let moved = World::new(&[("a", ACTIVE), ("b", STALE)], &["b"], 1);
    for world in [two, moved] {
        let rests = explore(world, 3);
        assert!(rests > 5, "{rests}");
    }
}

#[test]
fn what_is_acknowledged_is_on_every_replica_that_stays_of_three() {
    let three = World::new(&[("a", ACTIVE), ("b", ACTIVE), ("c", ACTIVE)], &["a", "b", "c"], 1);
    let moved = World::new(&[("a", ACTIVE), ("b", ACTIVE), ("c", STALE)], &["b", "c"], 1);
    for world in [three, moved] {
        let rests = explore(world, 2);
        assert!(rests > 5, "{rests}");
    }
}
