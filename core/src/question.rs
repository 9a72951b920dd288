//! What a read asks: of each node for some shards; and what the answers mean together. [`crate::read::Read`] is the machine that puts it.

use crate::{
    http::{CallId, Reply},
    path::ApiPath,
    shard::Shard,
    topology::Topology,
};
use std::{fmt::Debug, sync::Arc};

/// A part of a question (one query of a multi-search; the whole of anything else) for some shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Counts the parts of the question.
    pub unit: usize,
    /// The shards asked for.
    pub shards: Vec<Shard>,
}

/// The shards of all these.
#[must_use]
pub fn shards_of(portions: &[Portion]) -> Vec<Shard> {
    portions.iter().flat_map(|portion| portion.shards.clone()).collect()
}

/// A request to a node; always `POST` with JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// Path and query.
    pub path: ApiPath,
    /// JSON.
    pub body: Vec<u8>,
    /// Who asks.
    pub key: Key,
}

/// Under which key a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The client's: the node judges it.
    Client,
    /// The gateway's own, for what a client has a right to only in part: to be asked once a node has judged the client's.
    Internal,
}

impl NodeRequest {
    /// A request under the client's key.
    #[must_use]
    pub fn new(path: impl Into<ApiPath>, body: Vec<u8>) -> Self {
        Self { path: path.into(), body, key: Key::Client }
    }
}

/// One node's answer.
#[derive(Debug)]
pub struct Part {
    /// The callout that brought it.
    pub call: CallId,
    /// The node, by its position in the topology.
    pub node: u16,
    /// What the node was asked for.
    pub portions: Arc<[Portion]>,
    /// The body of its 200.
    pub body: Vec<u8>,
}

/// The node of the first part: the one to ask for native errors where none knows better.
#[must_use]
pub fn owner(parts: &[Part]) -> Option<u16> {
    parts.first().map(|part| part.node)
}

/// What the answers mean together.
#[derive(Debug)]
pub enum Gathered {
    /// The answer.
    Reply(Reply),
    /// A part cannot be read: its node is broken.
    Broken(Broken),
    /// The answers lead to another question; this node, where it is known, is the one to ask for native errors.
    Next(Box<dyn Question>, Option<u16>),
    /// The answers lead to another question, to the nodes that were asked, each for the same portions.
    Again(Box<dyn Question>),
    /// A node has to say what is wrong: this one, or any.
    Native(Option<u16>),
}

/// Answers of which one cannot be read: the question goes on with the others, and with an answer of another node.
#[derive(Debug)]
pub struct Broken {
    /// The question, as it was put.
    pub question: Box<dyn Question>,
    /// The answers to it, as they came.
    pub parts: Vec<Part>,
    /// The position of the one that cannot be read.
    pub position: usize,
}

impl Gathered {
    /// The part at this position cannot be read.
    #[must_use]
    pub fn broken(question: Box<dyn Question>, parts: Vec<Part>, position: usize) -> Self {
        Self::Broken(Broken { question, parts, position })
    }
}

/// A read that several nodes answer together.
pub trait Question: Debug {
    /// A number for each unit, that follows from it without its paging: it chooses the replicas, so that the pages of one
    /// question come from the same ones.
    fn seeds(&self) -> Vec<u64>;

    /// The shards that it concerns.
    fn shards(&self, topology: &Topology) -> Vec<Shard> {
        topology.shards().collect()
    }

    /// How many hits there are up to the end of its page: those of deep pages take time.
    fn hits(&self) -> u64 {
        0
    }

    /// What one node is asked; [`crate::read::Read`] makes sure that each shard of each unit is asked for once.
    fn ask(&self, portions: &[Portion]) -> NodeRequest;

    /// Whether there is anything to ask of the node that these portions were asked of; for [`Gathered::Again`].
    fn concerns(&self, _: &[Portion]) -> bool {
        true
    }

    /// What to ask from the start where a node fails that no other can stand in for, after [`Gathered::Again`].
    fn restart(self: Box<Self>) -> Option<Box<dyn Question>> {
        None
    }

    /// The same without what was added to make the answer more exact, for when nodes refuse this one but take the
    /// client's own request.
    fn simpler(self: Box<Self>) -> Option<Box<dyn Question>> {
        None
    }

    /// The nodes' answers as one; at least one for each unit, in the order of their callouts.
    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered;
}
