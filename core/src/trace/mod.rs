//! Distributed tracing: finds the trace of a client's request, makes the trace headers of callouts, and builds the spans for a
//! collector.
//!
//! Sources: W3C "Trace Context" (level 1), Zipkin's "B3 Propagation"; for the collector see [`otlp`].

mod ids;
pub mod otlp;

pub use ids::{SpanId, TraceId};

use serde::{Deserialize, Serialize};

/// The header with the span that Envoy itself opened for a request, in the form of `traceparent`. Envoy normally tells only
/// upstreams about its spans; a filter before this one puts it here.
pub const GATEWAY_HEADER: &str = "x-miroir-traceparent";

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const REQUEST_ID: &str = "x-request-id";
const B3: &str = "b3";
const B3_TRACE: &str = "x-b3-traceid";
const B3_SPAN: &str = "x-b3-spanid";
const B3_PARENT: &str = "x-b3-parentspanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";

/// The headers that tell which trace a request belongs to: Envoy's request id, W3C's headers, and Zipkin's.
pub const TRACE_HEADERS: [&str; 9] =
    [REQUEST_ID, TRACEPARENT, TRACESTATE, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS, B3];

/// Where and how spans are sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingConfig {
    /// The Envoy cluster of a collector that accepts OTLP over HTTP.
    pub cluster: String,
    /// The path on the collector.
    #[serde(default = "default_path")]
    pub path: String,
    /// The service name in the spans.
    #[serde(default = "default_service")]
    pub service_name: String,
    /// The fraction, from 0 to 1, of requests without a trace for which the gateway starts one.
    #[serde(default)]
    pub sampling: f64,
}

fn default_path() -> String {
    "/v1/traces".to_owned()
}

fn default_service() -> String {
    "miroir".to_owned()
}

impl TracingConfig {
    /// Sends spans to this cluster, with the defaults for everything else.
    #[must_use]
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into(), path: default_path(), service_name: default_service(), sampling: 0.0 }
    }

    /// All errors in the configuration, each naming its key.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for (key, value) in [("cluster", &self.cluster), ("serviceName", &self.service_name)] {
            if value.is_empty() {
                errors.push(format!("tracing.{key}: must not be empty"));
            }
        }
        if !self.path.starts_with('/') {
            errors.push(format!("tracing.path: `{}` must start with `/`", self.path));
        }
        if !(0.0..=1.0).contains(&self.sampling) {
            errors.push(format!("tracing.sampling: {} must be 0 to 1", self.sampling));
        }
        errors
    }

    /// Whether a trace is started for a request that has none; `random` returns random bits.
    #[must_use]
    pub fn samples(&self, random: impl FnOnce() -> u64) -> bool {
        // A double holds 53 bits exactly.
        self.sampling > 0.0 && ((random() >> 11) as f64) < self.sampling * (1_u64 << 53) as f64
    }
}

/// A sampled trace, and the span in it that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace's id.
    pub trace: TraceId,
    /// The span's id; `None` if the trace starts here.
    pub span: Option<SpanId>,
    /// Whether the span is Envoy's own.
    pub is_gateways: bool,
}

/// The trace information in a request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// There is no trace.
    No,
    /// There is a trace, but it is not sampled.
    Unsampled,
    /// There is a sampled trace.
    By(Parent),
}

impl Traced {
    /// Parses headers, whose names must be in lower case.
    #[must_use]
    pub fn of(headers: &[(String, String)]) -> Self {
        let header = |name| header(headers, name);
        let w3c = header(TRACEPARENT).and_then(traceparent);
        let by = |trace, span, is_gateways, sampled| match sampled {
            true => Self::By(Parent { trace, span: Some(span), is_gateways }),
            false => Self::Unsampled,
        };
        if let Some((trace, span, _)) = header(GATEWAY_HEADER).and_then(traceparent) {
            // Envoy's header cannot say whether its span is sampled. But Envoy follows the client's decision, and records its
            // own decision in the request id.
            let refused = w3c.is_some_and(|(theirs, _, sampled)| theirs == trace && !sampled);
            return by(trace, span, true, !refused && header(REQUEST_ID).is_some_and(is_traced));
        }
        if let Some((trace, span, sampled)) = w3c {
            return by(trace, span, false, sampled);
        }
        let single = || {
            let mut parts = header(B3)?.split('-');
            b3(parts.next()?, parts.next()?, parts.next())
        };
        let multi = || {
            let is_debug = header(B3_FLAGS) == Some("1");
            b3(header(B3_TRACE)?, header(B3_SPAN)?, if is_debug { Some("d") } else { header(B3_SAMPLED) })
        };
        match single().or_else(multi) {
            Some((trace, span, sampled)) => by(trace, span, false, sampled),
            // There are no ids, only a sampling decision.
            None if header(B3) == Some("0") || header(B3_SAMPLED) == Some("0") => Self::Unsampled,
            None => Self::No,
        }
    }
}

/// The trace headers of a callout with this span, for a request with these headers.
#[must_use]
pub fn callout_headers(
    headers: &[(String, String)],
    trace: TraceId,
    parent: SpanId,
    span: SpanId,
) -> Vec<(String, String)> {
    let header = |name| header(headers, name);
    let mut all = vec![(TRACEPARENT.to_owned(), format!("00-{trace}-{span}-01"))];
    let is_theirs = header(TRACEPARENT).and_then(traceparent).is_some_and(|(theirs, ..)| theirs == trace);
    let kept = [(REQUEST_ID, true), (TRACESTATE, is_theirs)];
    for (name, _) in kept.into_iter().filter(|(_, kept)| *kept) {
        all.extend(header(name).map(|value| (name.to_owned(), value.to_owned())));
    }
    if header(B3).is_some() {
        all.push((B3.to_owned(), format!("{trace}-{span}-1-{parent}")));
    }
    if header(B3_TRACE).is_some() {
        for (name, value) in [
            (B3_TRACE, trace.to_string()),
            (B3_SPAN, span.to_string()),
            (B3_PARENT, parent.to_string()),
            (B3_SAMPLED, "1".to_owned()),
        ] {
            all.push((name.to_owned(), value));
        }
    }
    all
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Parses the trace, the span, and whether the trace is sampled.
fn traceparent(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let mut parts = text.trim().split('-');
    let version = ids::byte(parts.next()?)?;
    let (trace, span) = (TraceId::read(parts.next()?)?, SpanId::read(parts.next()?)?);
    let flags = ids::byte(parts.next()?)?;
    // Later versions of the format may have more parts.
    let is_whole = version != 0xff && (version > 0 || parts.next().is_none());
    is_whole.then_some((trace, span, flags & 1 == 1))
}

/// The same for Zipkin's headers; a decision that is still open counts as not sampled.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<(TraceId, SpanId, bool)> {
    // Trace ids may have only 64 bits.
    let trace = if trace.len() == 16 { format!("{}{trace}", "0".repeat(16)) } else { trace.to_owned() };
    let sampled = sampled.is_some_and(|sampled| ["1", "d", "true"].contains(&sampled));
    Some((TraceId::read(&trace)?, SpanId::read(span)?, sampled))
}

/// Whether Envoy decided to trace the request with this id. The version digit of the UUID tells why; it is 4 if Envoy decided
/// not to. Source: Envoy's `source/extensions/request_id/uuid/config.cc`.
fn is_traced(request_id: &str) -> bool {
    matches!(request_id.as_bytes().get(14), Some(b'9' | b'a' | b'b'))
}

#[cfg(test)]
mod tests;
