//! A simulated cluster: its time, its network, and the order of everything that happens.

mod ledger;
mod nodes;
mod replicas;

use crate::{
    check::Row,
    client::Clients,
    control::{Control, ControlReply, ControlRequest, Output, Setup, no_answer},
    gateway::Gateway,
    node::{Node, NodeRequest, NodeText},
    random::Rng,
};
use miroir_control::node::NodeAnswer;
use miroir_core::{path::ApiPath, topology::TopologyConfig};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The most that happens in a history. In those of 25 simulated seconds that end, it is a hundredth of it.
const MOST_STEPS: u64 = 3_000_000;

/// Something that happens at a moment.
pub type Event = Box<dyn FnOnce(&mut World)>;

/// What to do with a node's answer. An error says whether the node surely has nothing of the request.
pub type OnNodeReply = Box<dyn FnOnce(&mut World, Result<NodeText, bool>)>;

/// What to do with the control plane's reply; `None` where the connection broke.
pub type OnControlReply = Box<dyn FnOnce(&mut World, Option<ControlReply>)>;

/// One who sends or receives messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Control,
    Gateway(usize),
    Node(String),
}

/// A held-back body: the head of the next request that changes something reaches a node now, and its body so much later.
#[derive(Clone, Debug)]
pub struct HeldBody {
    pub from: Party,
    pub node: String,
    pub millis: u64,
}

/// The network, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Network {
    /// Pairs that do not reach each other, and until when.
    pub partitions: Vec<(Party, Party, u64)>,
    /// Until when messages get lost, and one of how many.
    pub loss: (u64, u64),
    /// Until when messages are slow.
    pub slow_until: u64,
    /// Bodies that will be late.
    pub held_bodies: Vec<HeldBody>,
    /// The node whose body is late, and until when.
    late: Option<(String, u64)>,
    /// Commits and reports that will arrive twice.
    pub doubled: u64,
}

impl Network {
    /// Whether messages get lost, or are slow.
    pub fn is_troubled(&self, now: u64) -> bool {
        let is_cut = self.partitions.iter().any(|(_, _, until)| now < *until);
        is_cut || now < self.loss.0 || now < self.slow_until
    }
}

/// Everything.
pub struct World {
    /// In simulated milliseconds.
    pub now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub rng: Rng,
    pub setup: Setup,
    pub control: Option<Control>,
    pub control_stopped_until: u64,
    /// By how much the control plane's time of day is off, in nanoseconds.
    pub wall: i64,
    next_request: u64,
    requests: BTreeMap<u64, OnControlReply>,
    pub nodes: BTreeMap<String, Node>,
    pub gateways: Vec<Gateway>,
    pub network: Network,
    /// The topology that was published last. It stays in the files that gateways read, whatever happens to the control plane.
    pub published: Option<TopologyConfig>,
    /// What happened, in order, if it is to be shown.
    pub history: Option<String>,
    /// What must not happen, and did.
    pub violations: Vec<String>,
    pub crashes: u64,
    pub clients: Clients,
    /// Bodies that have not come yet.
    pub late_bodies: u64,
    /// Whether a node has lost its disk.
    pub has_lost_disks: bool,
    /// Nodes that have lost their disks, and may not have everything again.
    pub empty_disks: BTreeSet<String>,
    /// Requests whose senders wait for an answer until they give up.
    unheard: Vec<OnNodeReply>,
    /// How much has happened.
    steps: u64,
    /// The ledger's tasks as they were when they were new.
    pub first_rows: BTreeMap<u32, Row>,
    newest_row: Option<(u32, i64)>,
    /// Which node is said to have missed which write, and when that was decided.
    pub missed: BTreeMap<(u32, String), u64>,
    /// How many writes to the ledger there were when its tasks were looked at last.
    seen_writes: u64,
    replicas: replicas::Replicas,
    /// Ended tasks that the ledger does not have any more.
    pub pruned: BTreeMap<u32, Row>,
    /// The ledger's tasks when they were looked at last, where some are deleted.
    known_rows: BTreeMap<u32, Row>,
}

impl World {
    /// A cluster whose control plane has not been started.
    pub fn new(setup: Setup, seed: u64, shows: bool) -> Self {
        Self {
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            rng: Rng::new(seed, "network"),
            setup,
            control: None,
            control_stopped_until: 0,
            wall: 0,
            next_request: 0,
            requests: BTreeMap::new(),
            nodes: BTreeMap::new(),
            gateways: Vec::new(),
            network: Network::default(),
            published: None,
            history: shows.then(String::new),
            violations: Vec::new(),
            crashes: 0,
            clients: Clients::default(),
            late_bodies: 0,
            has_lost_disks: false,
            empty_disks: BTreeSet::new(),
            unheard: Vec::new(),
            steps: 0,
            first_rows: BTreeMap::new(),
            newest_row: None,
            missed: BTreeMap::new(),
            seen_writes: 0,
            replicas: replicas::Replicas::default(),
            pruned: BTreeMap::new(),
            known_rows: BTreeMap::new(),
        }
    }

    /// Notes what happens, if that is to be shown.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            let _ = writeln!(history, "{:>8} {}", self.now, what());
        }
    }

    /// Has something happen in so many milliseconds.
    pub fn after(&mut self, millis: u64, event: impl FnOnce(&mut Self) + 'static) {
        self.sequence += 1;
        self.events.insert((self.now + millis, self.sequence), Box::new(event));
    }

    /// Lets time pass until this moment.
    pub fn run_until(&mut self, until: u64) {
        loop {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.give_up();
                self.now = self.now.max(until);
                return;
            }
            let next = self.events.first_key_value().map_or(until, |((at, _), _)| (*at).min(until));
            if self.step_control(next) {
                continue;
            }
            self.now = self.now.max(next);
            if self.events.first_key_value().is_none_or(|((at, _), _)| *at > until) {
                return;
            }
            let (_, event) = self.events.pop_first().expect("there is one");
            event(self);
        }
    }

    /// The history never ends.
    fn give_up(&mut self) {
        if self.steps == MOST_STEPS + 1 {
            self.violations.push(format!("11: no end: {MOST_STEPS} steps until {} ms", self.now));
        }
    }

    /// Lets the control plane run until this moment. True if something has come out of it before.
    fn step_control(&mut self, until: u64) -> bool {
        if self.now < self.control_stopped_until {
            return false;
        }
        let Some(control) = &mut self.control else { return false };
        let (now, outputs) = control.run_until(until.max(self.now));
        let is_dead = control.is_dead();
        self.now = self.now.max(now);
        let is_busy = !outputs.is_empty();
        for output in outputs {
            match output {
                Output::Call(call, reply) => {
                    let node = call.url.host_str().unwrap_or_default().to_owned();
                    let path = call.url.query().map_or_else(
                        || call.url.path().to_owned(),
                        |query| format!("{}?{query}", call.url.path()),
                    );
                    let request = NodeRequest {
                        method: call.method.to_string(),
                        path: ApiPath::parse(&path).expect("a path to a node can be parsed"),
                        authorization: call.authorization,
                        body: call.body.to_vec(),
                    };
                    let done = move |_: &mut Self, answer: Result<NodeText, bool>| {
                        let answer = answer.map_err(no_answer).map(|(status, body)| NodeAnswer {
                            status,
                            content_type: Some("application/json".to_owned()),
                            allow: None,
                            body: if status == 204 { Vec::new().into() } else { body.into() },
                        });
                        let _ = reply.send(answer);
                    };
                    self.send_to_node(Party::Control, &node, request, Box::new(done));
                }
                Output::Reply(number, reply) => {
                    if let Some(done) = self.requests.remove(&number) {
                        let latency = self.latency();
                        self.after(latency, move |world| done(world, Some(reply)));
                    }
                }
            }
        }
        if is_dead {
            self.crash("at a write to its ledger, or at its start");
            return true;
        }
        self.deliver_topology();
        if is_busy {
            self.look_at_ledger();
        }
        is_busy
    }

    fn deliver_topology(&mut self) {
        let Some(snapshot) = self.control.as_ref().and_then(Control::published) else { return };
        let version = snapshot.topology.version;
        if self.published.as_ref().is_some_and(|published| version <= published.version) {
            return;
        }
        self.published = Some(snapshot.topology.clone());
        self.note(|| format!("topology {version} is published"));
        for gateway in 0..self.gateways.len() {
            let config = snapshot.topology.clone();
            let latency = self.rng.between(5, 60);
            self.after(latency, move |world| Gateway::take_topology(world, gateway, config));
        }
    }

    /// Starts a process of the control plane.
    pub fn start_control(&mut self) {
        if self.control.is_none() {
            self.note(|| "the control plane starts".to_owned());
            self.control = Control::start(&self.setup, self.now, self.wall);
            if self.control.is_none() {
                self.note(|| "the control plane dies at its start".to_owned());
                self.after(1_000, Self::start_control);
            }
        }
    }

    /// Kills the process of the control plane. Another one starts soon.
    pub fn crash(&mut self, how: &str) {
        if self.control.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.note(|| format!("the control plane dies {how}"));
        self.control_stopped_until = 0;
        for (_, done) in std::mem::take(&mut self.requests) {
            self.after(1, move |world| done(world, None));
        }
        let pause = self.rng.between(50, 3_000);
        self.after(pause, Self::start_control);
    }

    /// The control plane's process is stopped until this moment.
    pub fn stop_control(&mut self, millis: u64) {
        if self.control.is_none() || self.now < self.control_stopped_until {
            return;
        }
        self.control_stopped_until = self.now + millis;
        self.note(|| format!("the control plane is stopped for {millis} ms"));
        self.after(millis, |world| {
            let now = world.now;
            if now < world.control_stopped_until {
                return;
            }
            if let Some(control) = &mut world.control {
                control.skip_to(now);
            }
        });
    }

    /// How long a message takes.
    pub fn latency(&mut self) -> u64 {
        let is_slow = self.now < self.network.slow_until;
        match self.rng.between(0, 100) {
            0 => self.rng.between(50, 400),
            1..=20 if is_slow => self.rng.between(100, 3_000),
            _ => self.rng.between(1, 5),
        }
    }

    /// Whether a message is lost.
    pub fn is_lost(&mut self, from: &Party, to: &Party) -> bool {
        if from == to {
            // An operator is where the control plane is.
            return false;
        }
        let now = self.now;
        self.network.partitions.retain(|(_, _, until)| now < *until);
        let is_cut = self
            .network
            .partitions
            .iter()
            .any(|(one, other, _)| (one == from && other == to) || (one == to && other == from));
        let (until, times) = self.network.loss;
        is_cut || (now < until && self.rng.once_in(times))
    }

    /// Sends a request to the control plane. Returns its number, by which it can be given up.
    pub fn send_to_control(&mut self, from: Party, request: ControlRequest, done: OnControlReply) -> u64 {
        self.next_request += 1;
        let number = self.next_request;
        if self.is_lost(&from, &Party::Control) {
            return number;
        }
        if self.network.doubled > 0 && request.path.starts_with("/_miroir/") {
            self.network.doubled -= 1;
            let (latency, from, request) =
                (self.latency() + self.rng.between(0, 2_000), from.clone(), request.clone());
            self.next_request += 1;
            let number = self.next_request;
            self.after(latency, move |world| world.control_gets(from, number, request, Box::new(|_, _| {})));
        }
        let latency = self.latency();
        self.after(latency, move |world| world.control_gets(from, number, request, done));
        number
    }

    fn control_gets(&mut self, from: Party, number: u64, request: ControlRequest, done: OnControlReply) {
        if self.now < self.control_stopped_until && self.control.is_some() {
            let left = self.control_stopped_until - self.now;
            self.after(left, move |world| world.control_gets(from, number, request, done));
            return;
        }
        let Some(control) = &self.control else {
            let latency = self.latency();
            self.after(latency, move |world| done(world, None));
            return;
        };
        control.request(number, request);
        self.requests.insert(
            number,
            Box::new(move |world: &mut Self, reply| {
                if !world.is_lost(&Party::Control, &from) {
                    done(world, reply);
                }
            }),
        );
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        usize::from(self.setup.config.shards)
    }
}
