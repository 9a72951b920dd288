//! Decides the outcome of a client's task from the states of the nodes' tasks.

mod count;

use crate::{
    base::time::Nanos,
    domain::{intent::NodeTask, task::TaskStatus},
};
use count::counted;
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    node_name::NodeName,
    shard::Shard,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The details that count documents.
const COUNTS: [&str; 2] = ["deletedDocuments", "editedDocuments"];

/// A node's task, and what is known of its state.
#[derive(Clone, Debug)]
pub struct TrackedNodeTask {
    /// The node's name.
    pub node: NodeName,
    /// Its own uid.
    pub node_task: u32,
    /// Whether its outcome decides the client's task; otherwise it only has to end.
    pub main: bool,
    /// The shards it writes; empty for all.
    pub shards: Vec<Shard>,
    /// Those of its shards of which the node's copy was replaced afterwards, by one that has what was decided.
    pub replaced: BTreeSet<Shard>,
    /// What the node last reported.
    pub seen: ReportedState,
    /// Whether the node stopped, or was unreachable, before it ended the task. A node that is killed may handle a task twice: of
    /// a change of whole indexes its report cannot be believed, since it stores the change and the task's end one after the
    /// other.
    pub is_interrupted: bool,
}

impl TrackedNodeTask {
    /// Takes up what the node reports. One that is behind may lack the index: a deletion or an edit of documents has nothing to do on it.
    pub fn report(&mut self, seen: ReportedState, is_behind: bool) {
        self.is_interrupted |= seen.state == State::Away;
        let has_nothing = is_behind && !self.shards.is_empty() && seen.is_without_index();
        self.seen = if has_nothing { seen.without_work() } else { seen };
    }

    /// Takes up that nobody listens at the node's address.
    pub fn stopped(&mut self) {
        self.is_interrupted |= !self.seen.state.is_over();
    }

    /// A task of which the node has not reported anything yet.
    #[must_use]
    pub fn of(task: NodeTask) -> Self {
        let NodeTask { node, node_task, main, shards } = task;
        Self {
            node,
            node_task,
            main,
            shards,
            replaced: BTreeSet::new(),
            seen: ReportedState::default(),
            is_interrupted: false,
        }
    }
}

/// What a node reports of its task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedState {
    /// Its state.
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

impl ReportedState {
    /// That of a task which the node has lost, so that it will never end.
    #[must_use]
    pub fn forgotten() -> Self {
        let error = ApiError::new(Code::INTERNAL, "a node has lost its tasks");
        Self { state: State::Failed, error: Some(error.body), ..Self::default() }
    }

    /// Whether it failed since an index exists, or does not.
    pub(crate) fn is_about_existence(&self) -> bool {
        self.state == State::Failed && self.error.as_ref().is_some_and(is_about_existence)
    }

    /// Whether it failed since the node lacks the index.
    fn is_without_index(&self) -> bool {
        let is_it = |error: &ErrorBody| error.code == "index_not_found";
        self.state == State::Failed && self.error.as_ref().is_some_and(is_it)
    }

    /// That of a task that is done, and had nothing to do.
    fn without_work(mut self) -> Self {
        let details = self.details.iter_mut().filter_map(Value::as_object_mut);
        for (_, count) in details.flatten().filter(|(name, _)| COUNTS.contains(&name.as_str())) {
            *count = Value::from(0);
        }
        Self { state: State::Succeeded, error: None, ..self }
    }

    /// Whether the node has not done it, by a failure of its own: what a node refuses as invalid, others refuse too.
    pub(crate) fn lacks_it(&self) -> bool {
        let is_own = |error: &ErrorBody| error.kind != "invalid_request";
        self.state == State::Away || (self.state == State::Failed && self.error.as_ref().is_some_and(is_own))
    }

    /// Whether the node refused the request as invalid, as any node with the same documents would. A failure for lack of space,
    /// or by an internal error of the node, is no refusal. Neither is an error that an index exists or does not exist: the
    /// catalogue decides that.
    pub(crate) fn is_refusal(&self) -> bool {
        let is_clients = |error: &ErrorBody| error.kind == "invalid_request" && !is_about_existence(error);
        self.state == State::Failed && self.error.as_ref().is_some_and(is_clients)
    }
}

/// Whether an error says that an index exists or does not exist.
pub(crate) fn is_about_existence(error: &ErrorBody) -> bool {
    ["index_not_found", "index_already_exists"].contains(&error.code.as_str())
}

/// Which outcome counts if nodes end an operation on a whole index differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutcomeRule {
    /// The best one: what one node has applied, the others must apply too.
    #[default]
    Best,
    /// The best one; and a node that does not have the index is not behind.
    Deletion,
    /// A refusal. Each node checks the request against its own documents, and a single node with all the documents would refuse
    /// it. So no node may keep what one node refuses.
    Refusal,
}

/// The state of a node's task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Enqueued.
    #[default]
    Waiting,
    /// Being processed.
    Processing,
    /// Ended with success.
    Succeeded,
    /// Ended with an error, or unknown to the node.
    Failed,
    /// Cancelled.
    Canceled,
    /// The node is unreachable, and the task had not ended.
    Away,
}

impl State {
    /// Whether the task has ended.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// The state of the client's task.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has not ended.
    Pending {
        /// When the first node began.
        started_at: Option<Nanos>,
    },
    /// It has ended.
    Outcome(Box<Outcome>),
}

/// The outcome of the client's task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// `succeeded`, `failed`, `canceled`.
    pub status: TaskStatus,
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
    /// The details of a node whose task has the same outcome.
    pub details: Option<Value>,
    /// The shards in which some replica has done a write.
    pub written: BTreeSet<Shard>,
    /// Replicas with another outcome than the rest of their shard.
    pub stale: BTreeSet<(Shard, NodeName)>,
    /// Nodes with another outcome than the others.
    pub behind: BTreeSet<NodeName>,
    /// Nodes that applied what another node refuses: they must roll back.
    pub to_roll_back: BTreeSet<NodeName>,
    /// A node that refused it.
    pub refused_by: Option<NodeName>,
}

impl Outcome {
    /// Whether this node, or a replica on it, is to be mended, since it did not do as the others.
    #[must_use]
    pub fn excludes(&self, node: &NodeName) -> bool {
        self.behind.contains(node) || self.stale.iter().any(|(_, stale)| stale == node)
    }

    /// Makes a write fail, since no replica of these shards has it that is read from now on.
    pub fn lose(&mut self, shards: &BTreeSet<Shard>) {
        if !shards.is_empty() {
            self.status = TaskStatus::Failed;
            self.error = Some(not_written(shards, "no replica that stays has them").body);
        }
    }
}

/// The error of a write whose documents of some shards are nowhere.
#[must_use]
pub fn not_written(shards: &BTreeSet<Shard>, why: &str) -> ApiError {
    let names = shards.iter().map(|shard| shard.0.to_string()).collect::<Vec<_>>().join(", ");
    let count = shards.len();
    let message = format!("The documents of {count} shard(s) were not written, since {why}: {names}.");
    ApiError::new(Code::UNAVAILABLE, message)
}

/// The replicas that may have a write twice, since their nodes stopped before they told that they had done it: Meilisearch stores the change
/// and the task's end one after the other, and begins the task again. Of each shard, those replicas are left out that others are to be
/// repaired from: the certain ones, or one where there is none.
#[must_use]
pub fn repeated(parts: &[TrackedNodeTask], stopped: &BTreeSet<NodeName>) -> BTreeSet<(Shard, NodeName)> {
    let done = || parts.iter().filter(|part| part.main && part.seen.state == State::Succeeded);
    let mut repeated = BTreeSet::new();
    for shard in done().flat_map(|part| part.shards.iter().copied()).collect::<BTreeSet<_>>() {
        let holders = || done().filter(|part| part.shards.contains(&shard)).map(|part| &part.node);
        let is_certain = holders().any(|node| !stopped.contains(node));
        let uncertain = holders().filter(|node| stopped.contains(*node)).skip(usize::from(!is_certain));
        repeated.extend(uncertain.map(|node| (shard, node.clone())));
    }
    repeated
}

/// Decides the outcome. It waits for an unreachable node only if no other node has a replica of its shards. Refusals by nodes
/// that are `behind` do not count, because those nodes lack what they missed.
#[must_use]
pub fn judge(parts: &[TrackedNodeTask], decides: OutcomeRule, behind: &BTreeSet<NodeName>) -> Verdict {
    let started_at = parts.iter().filter_map(|part| part.seen.started_at).min();
    let unfinished = parts.iter().any(|part| !part.seen.state.is_over() && part.seen.state != State::Away);
    if unfinished {
        return Verdict::Pending { started_at };
    }
    let mut over = Outcome { status: TaskStatus::Succeeded, started_at, ..Outcome::default() };
    let is_decided = parts.iter().any(|part| part.main);
    let main: Vec<&TrackedNodeTask> = parts.iter().filter(|part| part.main).collect();
    let groups: Vec<Option<Shard>> = if main.iter().all(|part| part.shards.is_empty()) {
        vec![None]
    } else {
        let shards: BTreeSet<Shard> = main.iter().flat_map(|part| part.shards.iter().copied()).collect();
        shards.into_iter().map(Some).collect()
    };
    let refuses = |part: &&&TrackedNodeTask| {
        decides == OutcomeRule::Refusal && part.seen.is_refusal() && !behind.contains(&part.node)
    };
    let refusal = main.iter().find(refuses).copied();
    for group in groups.into_iter().filter(|_| is_decided) {
        let of_group: Vec<&&TrackedNodeTask> =
            main.iter().filter(|part| group.is_none_or(|shard| part.shards.contains(&shard))).collect();
        // The best outcome counts: what one replica has applied, the others must apply too.
        let best = [State::Succeeded, State::Canceled, State::Failed]
            .into_iter()
            .find(|state| of_group.iter().any(|part| part.seen.state == *state));
        // A node that is behind may have an index that is gone, or lack one that is there: the others know.
        let mut known = of_group.iter().filter(|part| !behind.contains(&part.node)).peekable();
        let is_denied =
            group.is_none() && known.peek().is_some() && known.all(|part| part.seen.is_about_existence());
        let truth = (refusal.is_some() || is_denied).then_some(State::Failed).or(best);
        let Some(truth) = truth else { return Verdict::Pending { started_at } };
        for part in of_group.iter().filter(|part| part.seen.state != truth || refusal.is_some()) {
            match group {
                Some(shard) if part.replaced.contains(&shard) => {}
                Some(shard) => drop(over.stale.insert((shard, part.node.clone()))),
                None if part.seen.is_refusal() && refusal.is_some() => {}
                None if is_denied => drop(over.behind.insert(part.node.clone())),
                None if part.seen.state == State::Succeeded => {
                    over.to_roll_back.insert(part.node.clone());
                }
                None if decides == OutcomeRule::Deletion && part.seen.is_without_index() => {}
                None => drop(over.behind.insert(part.node.clone())),
            }
        }
        over.written.extend(group.filter(|_| truth == State::Succeeded));
        match truth {
            State::Failed => over.status = TaskStatus::Failed,
            State::Canceled if over.status != TaskStatus::Failed => over.status = TaskStatus::Canceled,
            _ => {}
        }
    }
    // Steps that only have to end: creating the index, setting its primary key. A node that has done without one, such as for lack of space,
    // may have made the index by its first documents, without the settings that every index has.
    let extras = parts.iter().filter(|part| !part.main);
    let some_succeeded = extras.clone().any(|part| part.seen.state == State::Succeeded);
    for part in extras.filter(|part| some_succeeded && part.seen.lacks_it()) {
        over.behind.insert(part.node.clone());
    }
    over.refused_by = refusal.map(|part| part.node.clone());
    over.finished_at = parts.iter().filter_map(|part| part.seen.finished_at).max();
    let tells = refusal.into_iter().chain(main.iter().copied());
    if over.status == TaskStatus::Failed {
        over.error = tells.clone().find_map(|part| part.seen.error.clone());
    }
    let of_status = |part: &&TrackedNodeTask| status_of(part.seen.state) == over.status;
    over.details = tells.clone().find(of_status).and_then(|part| part.seen.details.clone());
    let [deleted, edited] = COUNTS;
    (over.deleted, over.edited) = (counted(&main, deleted), counted(&main, edited));
    Verdict::Outcome(Box::new(over))
}

/// The status of a client's task that ends as a node's has.
fn status_of(state: State) -> TaskStatus {
    match state {
        State::Succeeded => TaskStatus::Succeeded,
        State::Canceled => TaskStatus::Canceled,
        _ => TaskStatus::Failed,
    }
}

#[cfg(test)]
mod tests;
