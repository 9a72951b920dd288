//! From what nodes say of their tasks to what the client's task is. Pure.

use crate::{base::time::Nanos, domain::intent::NodeTask};
use miroir_core::{error::ErrorBody, shard::Shard};
use serde_json::Value;
use std::collections::BTreeSet;

/// A node's task, as far as it is known.
#[derive(Clone, Debug)]
pub struct Part {
    /// The node's name.
    pub node: String,
    /// Its own uid.
    pub node_task: u32,
    /// Whether its end decides the client's task; else it only has to be over.
    pub main: bool,
    /// The shards it writes; empty for all.
    pub shards: Vec<Shard>,
    /// What the node said last.
    pub seen: Seen,
}

impl Part {
    /// A task that its node has said nothing of yet.
    #[must_use]
    pub fn of(task: NodeTask) -> Self {
        let NodeTask { node, node_task, main, shards } = task;
        Self { node, node_task, main, shards, seen: Seen::default() }
    }
}

/// What a node says of its task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// How far it is.
    pub state: State,
    /// When it began.
    pub started_at: Option<Nanos>,
    /// When it ended.
    pub finished_at: Option<Nanos>,
    /// Meilisearch's details.
    pub details: Option<Value>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
}

impl Seen {
    /// Whether the node has judged the request and will not have it, as any node with its documents would. What fails for want of
    /// space or by an error of the node's own is no such verdict, nor is it that an index is there, or is not: the catalogue knows.
    pub(crate) fn is_refusal(&self) -> bool {
        let is_clients = |error: &ErrorBody| error.kind == "invalid_request" && !is_about_existence(error);
        self.state == State::Failed && self.error.as_ref().is_some_and(is_clients)
    }
}

/// Whether an error says that an index is there, or is not.
pub(crate) fn is_about_existence(error: &ErrorBody) -> bool {
    ["index_not_found", "index_already_exists"].contains(&error.code.as_str())
}

/// Which end is the truth, where nodes end an operation on a whole index differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decides {
    /// The best one: what one node has, the others are to have too.
    #[default]
    Best,
    /// The same, and who does not know the index has nothing to catch up with.
    Deletion,
    /// A refusal: each node judges by its own documents, and a node that had them all would refuse it too. None is to keep what one
    /// refuses.
    Refusal,
}

/// How far a node's task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Enqueued.
    #[default]
    Waiting,
    /// Begun.
    Processing,
    /// Ended well.
    Succeeded,
    /// Ended badly, or forgotten by the node.
    Failed,
    /// Cancelled.
    Canceled,
    /// The node is away, and the task had not ended.
    Away,
}

impl State {
    /// Whether nothing more will come of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// What the client's task is.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Not over; when the first node began.
    Pending {
        /// When the first node began.
        started_at: Option<Nanos>,
    },
    /// Over.
    Over(Box<Over>),
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Over {
    /// `succeeded`, `failed`, `canceled`.
    pub status: &'static str,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// When the first node began.
    pub started_at: Option<Nanos>,
    /// When the last node ended.
    pub finished_at: Option<Nanos>,
    /// Documents deleted, each counted once.
    pub deleted: Option<u64>,
    /// Documents edited by a function, each counted once.
    pub edited: Option<u64>,
    /// The details of a node that ended as the client's task did.
    pub details: Option<Value>,
    /// Replicas that ended otherwise than the others of their shard.
    pub stale: BTreeSet<(Shard, String)>,
    /// Nodes that ended otherwise than the others.
    pub behind: BTreeSet<String>,
    /// Nodes that have taken what another one refuses: they are to be as before.
    pub set_back: BTreeSet<String>,
    /// A node that refuses it.
    pub refused_by: Option<String>,
}

/// Decides. A node that is away is waited for only where nobody else can speak for its shards. What nodes refuse that are `behind`
/// says nothing: they judge by what they have missed.
#[must_use]
pub fn judge(parts: &[Part], decides: Decides, behind: &BTreeSet<String>) -> Verdict {
    let started_at = parts.iter().filter_map(|part| part.seen.started_at).min();
    let unfinished = parts.iter().any(|part| !part.seen.state.is_over() && part.seen.state != State::Away);
    if unfinished {
        return Verdict::Pending { started_at };
    }
    let mut over = Over { status: "succeeded", started_at, ..Over::default() };
    let is_decided = parts.iter().any(|part| part.main);
    let main: Vec<&Part> = parts.iter().filter(|part| part.main).collect();
    let groups: Vec<Option<Shard>> = if main.iter().all(|part| part.shards.is_empty()) {
        vec![None]
    } else {
        let shards: BTreeSet<Shard> = main.iter().flat_map(|part| part.shards.iter().copied()).collect();
        shards.into_iter().map(Some).collect()
    };
    let refuses =
        |part: &&&Part| decides == Decides::Refusal && part.seen.is_refusal() && !behind.contains(&part.node);
    let refusal = main.iter().find(refuses).copied();
    for group in groups.into_iter().filter(|_| is_decided) {
        let of_group: Vec<&&Part> =
            main.iter().filter(|part| group.is_none_or(|shard| part.shards.contains(&shard))).collect();
        // The best end is the truth: what one replica has taken, the others are to have too.
        let best = [State::Succeeded, State::Canceled, State::Failed]
            .into_iter()
            .find(|state| of_group.iter().any(|part| part.seen.state == *state));
        let truth = refusal.map(|_| State::Failed).or(best);
        let Some(truth) = truth else { return Verdict::Pending { started_at } };
        for part in of_group.iter().filter(|part| part.seen.state != truth || refusal.is_some()) {
            let is_gone = || part.seen.error.as_ref().is_some_and(|error| error.code == "index_not_found");
            match group {
                Some(shard) => drop(over.stale.insert((shard, part.node.clone()))),
                None if part.seen.is_refusal() && refusal.is_some() => {}
                None if part.seen.state == State::Succeeded => drop(over.set_back.insert(part.node.clone())),
                None if decides == Decides::Deletion && is_gone() => {}
                None => drop(over.behind.insert(part.node.clone())),
            }
        }
        match truth {
            State::Failed => over.status = "failed",
            State::Canceled if over.status != "failed" => over.status = "canceled",
            _ => {}
        }
    }
    // Steps that only have to be over: creating the index, setting its primary key.
    let extras = parts.iter().filter(|part| !part.main);
    let some_succeeded = extras.clone().any(|part| part.seen.state == State::Succeeded);
    for part in extras.filter(|part| some_succeeded && part.seen.state != State::Succeeded) {
        if part.seen.state == State::Away {
            over.behind.insert(part.node.clone());
        }
    }
    over.refused_by = refusal.map(|part| part.node.clone());
    over.finished_at = parts.iter().filter_map(|part| part.seen.finished_at).max();
    let tells = refusal.into_iter().chain(main.iter().copied());
    if over.status == "failed" {
        over.error = tells.clone().find_map(|part| part.seen.error.clone());
    }
    let of_status = |part: &&Part| state_name(part.seen.state) == over.status;
    over.details = tells.clone().find(of_status).and_then(|part| part.seen.details.clone());
    over.deleted = counted(&main, "deletedDocuments");
    over.edited = counted(&main, "editedDocuments");
    Verdict::Over(Box::new(over))
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Succeeded => "succeeded",
        State::Canceled => "canceled",
        _ => "failed",
    }
}

/// The most nodes whose counts are combined in every way.
const COMBINED: usize = 12;

/// Documents that nodes count in their details, each counted once.
///
/// Nodes count what they did over all their shards together. Where some nodes have each shard equally often, that many have
/// counted each document: exact. So it is with all replicas there, and often without some; else this is a mean, rounded.
fn counted(main: &[&Part], detail: &str) -> Option<u64> {
    let done = main.iter().filter(|part| part.seen.state == State::Succeeded);
    let counts: Vec<(&[Shard], u64)> = done
        .filter_map(|part| Some((&*part.shards, part.seen.details.as_ref()?.get(detail)?.as_u64()?)))
        .collect();
    if counts.is_empty() {
        return None;
    }
    // Where a node has counted nothing, nothing was there.
    let nothing: BTreeSet<Shard> = counts
        .iter()
        .filter(|(_, count)| *count == 0)
        .flat_map(|(shards, _)| shards.iter().copied())
        .collect();
    let counts: Vec<(BTreeSet<Shard>, u64)> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(shards, count)| {
            (shards.iter().filter(|shard| !nothing.contains(shard)).copied().collect(), count)
        })
        .collect();
    let shards: BTreeSet<Shard> = counts.iter().flat_map(|(shards, _)| shards.iter().copied()).collect();
    let sum = |chosen: &[&(BTreeSet<Shard>, u64)]| chosen.iter().map(|(_, count)| count).sum::<u64>();
    let all: Vec<_> = counts.iter().collect();
    if shards.is_empty() {
        return Some(sum(&all));
    }
    let exact = |chosen: &[&(BTreeSet<Shard>, u64)]| {
        let times = |shard: &Shard| chosen.iter().filter(|(shards, _)| shards.contains(shard)).count() as u64;
        let first = shards.first().map(times).filter(|times| *times > 0)?;
        shards.iter().all(|shard| times(shard) == first).then(|| sum(chosen) / first)
    };
    let some = |choice: usize| {
        let chosen = counts.iter().enumerate().filter(|(position, _)| choice >> position & 1 == 1);
        exact(&chosen.map(|(_, count)| count).collect::<Vec<_>>())
    };
    let combined = exact(&all).or_else(|| (1..1usize << counts.len().min(COMBINED)).rev().find_map(some));
    let copies: u64 = counts.iter().map(|(shards, _)| shards.len() as u64).sum();
    Some(combined.unwrap_or_else(|| (sum(&all) * shards.len() as u64 + copies / 2) / copies.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(node: &str, shards: &[u16], state: State) -> Part {
        let seen = Seen {
            state,
            started_at: Some(10),
            finished_at: Some(20),
            details: Some(json!({"deletedDocuments": 6})),
            error: (state == State::Failed).then(|| crate::base::error::index_not_found("x").body),
        };
        let shards = shards.iter().copied().map(Shard).collect();
        Part { node: node.into(), node_task: 0, main: true, shards, seen }
    }

    fn over(parts: &[Part]) -> Over {
        match judge(parts, Decides::Best, &BTreeSet::new()) {
            Verdict::Over(over) => *over,
            Verdict::Pending { .. } => panic!("pending"),
        }
    }

    #[test]
    fn all_replicas_must_have_succeeded() {
        let parts = [part("a", &[0, 1], State::Succeeded), part("b", &[0, 1], State::Processing)];
        assert_eq!(judge(&parts, Decides::Best, &BTreeSet::new()), Verdict::Pending { started_at: Some(10) });
        let over = over(&[part("a", &[0, 1], State::Succeeded), part("b", &[0, 1], State::Succeeded)]);
        assert_eq!((over.status, over.deleted, over.finished_at), ("succeeded", Some(6), Some(20)));
        assert!(over.stale.is_empty());
    }

    #[test]
    fn a_replica_that_ends_otherwise_is_stale() {
        let over = over(&[
            part("a", &[0, 1], State::Succeeded),
            part("b", &[1], State::Failed),
            part("c", &[0], State::Succeeded),
        ]);
        assert_eq!(over.status, "succeeded");
        assert_eq!(over.stale, BTreeSet::from([(Shard(1), "b".to_owned())]));
    }

    #[test]
    fn a_shard_that_all_refuse_fails_the_task() {
        let over = over(&[part("a", &[0], State::Failed), part("b", &[1], State::Succeeded)]);
        assert_eq!((over.status, over.error.unwrap().code.as_str()), ("failed", "index_not_found"));
        assert!(over.stale.is_empty());
    }

    #[test]
    fn a_node_that_is_away_blocks_only_what_nobody_else_has() {
        let stood_in = over(&[part("a", &[0], State::Away), part("b", &[0], State::Succeeded)]);
        assert_eq!((stood_in.status, stood_in.stale.len()), ("succeeded", 1));
        let alone = [part("a", &[0], State::Away), part("b", &[1], State::Succeeded)];
        assert!(matches!(judge(&alone, Decides::Best, &BTreeSet::new()), Verdict::Pending { .. }));
    }

    #[test]
    fn steps_are_waited_for_but_decide_nothing() {
        let mut step = part("b", &[], State::Waiting);
        step.main = false;
        let main = part("a", &[0], State::Succeeded);
        assert!(matches!(
            judge(&[main.clone(), step.clone()], Decides::Best, &BTreeSet::new()),
            Verdict::Pending { .. }
        ));
        step.seen.state = State::Failed;
        assert_eq!(over(&[main, step]).status, "succeeded");
    }

    #[test]
    fn operations_on_all_nodes_leave_those_behind_that_differ() {
        let over = over(&[part("a", &[], State::Succeeded), part("b", &[], State::Failed)]);
        assert_eq!((over.status, over.behind), ("succeeded", BTreeSet::from(["b".to_owned()])));
    }

    #[test]
    fn what_one_node_refuses_none_keeps() {
        let judged = |parts: &[Part], decides, behind: &[&str]| {
            let behind = behind.iter().map(|name| (*name).to_owned()).collect();
            match judge(parts, decides, &behind) {
                Verdict::Over(over) => *over,
                Verdict::Pending { .. } => panic!("pending"),
            }
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let failed = |node: &str, kind: &str, code: &str| {
            let mut part = part(node, &[], State::Failed);
            let of = |error| ErrorBody { kind: kind.into(), code: code.into(), ..error };
            part.seen.error = part.seen.error.map(of);
            part
        };
        let parts = [
            failed("d", "internal", "internal"),
            part("a", &[], State::Succeeded),
            failed("b", "invalid_request", "vector_embedding_error"),
            part("c", &[], State::Away),
        ];
        let over = judged(&parts, Decides::Refusal, &[]);
        assert_eq!((over.status, over.error.unwrap().code.as_str()), ("failed", "vector_embedding_error"));
        assert_eq!((over.set_back, over.behind), (names(&["a"]), names(&["c", "d"])));
        // Who is behind refuses nothing.
        let over = judged(&parts, Decides::Refusal, &["b"]);
        assert_eq!(
            (over.status, over.set_back, over.behind),
            ("succeeded", names(&[]), names(&["b", "c", "d"]))
        );
        // Nor is one full, or of another opinion about which indexes there are.
        let parts = [parts[0].clone(), parts[1].clone(), part("b", &[], State::Failed)];
        for (decides, behind) in [(Decides::Refusal, &["b", "d"][..]), (Decides::Deletion, &["d"])] {
            let over = judged(&parts, decides, &[]);
            assert_eq!((over.status, over.set_back, over.behind), ("succeeded", names(&[]), names(behind)));
        }
    }

    #[test]
    fn deletions_are_counted_once_where_nodes_tell_enough() {
        let counted = |parts: &[(&[u16], u64)]| {
            let parts: Vec<Part> = parts
                .iter()
                .map(|(shards, count)| {
                    let mut part = part("n", shards, State::Succeeded);
                    part.seen.details = Some(json!({"deletedDocuments": count}));
                    part
                })
                .collect();
            over(&parts).deleted
        };
        // Shard 0 has one document, shard 1 five, shard 2 ten.
        assert_eq!(counted(&[(&[0, 1], 6), (&[1, 2], 15), (&[0, 2], 11)]), Some(16), "all replicas");
        assert_eq!(
            counted(&[(&[0, 1], 6), (&[1, 2], 15), (&[2], 10)]),
            Some(16),
            "one is away for one shard"
        );
        assert_eq!(counted(&[(&[0, 1, 2], 16), (&[1], 5)]), Some(16), "one node has them all");
        assert_eq!(counted(&[(&[0, 1], 5), (&[1, 2], 5), (&[2], 0)]), Some(5), "some had none");
        assert_eq!(counted(&[(&[0, 1], 0), (&[1, 2], 0)]), Some(0));
        assert_eq!(
            counted(&[(&[0, 1], 6), (&[1, 2], 15)]),
            Some(16),
            "nobody can tell: a mean, by luck exact"
        );
    }
}
