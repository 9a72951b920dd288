//! Observability of one operation: Envoy's metrics, and properties that access logs can print.

use crate::{
    latency::{self, Waiting},
    metrics,
    traces::Trace,
};
use miroir_core::{
    http::{CallId, Callout, Outcome, Reply, Upstream},
    intake::Collector,
    node_name::NodeName,
    operation::Operation,
    progress::Progress,
    read::MISSING_SHARDS_HEADER,
    topology::Topology,
};
use proxy_wasm::hostcalls;
use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often a worker logs at most that shards are missing: while they are, every search lacks them.
const LOG_MISSING_EVERY: Duration = Duration::from_secs(1);
/// How many failed callouts of one operation are named in the log.
const MOST_FAILURES: usize = 16;

thread_local! {
    static MISSING_LOGGED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One operation, from its request to its reply.
pub struct Observed {
    operation: &'static str,
    index: Option<String>,
    /// The trace of the request.
    pub trace: Trace,
    is_read: bool,
    /// Names of the nodes that were asked.
    asked: BTreeSet<NodeName>,
    /// Pending callouts: which node was asked, `None` for the control plane; and when, `None` if the callout could not be sent.
    calls: HashMap<CallId, (Option<NodeName>, Option<Instant>)>,
    /// Those of a read, for the times that nodes take.
    waiting: HashMap<CallId, Waiting>,
    /// Which callouts have failed, and how.
    failures: Vec<String>,
}

impl Observed {
    /// For a request that began at [`crate::traces::now`].
    pub fn new(topology: &Arc<Topology>, collector: &Collector, begun: u64) -> Self {
        Self {
            operation: collector.operation(),
            index: collector.head().path.index().map(str::to_owned),
            trace: Trace::new(topology, collector, begun),
            is_read: collector.is_read(),
            asked: BTreeSet::new(),
            waiting: HashMap::new(),
            calls: HashMap::new(),
            failures: Vec::new(),
        }
    }

    /// How long to wait for a node before another one is asked instead; `None` for the callout's own time.
    pub fn patience(&self, topology: &Topology, call: &Callout) -> Option<Duration> {
        let Upstream::Node(node) = call.upstream else { return None };
        let node = topology.node(node).filter(|_| self.is_read && call.has_stand_in)?;
        latency::patience(&node.name)
    }

    /// Records a callout that was sent, or that could not be sent; `patience` is what [`Self::patience`] said of it.
    pub fn asked(&mut self, topology: &Topology, call: &Callout, sent: bool, patience: Option<Duration>) {
        let node = match call.upstream {
            Upstream::Control => None,
            Upstream::Node(node) => topology.node(node).map(|node| node.name.clone()),
        };
        if let Upstream::Node(node) = call.upstream
            && topology.is_far(node)
        {
            metrics::count("miroir_zone_crossings_total", &[("operation", self.operation)], 1);
        }
        if let Some(node) = node.as_ref().filter(|_| self.is_read && sent) {
            self.waiting.insert(call.id, Waiting::for_node(node, patience));
        }
        self.asked.extend(node.clone());
        self.calls.insert(call.id, (node, sent.then(Instant::now)));
    }

    /// Passes a callout's outcome to the operation.
    pub fn digest(&mut self, machine: Operation, id: CallId, outcome: Outcome) -> Progress<Operation> {
        let outcome = match self.waiting.remove(&id) {
            Some(waiting) => waiting.ended(outcome),
            None => outcome,
        };
        let failed = match &outcome {
            Outcome::Answered(answer) => answer.status >= 500,
            Outcome::Failed | Outcome::GivenUp => true,
        };
        self.trace.end(id, &outcome);
        if let Some((node, begun)) = self.calls.remove(&id) {
            let labels = [("node", node.as_deref().unwrap_or("control"))];
            if let Some(begun) = begun {
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                metrics::record("miroir_callout_milliseconds", &labels, took);
            }
            if failed {
                metrics::count("miroir_callouts_failed_total", &labels, 1);
                self.note_failure(labels[0].1, begun, &outcome);
            }
        }
        let is_read = matches!(machine, Operation::Read(_) | Operation::DocumentRead(_));
        let begun = Instant::now();
        let progress = machine.digest(id, outcome);
        let operation = [("operation", self.operation)];
        match &progress {
            // Other nodes are asked for what a failed node did not answer.
            Progress::Pending { calls, .. } if failed && is_read && !calls.is_empty() => {
                metrics::count("miroir_retries_total", &operation, calls.len());
            }
            Progress::Done(_) if is_read => {
                let took = metrics::microseconds(begun.elapsed());
                metrics::record("miroir_merge_microseconds", &operation, took);
            }
            _ => {}
        }
        progress
    }

    fn note_failure(&mut self, upstream: &str, begun: Option<Instant>, outcome: &Outcome) {
        if self.failures.len() == MOST_FAILURES {
            return;
        }
        let took = begun.map(|begun| begun.elapsed().as_millis());
        self.failures.push(match (outcome, took) {
            (Outcome::Answered(answer), Some(took)) => {
                format!("{upstream} answered {} after {took} ms", answer.status)
            }
            (_, Some(took)) => format!("{upstream} did not answer in {took} ms"),
            (_, None) => format!("{upstream} could not be asked"),
        });
    }

    /// Tells operators why a client got an answer without some shards.
    fn log_missing(&self, missing: &str) {
        let now = Instant::now();
        let is_due = |logged: Option<Instant>| {
            logged.is_none_or(|logged| now.duration_since(logged) >= LOG_MISSING_EVERY)
        };
        if !is_due(MISSING_LOGGED.get()) {
            return;
        }
        MISSING_LOGGED.set(Some(now));
        let unanswered = self.calls.values().filter_map(|(node, begun)| {
            let (node, begun) = (node.as_ref()?, begun.as_ref()?);
            Some(format!("{node} has not answered in {} ms", begun.elapsed().as_millis()))
        });
        let failures: Vec<String> = self.failures.iter().cloned().chain(unanswered).collect();
        let why = if failures.is_empty() {
            "none of their replicas can be read".to_owned()
        } else {
            failures.join(", ")
        };
        let index = self.index.as_deref().unwrap_or("several indexes");
        log::warn!("an answer ({}, {index}) lacks the shards {missing}: {why}", self.operation);
    }

    /// Records the end of the operation.
    pub fn done(&mut self, reply: &Reply, cut_off: bool) {
        let missing = missing(reply);
        let nodes: Vec<&str> = self.asked.iter().map(NodeName::as_str).collect();
        self.trace.done(reply, self.index.as_deref(), &nodes, missing);
        answered(self.operation, reply, missing.is_some());
        if !self.asked.is_empty() {
            let nodes = u64::try_from(self.asked.len()).unwrap_or(u64::MAX);
            metrics::record("miroir_fan_out_nodes", &[("operation", self.operation)], nodes);
        }
        if let Some(missing) = missing {
            metrics::count("miroir_missing_shards_total", &[], missing.split(',').count());
            metrics::count("miroir_degraded_total", &[("reason", "missing_shards")], 1);
            self.log_missing(missing);
        }
        if cut_off {
            metrics::count("miroir_degraded_total", &[("reason", "control_lost")], 1);
        }
    }

    /// Sets the properties for access logs. Call this in the context of the stream, before the reply is sent.
    pub fn tell(&self, reply: &Reply) {
        // The SDK panics if Envoy has no stream to set them on, as for a stream that is being dropped or the root context.
        if !matches!(hostcalls::get_property(vec!["request", "path"]), Ok(Some(_))) {
            return;
        }
        let nodes: Vec<&str> = self.asked.iter().map(NodeName::as_str).collect();
        for (name, value) in [
            ("miroir_operation", Some(self.operation)),
            ("miroir_index", self.index.as_deref()),
            ("miroir_nodes", Some(&*nodes.join(","))),
            ("miroir_missing_shards", missing(reply)),
        ] {
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            if let Err(status) = hostcalls::set_property(vec![name], Some(value.as_bytes())) {
                log::warn!("property {name} cannot be set for access logs: {status:?}");
            }
        }
    }
}

/// Counts a request with its reply.
pub fn answered(operation: &str, reply: &Reply, partial: bool) {
    let outcome = match reply.status {
        200..300 if partial => "partial",
        200..300 => "ok",
        400..500 => "refused",
        _ => "failed",
    };
    metrics::count("miroir_requests_total", &[("operation", operation), ("outcome", outcome)], 1);
}

/// The missing shards, as the reply's header lists them.
fn missing(reply: &Reply) -> Option<&str> {
    let header = reply.headers.iter().find(|(name, _)| name == MISSING_SHARDS_HEADER);
    header.map(|(_, shards)| shards.as_str())
}
