//! Makes the spans of requests and their callouts, and sends them to the topology's collector.
//!
//! Spans are sent on the root context's tick, or earlier if many have accumulated; those that exceed the limit are dropped and
//! counted.

use crate::{gateway_name, metrics, random, vm_name};
use miroir_core::{
    http::{CallId, Callout, Outcome, Reply, Upstream},
    intake::Collector,
    operation::Operation,
    topology::Topology,
    trace::{
        Parent, SpanId, TRACE_HEADERS, TraceId, Traced, callout_headers,
        otlp::{Batch, Kind, Span},
    },
};
use proxy_wasm::hostcalls;
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most concurrent requests to the collector.
const AT_ONCE: usize = 2;

#[derive(Default)]
struct Exporter {
    batch: Batch,
    /// Pending requests by Envoy's token, with the number of spans and the time when each was sent.
    sent: HashMap<u32, (usize, Instant)>,
}

thread_local! {
    static EXPORTER: RefCell<Exporter> = RefCell::default();
}

/// The current time, in the unit of spans.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether there are enough spans to send them before the next tick.
pub fn is_full() -> bool {
    EXPORTER.with_borrow(|exporter| exporter.batch.is_full() && exporter.sent.len() < AT_ONCE)
}

/// Sends the accumulated spans from the active context.
pub fn send(topology: &Topology) {
    let Some(config) = &topology.config().tracing else { return };
    let instance = format!("{}/{}", gateway_name(), vm_name());
    EXPORTER.with_borrow_mut(|exporter| {
        // A context that was dropped receives no answers.
        let lost = exporter.sent.extract_if(|_, (_, at)| at.elapsed() > PATIENCE * 2);
        lost.for_each(|(_, (spans, _))| count("failed", spans));
        if exporter.sent.len() >= AT_ONCE {
            return;
        }
        let Some((body, spans)) = exporter.batch.take(config, &instance) else { return };
        let headers = vec![
            (":method", "POST"),
            (":path", &*config.path),
            (":authority", &*config.cluster),
            ("content-type", "application/json"),
        ];
        match hostcalls::dispatch_http_call(&config.cluster, headers, Some(&body), Vec::new(), PATIENCE) {
            Ok(token) => drop(exporter.sent.insert(token, (spans, Instant::now()))),
            Err(_) => count("failed", spans),
        }
    });
}

/// Handles the collector's answer; `false` if the token belongs to something else.
pub fn digest(token: u32, outcome: impl FnOnce() -> Outcome) -> bool {
    let Some((spans, _)) = EXPORTER.with_borrow_mut(|exporter| exporter.sent.remove(&token)) else {
        return false;
    };
    let is_taken = matches!(outcome(), Outcome::Answered(answer) if (200..300).contains(&answer.status));
    count(if is_taken { "sent" } else { "failed" }, spans);
    true
}

fn count(outcome: &str, spans: usize) {
    metrics::count("miroir_spans_total", &[("outcome", outcome)], spans);
}

fn record(span: &Span) {
    // A context may be dropped together with the whole VM.
    let taken = EXPORTER.try_with(|exporter| exporter.borrow_mut().batch.push(span));
    if taken == Ok(false) {
        count("dropped", 1);
    }
}

/// The trace of a request, and the headers that pass it on to callouts.
pub struct Trace {
    /// The trace headers from the client and Envoy.
    headers: Vec<(String, String)>,
    recorded: Option<Box<Recorded>>,
}

/// A request whose trace is sampled. When this value is dropped, all spans that are still open end.
struct Recorded {
    topology: Arc<Topology>,
    parent: Parent,
    id: SpanId,
    name: &'static str,
    begun: u64,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
    is_done: bool,
    calls: HashMap<CallId, Call>,
}

/// A pending callout.
struct Call {
    id: SpanId,
    name: String,
    begun: u64,
    attributes: Vec<(&'static str, Value)>,
}

impl Trace {
    /// For a request that began at this time.
    pub fn new(topology: &Arc<Topology>, collector: &Collector, begun: u64) -> Self {
        let head = collector.head();
        let is_trace = |name: &str| TRACE_HEADERS.contains(&name);
        let headers = head.headers.iter().filter(|(name, _)| is_trace(name)).cloned().collect();
        let parent = topology.config().tracing.as_ref().and_then(|config| match Traced::of(&head.headers) {
            Traced::By(parent) => Some(parent),
            Traced::Unsampled => None,
            Traced::No => config.samples(random).then(|| Parent {
                trace: TraceId::new(random(), random()),
                span: None,
                is_gateways: false,
            }),
        });
        let recorded = parent.map(|parent| {
            Box::new(Recorded {
                topology: Arc::clone(topology),
                parent,
                id: SpanId::new(random()),
                name: collector.operation(),
                begun,
                attributes: vec![
                    ("http.request.method", json!(head.method)),
                    ("url.path", json!(head.path.route())),
                    ("db.system.name", json!("meilisearch")),
                    ("db.operation.name", json!(collector.operation())),
                    ("miroir.topology_version", json!(topology.version())),
                ],
                error: None,
                is_done: false,
                calls: HashMap::new(),
            })
        });
        Self { headers, recorded }
    }

    /// Begins a callout's span, and returns the callout's trace headers.
    pub fn begin(&mut self, machine: &Operation, call: &Callout) -> Cow<'_, [(String, String)]> {
        let Self { headers, recorded } = self;
        let Some(recorded) = recorded else { return Cow::Borrowed(headers) };
        let id = SpanId::new(random());
        let (node, path) = (recorded.upstream(call.upstream), call.path.route());
        let mut attributes = vec![
            ("http.request.method", json!(call.method)),
            ("url.path", json!(path)),
            ("server.address", json!(node)),
            ("miroir.node", json!(node)),
        ];
        let shards: Vec<u16> = machine.shards(call.id).into_iter().map(|shard| shard.0).collect();
        if !shards.is_empty() {
            attributes.push(("miroir.shards", json!(shards)));
        }
        // `begin`, `commit` and so on, if the callout goes to the control plane.
        let step = path.strip_prefix("/_miroir/").and_then(|path| path.split('/').next());
        let step = step.or_else(|| machine.step(call.id));
        let name = format!("{} {node}", step.unwrap_or(recorded.name));
        recorded.calls.insert(call.id, Call { id, name, begun: now(), attributes });
        Cow::Owned(callout_headers(headers, recorded.parent.trace, recorded.id, id))
    }

    /// Ends a callout's span with this outcome.
    pub fn end(&mut self, id: CallId, outcome: &Outcome) {
        let Some(recorded) = &mut self.recorded else { return };
        let Some(mut call) = recorded.calls.remove(&id) else { return };
        let error = match outcome {
            Outcome::Answered(answer) => {
                call.attributes.push(("http.response.status_code", json!(answer.status)));
                (answer.status >= 400).then(|| answer.status.to_string())
            }
            Outcome::Failed => Some("no answer".to_owned()),
            Outcome::GivenUp => Some("no answer soon".to_owned()),
        };
        recorded.record(call, error);
    }

    /// Records the request's reply.
    pub fn done(&mut self, reply: &Reply, index: Option<&str>, nodes: &[&str], missing: Option<&str>) {
        let Some(mut recorded) = self.recorded.take() else { return };
        let attributes = &mut recorded.attributes;
        attributes.push(("http.response.status_code", json!(reply.status)));
        attributes.push(("miroir.nodes", json!(nodes)));
        attributes.extend(index.map(|index| ("db.collection.name", json!(index))));
        attributes.extend(missing.map(|missing| ("miroir.missing_shards", json!(missing))));
        recorded.error = (reply.status >= 500).then(|| reply.status.to_string());
        recorded.is_done = true;
    }
}

impl Recorded {
    fn upstream(&self, upstream: Upstream) -> &str {
        match upstream {
            Upstream::Control => "control",
            Upstream::Node(node) => self.topology.node(node).map_or("", |node| &node.name),
        }
    }

    fn record(&self, call: Call, error: Option<String>) {
        let Call { id, name, begun, mut attributes } = call;
        attributes.extend(error.iter().map(|error| ("error.type", json!(error))));
        record(&Span {
            trace: self.parent.trace,
            id,
            parent: Some(self.id),
            name,
            kind: Kind::Client,
            begun,
            ended: now(),
            attributes,
            error,
        });
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        for (_, mut call) in std::mem::take(&mut self.calls) {
            // The answer is no longer awaited.
            call.attributes.push(("miroir.abandoned", json!(true)));
            self.record(call, None);
        }
        let error = if self.is_done { self.error.take() } else { Some("the client has left".to_owned()) };
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.extend(error.iter().map(|error| ("error.type", json!(error))));
        record(&Span {
            trace: self.parent.trace,
            id: self.id,
            parent: self.parent.span,
            name: self.name.to_owned(),
            kind: if self.parent.is_gateways { Kind::Internal } else { Kind::Server },
            begun: self.begun,
            ended: now(),
            attributes,
            error,
        });
    }
}
