//! A client's request on its way in: from its headers to the operation that it starts.

use crate::{
    budget::OverBudget,
    cors,
    document_read::DocumentRead,
    documents::{Body, DocumentReader, Format, PrimaryKey, payload_too_large},
    encoding::Encoding,
    error::{ApiError, Code},
    http::{Callout, Outcome, Reply, RequestHead},
    json,
    operation::{Operation, Progress},
    query::pairs,
    read::{self, too_large},
    route::{Route, WriteKind},
    topology::Topology,
    write::{DocumentsPayload, MAX_REFUSED_BODY, Payload, Refusal, Write, WriteContext},
};
use std::sync::Arc;

/// What is to be done with a request, from its headers.
#[derive(Debug)]
pub enum Intake {
    /// Not the data plane's: let it go on to the control plane.
    Pass,
    /// Answer at once.
    Reply(Reply),
    /// Take the body in, then start.
    Collect(Box<Collector>),
}

/// A write whose body has so many bytes is judged before it is whole, or decoded: what a client may send and a gateway hold
/// before anybody has looked at its key. Smaller ones are judged when they begin, by the request that they need anyway.
const UNJUDGED: u64 = 256 << 10;

/// What an id of a batch deletion takes once it is read.
const ID: u64 = 96;
/// What a value in the body of another write takes once it is read.
const VALUE: u64 = 192;

/// Takes a body in, chunk by chunk, then starts the operation.
#[derive(Debug)]
pub struct Collector {
    topology: Arc<Topology>,
    head: RequestHead,
    /// Bytes that have come.
    received: u64,
    /// How the body is compressed, and what came of it.
    encoded: Option<(Encoding, Body)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Read {
        route: Route,
        body: Vec<u8>,
    },
    DocumentRead {
        id: String,
    },
    Documents {
        reader: Box<DocumentReader>,
        update: bool,
        context: WriteContext,
    },
    Write {
        kind: WriteKind,
        body: Vec<u8>,
        context: WriteContext,
    },
    /// What is refused without a look at the body. A node says why, where there is a body for it.
    Refused {
        error: ApiError,
        body: Option<Body>,
    },
}

impl Kind {
    fn too_large(limit: u64) -> Self {
        Self::Refused { error: payload_too_large(limit), body: None }
    }
}

impl Intake {
    /// Looks at a request's headers. `gateway` names this worker's VM.
    #[must_use]
    pub fn of(topology: Arc<Topology>, gateway: &str, head: RequestHead) -> Self {
        let head = head.normalized();
        if let Some(reply) = cors::preflight(&head) {
            return Self::Reply(reply);
        }
        let limits = topology.config().limits;
        let kind = match Route::of(&head.method, head.route()) {
            Route::ControlPlane => return Self::Pass,
            Route::Internal => {
                return Self::Reply(ApiError::new(Code::NOT_FOUND, "Not found").reply());
            }
            // These refusals do not wait for the client's key: nobody sends 100 MB to hear them.
            Route::Write { .. } if declared_length(&head) > limits.max_payload_bytes => {
                return Self::Reply(payload_too_large(limits.max_payload_bytes).reply());
            }
            route if !matches!(route, Route::Write { .. }) && declared_length(&head) > limits.read_bytes() => {
                return Self::Reply(too_large(&topology).reply());
            }
            route @ (Route::Search { .. }
            | Route::MultiSearch
            | Route::FacetSearch { .. }
            | Route::Similar { .. }
            | Route::DocumentList { .. }) => Kind::Read { route, body: Vec::new() },
            Route::DocumentRead { id } => Kind::DocumentRead { id },
            Route::Write { index, kind } => {
                let context = WriteContext {
                    gateway: gateway.to_owned(),
                    index,
                    authorization: head.header("authorization").map(str::to_owned),
                    custom_metadata: parameter(&head, "customMetadata"),
                };
                write(&topology, &head, kind, context)
                    .unwrap_or_else(|error| Kind::Refused { error, body: Some(Body::default()) })
            }
        };
        let encoding = Encoding::of(head.header("content-encoding")).filter(|_| kind.is_decoded());
        let encoded = encoding.map(|encoding| (encoding, Body::default()));
        Self::Collect(Box::new(Collector { topology, head, received: 0, encoded, kind }))
    }
}

impl Collector {
    /// Takes the next chunk of the body. That of a write that is too large is read to its end, and let go: a client that is
    /// answered before it has sent everything may not hear the answer.
    ///
    /// # Errors
    /// It is a read, and too large: the answer.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Box<Reply>> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        let limit = self.limit();
        let taken = match &mut self.encoded {
            Some((_, body)) => {
                let fits = (body.len() + chunk.len()) as u64 <= limit;
                if fits {
                    let settled = body.last().1.len();
                    body.push(chunk, settled);
                }
                fits
            }
            None => self.kind.push(chunk, limit),
        };
        match taken {
            true => Ok(()),
            false if self.is_read() => Err(Box::new(too_large(&self.topology).reply())),
            false => {
                self.encoded = None;
                self.kind = Kind::too_large(limit);
                Ok(())
            }
        }
    }

    fn limit(&self) -> u64 {
        let limits = self.topology.config().limits;
        if self.is_read() { limits.read_bytes() } else { limits.max_payload_bytes }
    }

    /// Bytes that are held of the body, and of what is known of it.
    #[must_use]
    pub fn held(&self) -> u64 {
        let encoded = self.encoded.as_ref().map_or(0, |(_, body)| body.len() as u64);
        encoded.saturating_add(self.kind.held(self.topology.config().limits.buffered_bytes_per_client()))
    }

    /// The request that asks the control plane whether the client may write, where enough has come to ask before all of it has;
    /// [`Self::refused`] reads the answer.
    #[must_use]
    pub fn judge_early(&self) -> Option<Callout> {
        (!self.is_read() && self.received > UNJUDGED).then(|| Refusal::authorization(&self.topology, &self.head))
    }

    /// The same for a whole body that is compressed: it is judged before it is decoded, where that makes it large.
    #[must_use]
    pub fn judge_encoded(&self) -> Option<Callout> {
        let (encoding, body) = self.encoded.as_ref().filter(|_| !self.is_read())?;
        let mut decoded = 0;
        // What cannot be decoded is not large.
        let _ = encoding.decode(body.reader(), |chunk| {
            decoded += chunk.len() as u64;
            decoded <= UNJUDGED
        });
        (decoded > UNJUDGED).then(|| Refusal::authorization(&self.topology, &self.head))
    }

    /// What the client is told where the answer to [`Self::judge_early`] says that it may not write. `None` where it may, and where
    /// the control plane does not answer: it will have to when the write begins.
    #[must_use]
    pub fn refused(outcome: Outcome) -> Option<Reply> {
        Refusal::refused(outcome)
    }

    /// The operation's name in metrics and logs.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match &self.kind {
            Kind::Read { route, .. } => read::name(route),
            Kind::DocumentRead { .. } => "document_read",
            Kind::Documents { .. } | Kind::Write { .. } => "write",
            Kind::Refused { .. } => "refusal",
        }
    }

    /// The client's request, without its body.
    #[must_use]
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// The same read, to be planned by another topology; `None` where this is no read.
    #[must_use]
    pub fn again(&self, topology: Arc<Topology>) -> Option<Self> {
        let kind = match &self.kind {
            Kind::Read { route, body } => Kind::Read { route: route.clone(), body: body.clone() },
            Kind::DocumentRead { id } => Kind::DocumentRead { id: id.clone() },
            Kind::Documents { .. } | Kind::Write { .. } | Kind::Refused { .. } => return None,
        };
        let (head, encoded) = (self.head.clone(), self.encoded.clone());
        Some(Self { topology, head, received: self.received, encoded, kind })
    }

    /// The same request, to be planned by another topology than the one that it came in under.
    pub fn plan_by(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
    }

    /// Whether it reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. } | Kind::DocumentRead { .. })
    }

    /// Whether the operation must outlive the client's connection.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Documents { .. } | Kind::Write { .. })
    }

    /// The body is whole: starts the operation. `charge` is told how many bytes it takes in all.
    #[must_use]
    pub fn finish(mut self, mut charge: impl FnMut(u64) -> Result<(), OverBudget>) -> Progress<Operation> {
        if let Some((encoding, body)) = self.encoded.take() {
            let (limit, share) = (self.limit(), self.topology.config().limits.buffered_bytes_per_client());
            let (mut taken, mut over) = (true, None);
            let decoded = encoding.decode(body.reader(), |chunk| {
                taken = self.kind.push(chunk, limit);
                let held = (body.len() as u64).saturating_add(self.kind.held(share));
                over = charge(held).err();
                taken && over.is_none()
            });
            if !taken && self.is_read() {
                return Progress::Done(too_large(&self.topology).reply());
            } else if !taken {
                self.kind = Kind::too_large(limit);
            } else if let Some(over) = over {
                return Progress::Done(over.error().reply());
            } else if decoded.is_err() {
                let error = ApiError::new(
                    Code::BAD_REQUEST,
                    "The provided payload is incomplete and cannot be parsed",
                );
                return refuse(&self.topology, &self.head, error, Some(body));
            }
            // From here on, the body is what it was before it was compressed.
            self.head.headers.retain(|(name, _)| name != "content-encoding");
        }
        self.start(charge)
    }

    fn start(self, mut charge: impl FnMut(u64) -> Result<(), OverBudget>) -> Progress<Operation> {
        let Self { topology, head, kind, .. } = self;
        match kind {
            Kind::Read { route, body } => {
                // It is kept as it came, too, to be read again by a newer topology.
                let held = (body.len() as u64).saturating_mul(2);
                read::begin(topology, route, head, body, |bytes| charge(held.saturating_add(bytes)))
            }
            Kind::DocumentRead { id } => {
                DocumentRead::start(topology, head, &id).map(Operation::DocumentRead)
            }
            Kind::Documents { reader, update, context } => {
                let documents = match reader.finish() {
                    Ok(documents) => documents,
                    Err(refused) => {
                        let (error, body) = *refused;
                        // The reserved field, and the limits here, are nothing that a node could know of.
                        let own = [Code::BAD_REQUEST.name(), Code::PAYLOAD_TOO_LARGE.name()];
                        let body = (!own.contains(&&*error.body.code)).then_some(body);
                        return refuse(&topology, &head, error, body);
                    }
                };
                let payload = DocumentsPayload::split(
                    documents,
                    update,
                    topology.primary_key(&context.index),
                    parameter(&head, "primaryKey"),
                    parameter(&head, "skipCreation"),
                    topology.shard_count(),
                );
                start_write(topology, context, Payload::Documents(payload))
            }
            Kind::Write { kind, body, context } => match charge(written_bytes(&kind, &body))
                .map(|()| write_payload(&topology, kind, &body))
            {
                Err(over) => Progress::Done(over.error().reply()),
                Ok(Some(payload)) => start_write(topology, context, payload),
                Ok(None) => {
                    let error = ApiError::new(Code::BAD_REQUEST, "The body of this request cannot be read.");
                    let mut refused = Body::default();
                    refused.push(&body, 0);
                    refuse(&topology, &head, error, Some(refused))
                }
            },
            Kind::Refused { error, body } => refuse(&topology, &head, error, body),
        }
    }
}

impl Kind {
    /// Whether anything reads its body here.
    fn is_decoded(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Documents { .. } => true,
            Self::Write { kind, .. } => !matches!(kind, WriteKind::DeleteOne { .. } | WriteKind::DeleteAll),
            Self::DocumentRead { .. } | Self::Refused { .. } => false,
        }
    }

    /// Bytes that it takes. A payload that is within its limit is not refused for what is known of its documents: with that it
    /// takes `share` at most.
    fn held(&self, share: u64) -> u64 {
        match self {
            Self::Documents { reader, .. } => {
                let body = reader.held() as u64;
                body.saturating_add(reader.known()).min(body.max(share))
            }
            Self::Read { body, .. } | Self::Write { body, .. } => body.len() as u64,
            Self::Refused { body, .. } => body.as_ref().map_or(0, Body::len) as u64,
            Self::DocumentRead { .. } => 0,
        }
    }

    /// Takes the next chunk of the body as it is; `false` once there is too much.
    fn push(&mut self, chunk: &[u8], limit: u64) -> bool {
        match self {
            Self::Documents { reader, .. } => reader.push(chunk).is_ok(),
            Self::Write { kind: WriteKind::DeleteOne { .. } | WriteKind::DeleteAll, .. } => true,
            Self::Read { body, .. } | Self::Write { body, .. } => {
                let fits = (body.len() + chunk.len()) as u64 <= limit;
                if fits {
                    body.extend_from_slice(chunk);
                }
                fits
            }
            Self::Refused { body, .. } => {
                *body = body.take().filter(|body| body.len() + chunk.len() <= MAX_REFUSED_BODY);
                if let Some(body) = body {
                    let settled = body.last().1.len();
                    body.push(chunk, settled);
                }
                true
            }
            Self::DocumentRead { .. } => true,
        }
    }
}

fn refuse(
    topology: &Topology,
    head: &RequestHead,
    error: ApiError,
    body: Option<Body>,
) -> Progress<Operation> {
    let body = body.filter(|body| body.len() <= MAX_REFUSED_BODY).map(|body| body.concat());
    Refusal::start(topology, head, error, body).map(Operation::Refusal)
}

/// Bytes that a write without documents takes once its body is read.
fn written_bytes(kind: &WriteKind, body: &[u8]) -> u64 {
    let each = match kind {
        WriteKind::DeleteBatch => ID,
        WriteKind::DeleteByFilter | WriteKind::Edit => VALUE,
        WriteKind::DeleteOne { .. } | WriteKind::DeleteAll | WriteKind::Add { .. } => 0,
    };
    let values = if each > 0 { json::values(body) } else { 0 };
    (body.len() as u64).saturating_add(values.saturating_mul(each))
}

fn start_write(topology: Arc<Topology>, context: WriteContext, payload: Payload) -> Progress<Operation> {
    Write::start(topology, context, payload).map(|machine| Operation::Write(Box::new(machine)))
}

fn write_payload(topology: &Topology, kind: WriteKind, body: &[u8]) -> Option<Payload> {
    match kind {
        WriteKind::DeleteOne { id } => {
            let body = serde_json::to_vec(&[id]).ok()?;
            Payload::ids(&body, topology.shard_count())
        }
        WriteKind::DeleteBatch => Payload::ids(body, topology.shard_count()),
        WriteKind::DeleteByFilter => Payload::filter(body.to_vec()),
        WriteKind::Edit => Payload::edit(body),
        WriteKind::DeleteAll | WriteKind::Add { .. } => Some(Payload::All),
    }
}

/// Looks at all of a write but its body. The errors are those that a node says better.
fn write(
    topology: &Topology,
    head: &RequestHead,
    kind: WriteKind,
    context: WriteContext,
) -> Result<Kind, ApiError> {
    let is_addition = matches!(kind, WriteKind::Add { .. });
    let known: &[&str] = match is_addition {
        true => &["primaryKey", "csvDelimiter", "customMetadata", "skipCreation"],
        false => &["customMetadata"],
    };
    if let Some((name, _)) = pairs(head.query()).find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(ApiError::new(Code::BAD_REQUEST, format!("Unknown parameter `{name}`")));
    }
    if let WriteKind::Add { update } = kind {
        let reader = document_reader(topology, head, &context.index)?;
        return Ok(Kind::Documents { reader: Box::new(reader), update, context });
    }
    let has_body = !matches!(kind, WriteKind::DeleteOne { .. } | WriteKind::DeleteAll);
    if has_body && Format::from_content_type(head.header("content-type"), None)? != Format::Json {
        return Err(ApiError::new(Code::INVALID_CONTENT_TYPE, "The Content-Type is invalid."));
    }
    Ok(Kind::Write { kind, body: Vec::new(), context })
}

fn document_reader(topology: &Topology, head: &RequestHead, index: &str) -> Result<DocumentReader, ApiError> {
    let delimiter = match parameter(head, "csvDelimiter") {
        None => None,
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() => Some(*byte),
            _ => {
                let message = format!("Invalid value in parameter `csvDelimiter`: `{text}`");
                return Err(ApiError::new(Code::INVALID_DOCUMENT_CSV_DELIMITER, message));
            }
        },
    };
    if let Some(text) = parameter(head, "skipCreation").filter(|text| text != "true" && text != "false") {
        let message = format!("Invalid value in parameter `skipCreation`: `{text}`");
        return Err(ApiError::new(Code::BAD_REQUEST, message));
    }
    let format = Format::from_content_type(head.header("content-type"), delimiter)?;
    let requested = parameter(head, "primaryKey");
    let key = topology.primary_key(index).map(str::to_owned).or(requested).map(PrimaryKey::new);
    Ok(DocumentReader::new(format, key.as_ref(), topology.config().limits.max_payload_bytes))
}

fn declared_length(head: &RequestHead) -> u64 {
    head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// A parameter of the query string; the last of several.
fn parameter(head: &RequestHead, name: &str) -> Option<String> {
    pairs(head.query()).filter(|(key, _)| key == name).map(|(_, value)| value).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Upstream;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_read_is_planned_again_by_another_topology_and_a_write_is_not() {
        let topology = |node: u16| {
            let text = format!(
                r#"{{"schema":1,"version":{node},"nodes":[{{"name":"a","cluster":"a"}},{{"name":"b","cluster":"b"}}],
                     "placement":[[{node}]]}}"#
            );
            Arc::new(Topology::from_json(text.as_bytes()).unwrap())
        };
        let collect = |method: &str, path: &str| {
            let head = RequestHead {
                method: method.into(),
                path: path.into(),
                headers: vec![("content-type".into(), "application/json".into())],
            };
            match Intake::of(topology(0), "vm", head) {
                Intake::Collect(mut collector) => {
                    collector.push(br#"{"q":"red"}"#).unwrap();
                    collector
                }
                intake => panic!("{intake:?}"),
            }
        };
        for (method, path) in [("POST", "/indexes/a/search"), ("GET", "/indexes/a/documents/1")] {
            let collector = collect(method, path);
            let again = collector.again(topology(1)).unwrap();
            for (collector, node) in [(*collector, 0), (again, 1)] {
                match collector.finish(|_| Ok(())) {
                    Progress::Pending { calls, .. } => assert_eq!(calls[0].upstream, Upstream::Node(node)),
                    Progress::Done(reply) => panic!("{reply:?}"),
                }
            }
        }
        assert!(collect("POST", "/indexes/a/documents").again(topology(1)).is_none());
    }
}
