//! Distributed traces: where a client's request stands in one, what callouts are told of it, and what a collector is told.
//!
//! Sources: W3C "Trace Context" (level 1), Zipkin's "B3 Propagation", and for the collector see [`otlp`].

mod ids;
pub mod otlp;

pub use ids::{SpanId, TraceId};

use serde::{Deserialize, Serialize};

/// The span that Envoy itself has opened for a request, as `traceparent` is written: Envoy tells upstreams only of its spans, unless
/// a filter before this one puts it here.
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

/// The headers that say which trace a request belongs to: Envoy's own name of the request, W3C's, Zipkin's.
pub const TRACE_HEADERS: [&str; 9] =
    [REQUEST_ID, TRACEPARENT, TRACESTATE, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS, B3];

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingConfig {
    /// The Envoy cluster of a collector that takes OTLP over HTTP.
    pub cluster: String,
    /// Its path.
    #[serde(default = "default_path")]
    pub path: String,
    /// Who spans say that they are of.
    #[serde(default = "default_service")]
    pub service_name: String,
    /// Of the requests that come without a trace, the share that begins one here: 0 to 1.
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
    /// Spans to this cluster, and else as nothing was said.
    #[must_use]
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into(), path: default_path(), service_name: default_service(), sampling: 0.0 }
    }

    /// What is wrong with it, each error naming its key.
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

    /// Whether a request without a trace begins one; `random` gives random bits.
    #[must_use]
    pub fn samples(&self, random: impl FnOnce() -> u64) -> bool {
        // 53 bits are what such a number can hold.
        self.sampling > 0.0 && ((random() >> 11) as f64) < self.sampling * (1_u64 << 53) as f64
    }
}

/// A trace that is recorded, and the span in it that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span; `None` where the trace begins here.
    pub span: Option<SpanId>,
    /// It is Envoy's own.
    pub is_gateways: bool,
}

/// What a request's headers say of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// Nothing.
    No,
    /// There is one, and nobody records it.
    Unsampled,
    /// There is one.
    By(Parent),
}

impl Traced {
    /// Reads headers, whose names are in lower case.
    #[must_use]
    pub fn of(headers: &[(String, String)]) -> Self {
        let header = |name| header(headers, name);
        let w3c = header(TRACEPARENT).and_then(traceparent);
        let by = |trace, span, is_gateways, sampled| match sampled {
            true => Self::By(Parent { trace, span: Some(span), is_gateways }),
            false => Self::Unsampled,
        };
        if let Some((trace, span, _)) = header(GATEWAY_HEADER).and_then(traceparent) {
            // Envoy cannot write down whether its span is recorded; but it follows the client's decision, and takes its own
            // down in the request's name.
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
            // Nothing but a decision.
            None if header(B3) == Some("0") || header(B3_SAMPLED) == Some("0") => Self::Unsampled,
            None => Self::No,
        }
    }
}

/// The headers that a callout carries whose span this is, of a request with these headers.
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

/// Trace, span, and whether the trace is recorded.
fn traceparent(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let mut parts = text.trim().split('-');
    let version = ids::byte(parts.next()?)?;
    let (trace, span) = (TraceId::read(parts.next()?)?, SpanId::read(parts.next()?)?);
    let flags = ids::byte(parts.next()?)?;
    // Later versions may say more.
    let is_whole = version != 0xff && (version > 0 || parts.next().is_none());
    is_whole.then_some((trace, span, flags & 1 == 1))
}

/// The same of Zipkin's: what is not decided yet is taken as not recorded.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<(TraceId, SpanId, bool)> {
    // They may be of 64 bits.
    let trace = if trace.len() == 16 { format!("{}{trace}", "0".repeat(16)) } else { trace.to_owned() };
    let sampled = sampled.is_some_and(|sampled| ["1", "d", "true"].contains(&sampled));
    Some((TraceId::read(&trace)?, SpanId::read(span)?, sampled))
}

/// Whether Envoy has decided to trace the request of this id: the version of the UUID says why, and is 4 where it does not.
/// Source: Envoy's `source/extensions/request_id/uuid/config.cc`.
fn is_traced(request_id: &str) -> bool {
    matches!(request_id.as_bytes().get(14), Some(b'9' | b'a' | b'b'))
}

#[cfg(test)]
mod tests;
