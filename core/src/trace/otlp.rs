//! Spans for a collector: OpenTelemetry's protocol over HTTP, in JSON.
//!
//! Source: OTLP 1.x, `opentelemetry/proto/trace/v1/trace.proto` and "JSON Protobuf Encoding": ids are hexadecimal, and 64-bit
//! numbers are strings. The names of attributes follow the semantic conventions, or start with `miroir.`.

use super::{SpanId, TraceId, TracingConfig};
use serde_json::{Value, json};

/// The number of spans, and their bytes, at which a batch is sent before the next tick.
const FULL: (usize, usize) = (512, 512 << 10);
/// The most spans, and bytes of spans, that are held.
const LIMIT: (usize, usize) = (2_048, 2 << 20);

/// The kind of a span; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work within another span of the same process.
    Internal = 1,
    /// A client's request.
    Server = 2,
    /// A request to another server.
    Client = 3,
}

/// A unit of work with its start and end.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace's id.
    pub trace: TraceId,
    /// The span's id.
    pub id: SpanId,
    /// The id of the parent span.
    pub parent: Option<SpanId>,
    /// The name that people read.
    pub name: String,
    /// The span's kind.
    pub kind: Kind,
    /// When it began, in nanoseconds since 1970.
    pub begun: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended: u64,
    /// Attributes: strings, numbers, and lists of them.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    fn to_json(&self) -> Value {
        let mut span = json!({
            "traceId": self.trace.to_string(),
            "spanId": self.id.to_string(),
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": self.begun.to_string(),
            // The clock may have been set back in between.
            "endTimeUnixNano": self.ended.max(self.begun).to_string(),
            "attributes": attributes(&self.attributes),
        });
        if let Some(span) = span.as_object_mut() {
            if let Some(parent) = self.parent {
                span.insert("parentSpanId".to_owned(), json!(parent.to_string()));
            }
            if let Some(error) = &self.error {
                span.insert("status".to_owned(), json!({"code": 2, "message": error}));
            }
        }
        span
    }
}

fn attributes(all: &[(&'static str, Value)]) -> Vec<Value> {
    all.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect()
}

fn any(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => json!({"doubleValue": number}),
            None => json!({"intValue": number.to_string()}),
        },
        Value::Array(values) => json!({"arrayValue": {"values": values.iter().map(any).collect::<Vec<_>>()}}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Null | Value::Object(_) => json!({"stringValue": value.to_string()}),
    }
}

/// Ended spans that wait to be sent.
#[derive(Debug, Default)]
pub struct Batch {
    /// JSON objects, separated by commas.
    spans: Vec<u8>,
    count: usize,
}

impl Batch {
    /// Adds a span; `false` if the batch is at its limit.
    #[must_use]
    pub fn push(&mut self, span: &Span) -> bool {
        let span = span.to_json().to_string();
        if self.count >= LIMIT.0 || self.spans.len() + span.len() >= LIMIT.1 {
            return false;
        }
        if self.count > 0 {
            self.spans.push(b',');
        }
        self.spans.extend_from_slice(span.as_bytes());
        self.count += 1;
        true
    }

    /// Whether to send the batch now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count >= FULL.0 || self.spans.len() >= FULL.1
    }

    /// The body of a request to the collector, and the number of spans in it; `None` if there are none. `instance` identifies
    /// the worker.
    pub fn take(&mut self, config: &TracingConfig, instance: &str) -> Option<(Vec<u8>, usize)> {
        let Self { spans, count } = std::mem::take(self);
        if count == 0 {
            return None;
        }
        let resource = [
            ("service.name", json!(config.service_name)),
            ("service.instance.id", json!(instance)),
            ("service.version", json!(env!("CARGO_PKG_VERSION"))),
        ];
        let resource = json!({"attributes": attributes(&resource)});
        let scope = json!({"name": "miroir", "version": env!("CARGO_PKG_VERSION")});
        let head = format!(
            "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"scope\":{scope},\"spans\":["
        );
        let mut body = head.into_bytes();
        body.extend_from_slice(&spans);
        body.extend_from_slice(b"]}]}]}");
        Some((body, count))
    }
}
