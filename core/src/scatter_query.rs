//! What a read asks: of each node for some shards; and what the answers mean together. [`crate::read::Read`] is the machine that puts it.

use crate::{
    http::{CallId, Reply},
    path::ApiPath,
    shard::Shard,
    topology::Topology,
};
use std::{fmt::Debug, sync::Arc};

/// One query of a scatter query, for some shards. A multi-search has several queries, any other read has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySlice {
    /// The position of the query in the scatter query.
    pub unit: usize,
    /// The shards asked for.
    pub shards: Vec<Shard>,
}

/// The shards of all these.
#[must_use]
pub fn shards_of(slices: &[QuerySlice]) -> Vec<Shard> {
    slices.iter().flat_map(|slice| slice.shards.clone()).collect()
}

/// A request to a node; always a `POST` with JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// Path and query.
    pub path: ApiPath,
    /// JSON.
    pub body: Vec<u8>,
    /// Who asks.
    pub key: Key,
}

/// The key with which a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The client's key; the node checks it.
    Client,
    /// The gateway's own key, for data that the client may only see in part. Use it only after a node has accepted the client's
    /// key.
    Internal,
}

impl NodeRequest {
    /// A request with the client's key.
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
    pub slices: Arc<[QuerySlice]>,
    /// The body of its 200.
    pub body: Vec<u8>,
}

/// The node of the first part: the one to ask for native errors where none knows better.
#[must_use]
pub fn owner(parts: &[Part]) -> Option<u16> {
    parts.first().map(|part| part.node)
}

/// The result of merging the answers.
#[derive(Debug)]
pub enum Gathered {
    /// The answer.
    Reply(Reply),
    /// A part cannot be read: its node is broken.
    Broken(Broken),
    /// The answers lead to another query. This node, if it is known, is the one to ask for native errors.
    Next(Box<dyn ScatterQuery>, Option<u16>),
    /// Send another query to the same nodes, to each for the same slices.
    Again(Box<dyn ScatterQuery>),
    /// A node has to say what is wrong: this one, or any.
    Native(Option<u16>),
}

/// Answers of which one cannot be read: the query goes on with the others, and with an answer of another node.
#[derive(Debug)]
pub struct Broken {
    /// The query, as it was sent.
    pub scatter_query: Box<dyn ScatterQuery>,
    /// The answers to it, as they came.
    pub parts: Vec<Part>,
    /// The position of the one that cannot be read.
    pub position: usize,
}

impl Gathered {
    /// The part at this position cannot be read.
    #[must_use]
    pub fn broken(scatter_query: Box<dyn ScatterQuery>, parts: Vec<Part>, position: usize) -> Self {
        Self::Broken(Broken { scatter_query, parts, position })
    }
}

/// A read that several nodes answer together.
pub trait ScatterQuery: Debug {
    /// A number for each unit, which depends on everything except the unit's paging. It chooses the replicas, so that all pages
    /// of a query come from the same ones.
    fn seeds(&self) -> Vec<u64>;

    /// The indexes that a unit reads: a replica that misses something of one of them is not asked.
    fn indexes(&self, unit: usize) -> Vec<&str>;

    /// The shards that the query concerns.
    fn shards(&self, topology: &Topology) -> Vec<Shard> {
        topology.shards().collect()
    }

    /// The number of hits up to the end of the page: deep pages get more time.
    fn hits(&self) -> u64 {
        0
    }

    /// What one node is asked; [`crate::read::Read`] makes sure that each shard of each unit is asked for once.
    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest;

    /// Whether the node with these slices needs to be asked; for [`Gathered::Again`].
    fn concerns(&self, _: &[QuerySlice]) -> bool {
        true
    }

    /// The query to start over with if a node fails after [`Gathered::Again`], when no other node can replace it.
    fn restart(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        None
    }

    /// The same query without the parts that only make the answer more exact, for nodes that refuse this one but accept the
    /// client's own request.
    fn simpler(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        None
    }

    /// The nodes' answers as one; at least one for each unit, in the order of their callouts.
    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered;
}
