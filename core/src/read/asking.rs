//! Asks nodes for their slices of a scatter query.

use super::{Asked, Context, Native, Phase, Read, Why, is_refusal, lacks_known_index};
use crate::{
    fan_out::{self, FanOutPlan},
    http::{CallId, Callout, Outcome},
    progress::Progress,
    scatter_query::{Broken, Gathered, Part, QuerySlice, ScatterQuery},
    shard::Shard,
    topology::{OnMissingShards, StaleInIndex},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Seeds are taken modulo this number. It is large enough to spread many queries evenly, and limits the number of plans for a
/// thousand queries.
const DISTINCT_PLANS: u64 = 64;

/// A scatter query under way.
#[derive(Debug)]
pub(super) struct Asking {
    scatter_query: Box<dyn ScatterQuery>,
    nodes: Nodes,
    pending: BTreeMap<CallId, Asked>,
    /// In the order of their callouts, so that the merge does not depend on who was faster.
    parts: Vec<Part>,
}

/// Which nodes are asked.
#[derive(Debug)]
enum Nodes {
    /// Nodes that hold the shards, chosen by a seed for each unit of the query. Other nodes stand in for those that fail.
    Planned(Vec<u64>),
    /// The nodes of the query before, each for the same slices. No other node can stand in.
    Pinned(Vec<Asked>),
}

impl Asking {
    /// Sends a new scatter query to the nodes.
    pub fn put(context: Context, scatter_query: Box<dyn ScatterQuery>) -> Progress<Read> {
        let seeds: Vec<u64> = scatter_query.seeds().iter().map(|seed| seed % DISTINCT_PLANS).collect();
        let shards = scatter_query.shards(&context.topology);
        let units = 0..seeds.len();
        let machine = Self::new(scatter_query, Nodes::Planned(seeds));
        machine.scatter(context, units.map(|unit| (unit, shards.as_slice())))
    }

    /// Sends a query to the nodes that were asked before, to each for the same slices.
    fn put_again(
        mut context: Context,
        scatter_query: Box<dyn ScatterQuery>,
        asked: Vec<Asked>,
    ) -> Progress<Read> {
        let (mut pending, mut calls) = (BTreeMap::new(), Vec::new());
        for asked in asked.iter().filter(|asked| scatter_query.concerns(&asked.slices)) {
            let call = context.part(asked, scatter_query.ask(&asked.slices));
            pending.insert(call.id, asked.clone());
            calls.push(call);
        }
        Self { pending, ..Self::new(scatter_query, Nodes::Pinned(asked)) }.go_on(context, calls)
    }

    fn new(scatter_query: Box<dyn ScatterQuery>, nodes: Nodes) -> Self {
        Self { scatter_query, nodes, pending: BTreeMap::new(), parts: Vec::new() }
    }

    /// What a callout under way asks for.
    pub fn asked(&self, id: CallId) -> Option<&Asked> {
        self.pending.get(&id)
    }

    /// Handles the result of one callout.
    pub fn digest(mut self, context: Context, id: CallId, outcome: Outcome) -> Progress<Read> {
        let Some(asked) = self.pending.remove(&id) else { return self.go_on(context, Vec::new()) };
        match outcome {
            Outcome::Answered(answer) if answer.status == 200 => {
                let Asked { node, slices } = asked;
                let at = self.parts.partition_point(|part| part.call < id);
                self.parts.insert(at, Part { call: id, node, slices, body: answer.body });
                self.go_on(context, Vec::new())
            }
            Outcome::Answered(refusal)
                if lacks_known_index(&context.topology, &refusal) && self.has_stand_in(&context, &asked) =>
            {
                self.without(context, &asked)
            }
            Outcome::GivenUp => self.instead_of(context, &asked),
            Outcome::Answered(refusal) if is_refusal(refusal.status) => {
                let why = Why::Refused { refusal, scatter_query: self.scatter_query };
                Native::ask(context, why, Some(asked.node), self.pending)
            }
            _ => self.without(context, &asked),
        }
    }

    /// Asks for these shards of these units.
    fn scatter<'s>(
        mut self,
        mut context: Context,
        wanted: impl Iterator<Item = (usize, &'s [Shard])>,
    ) -> Progress<Read> {
        let by_node = self.plan(&mut context, wanted);
        let mut calls = Vec::with_capacity(by_node.len());
        for (node, slices) in by_node {
            let asked = Asked { node, slices: Arc::from(slices) };
            let mut call = context.part(&asked, self.scatter_query.ask(&asked.slices));
            // What stands in for another node has all the time that is left.
            let is_first = context.failed.is_empty() && context.late.is_empty();
            call.has_stand_in = is_first && self.has_fast_stand_in(&context, &asked);
            self.pending.insert(call.id, asked);
            calls.push(call);
        }
        self.go_on(context, calls)
    }

    /// What each node is asked for, of these shards of these units.
    fn plan<'s>(
        &self,
        context: &mut Context,
        wanted: impl Iterator<Item = (usize, &'s [Shard])>,
    ) -> BTreeMap<u16, Vec<QuerySlice>> {
        let topology = Arc::clone(&context.topology);
        let stale = &topology.config().stale;
        let mut plans: HashMap<(u64, &[Shard], Vec<&StaleInIndex>), FanOutPlan> = HashMap::new();
        let mut by_node: BTreeMap<u16, Vec<QuerySlice>> = BTreeMap::new();
        for (unit, shards) in wanted {
            // Nearly always, no replica is stale.
            let stale =
                if stale.is_empty() { Vec::new() } else { stale.of(&self.scatter_query.indexes(unit)) };
            let seed = match &self.nodes {
                Nodes::Planned(seeds) => seeds.get(unit).copied().unwrap_or(0),
                Nodes::Pinned(_) => 0,
            };
            let plan = plans.entry((seed, shards, stale.clone())).or_insert_with(|| {
                let (shards, failed, late) = (shards.iter().copied(), &context.failed, &context.late);
                fan_out::plan_avoiding(&topology, &stale, shards, failed, late, seed)
            });
            context.missing.extend(&plan.missing);
            for (node, shards) in &plan.asks {
                by_node.entry(*node).or_default().push(QuerySlice { unit, shards: shards.clone() });
            }
        }
        by_node
    }

    /// Waits for what is under way; gathers once nothing is.
    fn go_on(self, context: Context, calls: Vec<Callout>) -> Progress<Read> {
        if self.pending.is_empty() {
            return self.gather(context);
        }
        Progress::Pending { machine: Read { context, phase: Phase::Asking(self) }, calls }
    }

    fn gather(self, mut context: Context) -> Progress<Read> {
        let refuse = context.topology.config().on_missing_shards == OnMissingShards::Error;
        if self.is_unanswered() || (refuse && !context.missing.is_empty()) {
            return Progress::Done(context.unavailable());
        }
        let Self { scatter_query, nodes, parts, .. } = self;
        let asked: Vec<Asked> = match &nodes {
            Nodes::Planned(_) => parts.iter().map(Asked::of).collect(),
            Nodes::Pinned(_) => Vec::new(),
        };
        match scatter_query.gather(&context.topology, parts) {
            Gathered::Reply(reply) => Progress::Done(context.with_missing(context.revealed(reply))),
            Gathered::Next(scatter_query, owner) => {
                context.owner = owner;
                Self::put(context, scatter_query)
            }
            Gathered::Again(scatter_query) => {
                let asked = match nodes {
                    Nodes::Planned(_) => asked,
                    Nodes::Pinned(asked) => asked,
                };
                Self::put_again(context, scatter_query, asked)
            }
            Gathered::Native(owner) => {
                context.owner = owner;
                Native::ask(context, Why::Answer, None, BTreeMap::new())
            }
            Gathered::Broken(Broken { scatter_query, mut parts, position }) => {
                if position >= parts.len() {
                    return Progress::Done(context.unavailable());
                }
                let broken = Asked::of(&parts.remove(position));
                Self { parts, ..Self::new(scatter_query, nodes) }.without(context, &broken)
            }
        }
    }

    /// Whether some unit of the query has no answer at all.
    fn is_unanswered(&self) -> bool {
        let Nodes::Planned(seeds) = &self.nodes else { return false };
        let mut answered = vec![false; seeds.len()];
        for slice in self.parts.iter().flat_map(|part| part.slices.iter()) {
            if let Some(answered) = answered.get_mut(slice.unit) {
                *answered = true;
            }
        }
        answered.contains(&false)
    }

    /// Whether other nodes have all that this one was asked for.
    fn has_stand_in(&self, context: &Context, asked: &Asked) -> bool {
        self.can_do_without(context, asked, context.failed.clone())
    }

    /// Whether other nodes that are not slow have all that this one was asked for.
    fn has_fast_stand_in(&self, context: &Context, asked: &Asked) -> bool {
        self.can_do_without(context, asked, &context.failed | &context.topology.slow())
    }

    /// Whether nodes that have not `failed` have all that this one was asked for.
    fn can_do_without(&self, context: &Context, asked: &Asked, mut failed: BTreeSet<u16>) -> bool {
        failed.insert(asked.node);
        let topology = &context.topology;
        asked.slices.iter().all(|slice| {
            let stale = topology.config().stale.of(&self.scatter_query.indexes(slice.unit));
            fan_out::can_be_read(topology, &stale, &slice.shards, &failed)
        })
    }

    /// Replans the slices of a node that failed.
    fn without(self, mut context: Context, asked: &Asked) -> Progress<Read> {
        context.failed.insert(asked.node);
        self.replan(context, asked)
    }

    /// Replans the slices of a node that was given up.
    fn instead_of(self, mut context: Context, asked: &Asked) -> Progress<Read> {
        context.late.insert(asked.node);
        self.replan(context, asked)
    }

    fn replan(self, context: Context, asked: &Asked) -> Progress<Read> {
        match self.nodes {
            Nodes::Planned(_) => {
                let wanted = asked.slices.iter().map(|slice| (slice.unit, slice.shards.as_slice()));
                self.scatter(context, wanted)
            }
            Nodes::Pinned(_) => match self.scatter_query.restart() {
                Some(scatter_query) => Self::put(context, scatter_query),
                None => Progress::Done(context.unavailable()),
            },
        }
    }
}

impl Asked {
    /// What an answer was asked for.
    fn of(part: &Part) -> Self {
        Self { node: part.node, slices: Arc::clone(&part.slices) }
    }
}
