//! What happens in a history, from its seed: the cluster, what clients do, and what goes wrong. All of it can be left out piece by piece.

use super::{random::Rng, storage::Death, world::Party};
use miroir_control::cluster::TaskLimits;

/// A client's or an operator's action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Adds documents with these ids, or updates them.
    Add { index: String, ids: Vec<u64>, update: bool },
    /// Deletes documents.
    Delete { index: String, ids: Vec<u64> },
    /// Deletes the documents of a group.
    DeleteGroup { index: String, group: u64 },
    /// Deletes all documents.
    DeleteAll { index: String },
    /// Edits the documents of a group by a function.
    Edit { index: String, group: u64 },
    /// Creates an index.
    Create { index: String },
    /// Deletes an index.
    DeleteIndex { index: String },
    /// Swaps two indexes.
    Swap { left: String, right: String },
    /// Renames an index.
    Rename { index: String, to: String },
    /// Changes settings.
    Settings { index: String },
    /// Reads a document.
    Read { index: String, id: u64 },
    /// Writes with a key that never existed.
    Unauthorized { index: String, ids: Vec<u64> },
    /// Makes a key.
    CreateKey { key: u64 },
    /// Deletes a key.
    DeleteKey { key: u64 },
    /// Writes with a key.
    AddWithKey { index: String, ids: Vec<u64>, key: u64 },
    /// Adds a node.
    AddNode { node: String },
    /// Replaces a node.
    ReplaceNode { node: String, by: String },
    /// Drains a node.
    DrainNode { node: String },
    /// Drains a node, and removes it.
    RemoveNode { node: String },
}

impl Action {
    /// The indexes that it names.
    pub fn indexes(&self) -> Vec<&str> {
        match self {
            Self::Add { index, .. }
            | Self::Delete { index, .. }
            | Self::DeleteGroup { index, .. }
            | Self::DeleteAll { index }
            | Self::Edit { index, .. }
            | Self::Create { index }
            | Self::DeleteIndex { index }
            | Self::Settings { index }
            | Self::Read { index, .. }
            | Self::Unauthorized { index, .. }
            | Self::AddWithKey { index, .. } => vec![index],
            Self::Swap { left, right } => vec![left, right],
            Self::Rename { index, to } => vec![index, to],
            _ => Vec::new(),
        }
    }

    /// Whether it changes one document, so that it is done or not, and nothing in between.
    pub fn is_of_one_document(&self) -> bool {
        let ids = match self {
            Self::Add { ids, .. } | Self::AddWithKey { ids, .. } | Self::Delete { ids, .. } => ids,
            _ => return false,
        };
        ids.iter().all(|id| Some(id) == ids.first())
    }

    /// Whether it may create an index although it fails.
    pub fn may_create(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::AddWithKey { .. })
    }
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The control plane dies now.
    Crash,
    /// It dies at its so many-th write to the ledger from now.
    CrashAtWrite { writes: u64, death: Death },
    /// It is stopped for a while.
    StopControl { millis: u64 },
    /// Its ledger's disk is full for a while.
    FullLedger { millis: u64 },
    /// Its time of day jumps.
    ClockJump { seconds: i64 },
    /// A gateway dies.
    CrashGateway { gateway: usize },
    /// A gateway dies when it sends a request of a write, after so many from now.
    CrashGatewayAtCall { gateway: usize, calls: u64 },
    /// A gateway is stopped for a while.
    StopGateway { gateway: usize, millis: u64 },
    /// A node's process ends, and another starts later.
    RestartNode { node: String, millis: u64 },
    /// A node's process ends, and it starts with an empty disk.
    LoseDisk { node: String, millis: u64 },
    /// A node is stopped for a while.
    StopNode { node: String, millis: u64 },
    /// A node is slow for a while.
    SlowNode { node: String, millis: u64 },
    /// A node's disk is full for a while.
    FullNode { node: String, millis: u64, is_refusing: bool },
    /// A node, or each of them, has so many tasks of its own.
    OwnTasks { node: Option<String>, tasks: u64 },
    /// Two do not reach each other for a while.
    Partition { one: Party, other: Party, millis: u64 },
    /// One of so many messages is lost for a while.
    Loss { one_in: u64, millis: u64 },
    /// Messages are slow for a while, and overtake each other.
    SlowNetwork { millis: u64 },
    /// So many of the gateways' messages arrive twice.
    Doubled { messages: u64 },
    /// The body of the next request that changes something is late.
    LateBody { from: Party, node: String, millis: u64 },
}

/// A part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Action(Action),
    Fault(Fault),
}

/// A part, and when it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: u64,
    pub number: u64,
    pub gateway: usize,
    pub part: Part,
}

/// A cluster and its history.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub shards: u16,
    pub replication: usize,
    /// How many tasks there may be; `None` where no history has so many.
    pub task_limits: Option<TaskLimits>,
    pub steps: Vec<Step>,
}

/// For how long things go wrong, in milliseconds.
const TROUBLE: u64 = 10_000;
/// When the cluster has started.
pub const BEGIN: u64 = 1_500;

/// The indexes of a history.
const INDEXES: [&str; 3] = ["left", "right", "other"];

/// In some histories, tasks are deleted after a few.
fn task_limits(seed: u64) -> Option<TaskLimits> {
    let mut rng = Rng::new(seed, "limits");
    let (most, deleted) = (rng.between(8, 16), u32::try_from(rng.between(3, 7)).unwrap());
    rng.once_in(6).then_some(TaskLimits { most, deleted })
}

impl Plan {
    /// The history of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "plan");
        let nodes = usize::try_from(rng.between(2, 5)).unwrap();
        let most = nodes.min(3) as u64;
        let replication = usize::try_from(rng.between(1, most + 1).max(rng.between(1, most + 1))).unwrap();
        let shards = *rng.pick(&[2, 4, 8]);
        let mut plan =
            Self { seed, nodes, shards, replication, task_limits: task_limits(seed), steps: Vec::new() };
        let mut actions = rng.between(4, 26);
        // Some histories are about one thing: it is seen more clearly.
        let theme = rng.between(0, 6);
        for (place, index) in INDEXES.iter().enumerate().take(2) {
            let ids = (0..rng.between(2, 7)).collect();
            plan.push(
                BEGIN + 20 * place as u64,
                0,
                Part::Action(Action::Settings { index: (*index).to_owned() }),
            );
            plan.push(
                BEGIN + 100 + 20 * place as u64,
                0,
                Part::Action(Action::Add { index: (*index).to_owned(), ids, update: false }),
            );
        }
        let faults = if rng.once_in(20) { 0 } else { rng.between(1, 5) };
        while actions > 0 {
            actions -= 1;
            let at = BEGIN + 500 + rng.between(0, TROUBLE);
            let gateway = usize::try_from(rng.between(0, 2)).unwrap();
            let action = plan.action(&mut rng, theme);
            plan.push(at, gateway, Part::Action(action));
        }
        for _ in 0..faults {
            let fault = plan.fault(&mut rng);
            // Often close to something that happens.
            let near = plan.steps[usize::try_from(rng.next() % plan.steps.len() as u64).unwrap()].at;
            let at = match rng.between(0, 6) {
                0 | 1 => BEGIN + rng.between(0, TROUBLE),
                2 => near + rng.between(0, 3_000),
                _ => near + rng.between(0, 300),
            };
            plan.push(at, 0, Part::Fault(fault));
        }
        plan.bury_writes();
        if plan.replication > 1 {
            plan.miss_in_turn();
        }
        plan.fail_on_the_last();
        plan.steps.sort_by_key(|step| (step.at, step.number));
        plan
    }

    /// Has nodes do many things of their own after a gateway has died in the middle of a write: what they took of it is not among their
    /// newest tasks when they are asked.
    fn bury_writes(&mut self) {
        let mut rng = Rng::new(self.seed, "own tasks");
        let dies = |step: &Step| matches!(step.part, Part::Fault(Fault::CrashGatewayAtCall { .. }));
        let deaths: Vec<u64> = self.steps.iter().filter(|step| dies(step)).map(|step| step.at).collect();
        for at in deaths {
            let (after, tasks) = (rng.between(500, 6_000), rng.between(20, 70));
            if rng.once_in(2) {
                self.push(at + after, 0, Part::Fault(Fault::OwnTasks { node: None, tasks }));
            }
        }
    }

    /// In some histories two writes follow each other, of which one node fails to do the first, and another one misses the second: each of
    /// two replicas has another one of them.
    fn miss_in_turn(&mut self) {
        let mut rng = Rng::new(self.seed, "miss in turn");
        let (at, index) = (BEGIN + 500 + rng.between(0, TROUBLE), (*rng.pick(&INDEXES)).to_owned());
        let nodes = self.nodes as u64;
        let one = rng.between(0, nodes);
        let [one, other] = [one, (one + rng.between(1, nodes)) % nodes].map(|node| format!("n{node}"));
        let (gateway, millis) = (usize::try_from(rng.between(0, 2)).unwrap(), rng.between(1_000, 4_000));
        let (cut, second) = (rng.between(150, 800), rng.between(0, 300));
        if !rng.once_in(8) {
            return;
        }
        let add = |update| Action::Add { index: index.clone(), ids: (0..8).collect(), update };
        self.push(at, 0, Part::Fault(Fault::SlowNode { node: one.clone(), millis }));
        self.push(at, 0, Part::Fault(Fault::FullNode { node: one, millis, is_refusing: false }));
        self.push(at + 10, gateway, Part::Action(add(false)));
        let cut_off =
            Fault::Partition { one: Party::Gateway(gateway), other: Party::Node(other), millis: 1_000 };
        self.push(at + cut, 0, Part::Fault(cut_off));
        self.push(at + cut + second, gateway, Part::Action(add(true)));
    }

    /// In some histories a node fails to swap or rename indexes that has the only replica of a shard, since there is only one, or another node
    /// is behind.
    fn fail_on_the_last(&mut self) {
        let mut rng = Rng::new(self.seed, "fail on the last");
        let at = BEGIN + 500 + rng.between(0, TROUBLE);
        let nodes = self.nodes as u64;
        let one = rng.between(0, nodes);
        let [one, other] = [one, (one + rng.between(1, nodes)) % nodes].map(|node| format!("n{node}"));
        let (gateway, millis) = (usize::try_from(rng.between(0, 2)).unwrap(), rng.between(1_000, 6_000));
        let (full, then) = (rng.between(50, 500), rng.between(20, 900));
        let is_swap = rng.once_in(2);
        if !rng.once_in(8) {
            return;
        }
        let [left, right, other_name] = INDEXES.map(str::to_owned);
        let action = if is_swap {
            Action::Swap { left, right }
        } else {
            Action::Rename { index: left, to: other_name }
        };
        if self.replication > 1 {
            self.push(at, 0, Part::Fault(Fault::StopNode { node: one, millis: 3_000 }));
            self.push(at + 10, gateway, Part::Action(Action::Settings { index: INDEXES[1].to_owned() }));
        }
        self.push(at + full, 0, Part::Fault(Fault::FullNode { node: other, millis, is_refusing: false }));
        self.push(at + full + then, gateway, Part::Action(action));
    }

    fn push(&mut self, at: u64, gateway: usize, part: Part) {
        let number = self.steps.len() as u64 + 1;
        self.steps.push(Step { at, number, gateway, part });
    }

    fn action(&self, rng: &mut Rng, theme: u64) -> Action {
        let index = (*rng.pick(&INDEXES)).to_owned();
        let other = (*rng.pick(&INDEXES)).to_owned();
        let count = rng.between(1, 5);
        let ids: Vec<u64> = (0..count).map(|_| rng.between(0, 8)).collect();
        let (key, group) = (rng.between(0, 2), rng.between(0, 3));
        let add = Action::Add { index: index.clone(), ids: ids.clone(), update: rng.once_in(3) };
        let operations = matches!((theme, rng.between(0, 100)), (0, 0..40) | (_, 0..12));
        if operations {
            return match rng.between(0, 7) {
                // Where the only replica of a shard misses them, its documents keep their names: a known gap.
                0..=2 if self.replication == 1 => Action::Settings { index },
                0 | 1 if index != other => Action::Swap { left: index, right: other },
                2 if index != other => Action::Rename { index, to: other },
                3 | 4 => Action::DeleteIndex { index },
                5 => Action::Create { index },
                _ => Action::Settings { index },
            };
        }
        match rng.between(0, 100) {
            0..45 => add,
            45..55 => Action::Delete { index, ids },
            55..58 => Action::DeleteGroup { index, group },
            58..60 => Action::DeleteAll { index },
            60..63 => Action::Edit { index, group },
            63..66 => Action::Unauthorized { index, ids },
            66..69 => Action::CreateKey { key },
            69..71 => Action::DeleteKey { key },
            71..75 => Action::AddWithKey { index, ids, key },
            75..78 => match rng.between(0, 5) {
                0 => Action::AddNode { node: format!("new{}", rng.between(0, 2)) },
                1 => Action::AddNode { node: self.node(rng) },
                2 => Action::ReplaceNode { node: self.node(rng), by: format!("new{}", rng.between(0, 2)) },
                3 => Action::RemoveNode { node: self.node(rng) },
                _ => Action::DrainNode { node: self.node(rng) },
            },
            78..80 => Action::Settings { index },
            _ => Action::Read { index, id: rng.between(0, 8) },
        }
    }

    fn node(&self, rng: &mut Rng) -> String {
        format!("n{}", rng.between(0, self.nodes as u64))
    }

    fn fault(&self, rng: &mut Rng) -> Fault {
        let node = self.node(rng);
        let gateway = usize::try_from(rng.between(0, 2)).unwrap();
        let millis = *rng.pick(&[200, 1_000, 4_000, 9_000]);
        let from = if rng.once_in(2) { Party::Control } else { Party::Gateway(gateway) };
        match rng.between(0, 26) {
            20 => Fault::FullLedger { millis },
            21 => Fault::Doubled { messages: rng.between(1, 9) },
            0 | 1 => Fault::Crash,
            2..=5 => Fault::CrashAtWrite {
                writes: rng.between(0, 12),
                death: if rng.once_in(2) { Death::Before } else { Death::After },
            },
            6 => Fault::StopControl { millis: *rng.pick(&[500, 5_000, 60_000]) },
            7 => Fault::ClockJump { seconds: *rng.pick(&[-3_600, -5, 5, 3_600]) },
            8 => Fault::CrashGateway { gateway },
            9 => Fault::StopGateway { gateway, millis: *rng.pick(&[1_000, 9_000, 40_000]) },
            10 | 11 => Fault::RestartNode { node, millis },
            12 if self.replication > 1 => Fault::LoseDisk { node, millis },
            13 => Fault::StopNode { node, millis },
            14 => Fault::SlowNode { node, millis },
            15 => Fault::Partition { one: from, other: Party::Node(node), millis },
            16 => Fault::Loss { one_in: rng.between(2, 12), millis },
            17 => Fault::SlowNetwork { millis },
            // What its only replica has taken late, nobody can mend: a known gap.
            18 if self.replication > 1 => {
                Fault::LateBody { from, node, millis: *rng.pick(&[3_000, 30_000, 90_000]) }
            }
            19 => Fault::FullNode { node, millis, is_refusing: rng.once_in(2) },
            22 | 23 => Fault::CrashGatewayAtCall { gateway, calls: rng.between(0, 8) },
            24 => {
                let node = if rng.once_in(2) { Some(node) } else { None };
                Fault::OwnTasks { node, tasks: rng.between(10, 70) }
            }
            _ => Fault::Partition { one: Party::Gateway(gateway), other: Party::Control, millis },
        }
    }
}
