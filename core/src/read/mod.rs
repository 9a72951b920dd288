//! The machine of every read that concerns many shards: scatter, plan again around nodes that fail, gather.

mod begin;
mod estimate;
mod question;
mod refusals;

pub use begin::{Judgement, begin, name, natively, question, verdict};
pub(crate) use estimate::too_large;
pub use estimate::{Estimate, SMALL};
pub use question::{Gathered, Key, NodeRequest, Part, Portion, Question, shards_of};

use crate::{
    content_type::ContentType,
    error::{ApiError, Code},
    fan_out::{self, FanOutPlan},
    http::{Answer, CallId, Callout, Outcome, Reply, RequestHead, Upstream, forwarded_headers},
    path::ApiPath,
    progress::Progress,
    route::Route,
    scrub,
    search::{patterns, remotes},
    settings_changes::indexes_of,
    shard::Shard,
    topology::{OnMissingShards, Topology},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Names the shards that an answer lacks, as numbers with commas.
pub const MISSING_SHARDS_HEADER: &str = "x-miroir-missing-shards";

/// Seeds are taken modulo this: plans of many queries spread evenly, and a thousand queries cost this many plans at most.
const DISTINCT_PLANS: u64 = 64;

/// A read.
#[derive(Debug)]
pub struct Read {
    topology: Arc<Topology>,
    head: RequestHead,
    body: Vec<u8>,
    /// `None` where the request cannot be understood here: a node says why.
    question: Option<Box<dyn Question>>,
    seeds: Vec<u64>,
    pending: BTreeMap<CallId, Ask>,
    /// Answers by the call that brought them, so that the merge does not depend on who was faster.
    parts: BTreeMap<CallId, (u16, Vec<Portion>, Vec<u8>)>,
    /// The nodes of a question that goes to the same nodes again; empty for any other.
    pinned: Vec<(u16, Vec<Portion>)>,
    failed: BTreeSet<u16>,
    missing: BTreeSet<Shard>,
    /// The answer to give if the client's own request finds no fault on a node.
    refusal: Option<Answer>,
    /// The node that knows best what is wrong with the client's own request.
    owner: Option<u16>,
    /// A node's own 200 is an answer too.
    takes_native: bool,
    /// How many hits there are up to the end of the page.
    hits: u64,
    /// The client's request mentioned the tag: answers are to be revealed.
    disguised: bool,
    next_call: u32,
    /// The indexes whose settings matter.
    indexes: Vec<String>,
}

#[derive(Debug)]
enum Ask {
    /// Parts of the question.
    Portions(u16, Vec<Portion>),
    /// The client's own request, for a node's own error.
    Native(u16),
}

impl Read {
    /// Starts a read. `head` and `body` are the client's; `understand` says what they mean, `None` where they cannot be
    /// understood, and then a node says why.
    #[must_use]
    pub fn start(
        topology: Arc<Topology>,
        mut head: RequestHead,
        mut body: Vec<u8>,
        understand: impl FnOnce(&Topology, &RequestHead, &[u8]) -> Option<Box<dyn Question>>,
    ) -> Progress<Self> {
        let (plain_path, plain_body) = (scrub::disguise_path(&head.path), scrub::disguise(&body));
        let disguised = plain_path.is_some() || plain_body.is_some();
        head.path = plain_path.unwrap_or(head.path);
        body = plain_body.unwrap_or(body);
        let (path, patterns) = patterns::disguise(&topology, &head, &body);
        let disguised = disguised || path.is_some() || patterns.is_some();
        head.path = path.unwrap_or(head.path);
        body = patterns.unwrap_or(body);
        // A node judges other types of bodies; what it is asked here is always JSON.
        let readable = head.method == "GET" || ContentType::of(head.header("content-type")).is_json();
        let own = topology.config().server_name.as_deref();
        let readable = readable && !remotes::are_asked(&head, &body, own);
        let question = if readable { understand(&topology, &head, &body) } else { None };
        let indexes = indexes_of(&Route::of(&head.method, &head.path), &body);
        let machine = Self {
            topology,
            head,
            body,
            question: None,
            seeds: Vec::new(),
            pending: BTreeMap::new(),
            parts: BTreeMap::new(),
            pinned: Vec::new(),
            failed: BTreeSet::new(),
            missing: BTreeSet::new(),
            refusal: None,
            owner: None,
            takes_native: false,
            hits: question.as_ref().map_or(0, |question| question.hits()),
            disguised,
            next_call: 0,
            indexes,
        };
        match question {
            // There is nothing to ask; a node says whether the client may ask it.
            Some(question) if question.seeds().is_empty() => {
                Self { takes_native: true, ..machine }.ask_natively(None)
            }
            Some(question) => machine.put(question),
            None => machine.ask_natively(None),
        }
    }

    /// Digests what became of one callout.
    #[must_use]
    pub fn digest(mut self, id: CallId, outcome: Outcome) -> Progress<Self> {
        let Some(ask) = self.pending.remove(&id) else {
            return Progress::Pending { machine: self, calls: Vec::new() };
        };
        match (ask, outcome) {
            (Ask::Native(node), outcome) => self.digest_native(node, outcome),
            (Ask::Portions(node, portions), Outcome::Answered(answer)) if answer.status == 200 => {
                self.parts.insert(id, (node, portions, answer.body));
                self.scatter(Vec::new())
            }
            (Ask::Portions(node, _), Outcome::Answered(answer)) if is_refusal(answer.status) => {
                let asked = self.pending.values().any(|ask| matches!(ask, Ask::Native(_)));
                self.refusal.get_or_insert(answer);
                if asked {
                    return Progress::Pending { machine: self, calls: Vec::new() };
                }
                self.ask_natively(Some(node))
            }
            (Ask::Portions(node, portions), _) => self.without(node, portions),
        }
    }

    /// How long it may take in all, milliseconds.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.topology.config().limits.search_deadline_of(self.bytes(), self.hits)
    }

    /// The shards that a callout under way asks for; none where it is the client's own request.
    #[must_use]
    pub fn asked_for(&self, id: CallId) -> Vec<Shard> {
        let shards: BTreeSet<Shard> = match self.pending.get(&id) {
            Some(Ask::Portions(_, portions)) => {
                portions.iter().flat_map(|portion| portion.shards.iter().copied()).collect()
            }
            Some(Ask::Native(_)) | None => BTreeSet::new(),
        };
        shards.into_iter().collect()
    }

    /// The indexes whose settings matter to the answer.
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        &self.indexes
    }

    fn bytes(&self) -> usize {
        self.head.query().len().saturating_add(self.body.len())
    }

    /// Puts a question to the nodes.
    fn put(mut self, question: Box<dyn Question>) -> Progress<Self> {
        self.seeds = question.seeds().iter().map(|seed| seed % DISTINCT_PLANS).collect();
        let shards = question.shards(&self.topology);
        self.question = Some(question);
        self.parts.clear();
        self.pending.clear();
        self.pinned.clear();
        let units = 0..self.seeds.len();
        let portions = units.map(|unit| Portion { unit, shards: shards.clone() }).collect();
        self.scatter(portions)
    }

    /// Asks for these; gathers once nothing is under way.
    fn scatter(mut self, portions: Vec<Portion>) -> Progress<Self> {
        let mut plans: HashMap<(u64, Vec<Shard>), FanOutPlan> = HashMap::new();
        let mut by_node: BTreeMap<u16, Vec<Portion>> = BTreeMap::new();
        for Portion { unit, shards } in portions {
            let seed = self.seeds.get(unit).copied().unwrap_or(0);
            let plan = plans.entry((seed, shards)).or_insert_with_key(|(seed, shards)| {
                fan_out::plan(&self.topology, shards.iter().copied(), &self.failed, *seed)
            });
            self.missing.extend(&plan.missing);
            for (node, shards) in &plan.asks {
                by_node.entry(*node).or_default().push(Portion { unit, shards: shards.clone() });
            }
        }
        let mut calls = Vec::with_capacity(by_node.len());
        for (node, portions) in by_node {
            if let Some(request) = self.question.as_ref().map(|question| question.ask(&portions)) {
                calls.push(self.ask(node, portions, request));
            }
        }
        if self.pending.is_empty() { self.gather() } else { Progress::Pending { machine: self, calls } }
    }

    fn gather(mut self) -> Progress<Self> {
        let answered: BTreeSet<usize> =
            self.parts.values().flat_map(|(_, portions, _)| portions.iter().map(|it| it.unit)).collect();
        let refuse = self.topology.config().on_missing_shards == OnMissingShards::Error;
        let unanswered = self.pinned.is_empty() && answered.len() < self.seeds.len();
        if unanswered || (refuse && !self.missing.is_empty()) {
            return Progress::Done(self.unavailable());
        }
        let parts: Vec<Part<'_>> =
            self.parts.values().map(|(_, portions, body)| Part { portions, body }).collect();
        let gathered = match &self.question {
            Some(question) => question.gather(&self.topology, &parts),
            None => return Progress::Done(self.unavailable()),
        };
        match gathered {
            Gathered::Reply(reply) => Progress::Done(self.with_missing(self.revealed(reply))),
            Gathered::Next(question, owner) => {
                self.owner = self.node_of(owner);
                self.put(question)
            }
            Gathered::Again(question) => self.put_again(question),
            Gathered::Native(owner) => {
                self.owner = owner.and_then(|owner| self.node_of(owner));
                self.takes_native = true;
                self.ask_natively(None)
            }
            Gathered::Broken(position) => {
                let Some(id) = self.parts.keys().nth(position).copied() else {
                    return Progress::Done(self.unavailable());
                };
                let Some((node, portions, _)) = self.parts.remove(&id) else {
                    return Progress::Done(self.unavailable());
                };
                self.without(node, portions)
            }
        }
    }

    /// Plans again what a node was asked for that failed.
    fn without(mut self, node: u16, portions: Vec<Portion>) -> Progress<Self> {
        self.failed.insert(node);
        if self.pinned.is_empty() {
            return self.scatter(portions);
        }
        match self.question.take().and_then(|question| question.restart()) {
            Some(question) => self.put(question),
            None => Progress::Done(self.unavailable()),
        }
    }

    /// Asks the same nodes for the same portions.
    fn put_again(mut self, question: Box<dyn Question>) -> Progress<Self> {
        let parts = std::mem::take(&mut self.parts);
        if self.pinned.is_empty() {
            self.pinned = parts.into_values().map(|(node, portions, _)| (node, portions)).collect();
        }
        let mut calls = Vec::new();
        for (node, portions) in self.pinned.clone() {
            if question.concerns(&portions) {
                let request = question.ask(&portions);
                calls.push(self.ask(node, portions, request));
            }
        }
        self.question = Some(question);
        if self.pending.is_empty() { self.gather() } else { Progress::Pending { machine: self, calls } }
    }

    /// The node that brought a part.
    fn node_of(&self, position: usize) -> Option<u16> {
        self.parts.values().nth(position).map(|(node, ..)| *node)
    }

    fn unavailable(&self) -> Reply {
        let (missing, all) = (self.missing.len(), self.topology.shard_count());
        let message = format!("No replica answers for {missing} of {all} shards.");
        self.with_missing(ApiError::new(Code::UNAVAILABLE, message).reply())
    }

    fn with_missing(&self, reply: Reply) -> Reply {
        if self.missing.is_empty() {
            return reply;
        }
        let missing: Vec<String> = self.missing.iter().map(|shard| shard.0.to_string()).collect();
        reply.with_header(MISSING_SHARDS_HEADER, missing.join(","))
    }

    /// A node's error, for the client.
    fn refused(&self, answer: Answer) -> Reply {
        let mut reply = native_reply(answer);
        reply.body = scrub::hidden_attributes(reply.body, |index| {
            let only = || self.indexes.first().filter(|_| self.indexes.len() == 1).map(String::as_str);
            let filterable = self.topology.index(index.or_else(only)?).filterable?;
            Some(filterable.iter().map(|it| it.text().to_owned()).collect())
        });
        reply
    }

    fn revealed(&self, mut reply: Reply) -> Reply {
        if self.disguised {
            reply.body = patterns::reveal(scrub::reveal(&reply.body));
        }
        reply
    }

    /// Sends the client's own request to a node, for the node's own words.
    fn ask_natively(mut self, preferred: Option<u16>) -> Progress<Self> {
        let nodes = 0..u16::try_from(self.topology.config().nodes.len()).unwrap_or(u16::MAX);
        let owner = self.owner.filter(|owner| !self.failed.contains(owner));
        let node = owner.or(preferred).or_else(|| nodes.into_iter().find(|node| !self.failed.contains(node)));
        let Some(node) = node else {
            let error = ApiError::new(Code::UNAVAILABLE, "No node answers.");
            let refusal = self.refusal.take();
            let reply = refusal.map_or_else(|| error.reply(), |refusal| self.refused(refusal));
            return Progress::Done(self.revealed(reply));
        };
        let method = if self.head.method == "GET" { "GET" } else { "POST" };
        let (path, body) = (self.head.path.clone(), self.body.clone());
        let headers = forwarded_headers(&self.head, self.topology.config().read_key.as_deref());
        // The body is as it came where it could not be decoded.
        let encoding =
            self.head.header("content-encoding").map(|it| ("content-encoding".to_owned(), it.to_owned()));
        let headers = headers.into_iter().chain(encoding).collect();
        let content_type = self.head.header("content-type").map(str::to_owned);
        let call = self.call(Ask::Native(node), method, path, body, headers, content_type);
        Progress::Pending { machine: self, calls: vec![call] }
    }

    fn digest_native(mut self, node: u16, outcome: Outcome) -> Progress<Self> {
        match (outcome, self.refusal.take()) {
            (Outcome::Answered(answer), _) if is_refusal(answer.status) => {
                Progress::Done(self.revealed(self.refused(answer)))
            }
            (Outcome::Answered(answer), None) if answer.status == 200 && self.takes_native => {
                Progress::Done(self.revealed(native_reply(answer)))
            }
            // The node took what could not be understood here: its answer would be a part of the truth only.
            (Outcome::Answered(Answer { status: 200, .. }), None) => Progress::Done(self.unread().reply()),
            (Outcome::Answered(Answer { status: 200, .. }), Some(refusal)) => {
                match self.question.take().and_then(|question| question.simpler()) {
                    Some(simpler) => self.put(simpler),
                    None if scrub::mentions_tag(&refusal.body) => {
                        Progress::Done(self.not_there_yet(&refusal))
                    }
                    None => Progress::Done(self.revealed(self.refused(refusal))),
                }
            }
            (_, refusal) => {
                self.refusal = refusal;
                self.failed.insert(node);
                self.ask_natively(None)
            }
        }
    }

    /// Asks a node for its part of the question.
    fn ask(&mut self, node: u16, portions: Vec<Portion>, request: NodeRequest) -> Callout {
        let NodeRequest { path, body, key } = request;
        let config = self.topology.config();
        let headers = match (key, &config.internal_key) {
            (Key::Internal, Some(key)) => vec![("authorization".to_owned(), format!("Bearer {key}"))],
            _ => forwarded_headers(&self.head, config.read_key.as_deref()),
        };
        let content_type = Some("application/json".to_owned());
        self.call(Ask::Portions(node, portions), "POST", path, body, headers, content_type)
    }

    fn call(
        &mut self,
        ask: Ask,
        method: &'static str,
        path: ApiPath,
        body: Vec<u8>,
        mut headers: Vec<(String, String)>,
        content_type: Option<String>,
    ) -> Callout {
        let id = CallId(self.next_call);
        self.next_call += 1;
        let (Ask::Portions(node, _) | Ask::Native(node)) = ask;
        self.pending.insert(id, ask);
        headers.extend(content_type.map(|value| ("content-type".to_owned(), value)));
        let timeout_ms = self.topology.config().limits.search_timeout_of(self.bytes(), self.hits);
        Callout { id, upstream: Upstream::Node(node), method, path, headers, body, timeout_ms }
    }
}

/// Whether the node found fault with the request, not with itself.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// A node's error, for the client.
pub(crate) fn native_reply(answer: Answer) -> Reply {
    Reply::json(answer.status, scrub::error(&answer.body))
}

#[cfg(test)]
mod deep_hybrid_tests;
#[cfg(test)]
mod deep_tests;
#[cfg(test)]
mod tests;
