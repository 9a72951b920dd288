//! A client's request on its way in: from its headers to the operation that it starts.

use crate::{
    cors,
    document_read::DocumentRead,
    documents::{Body, DocumentReader, Format, PrimaryKey, payload_too_large},
    encoding::Encoding,
    error::{ApiError, Code},
    http::{Reply, RequestHead},
    operation::{Operation, Progress},
    query::pairs,
    read::Read,
    route::{Route, WriteKind},
    search::{DocumentList, FacetSearch, MultiSearch, Search, similar},
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

/// Takes a body in, chunk by chunk, then starts the operation.
#[derive(Debug)]
pub struct Collector {
    topology: Arc<Topology>,
    head: RequestHead,
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
        if let Some(reply) = cors::preflight(&head) {
            return Self::Reply(reply);
        }
        let limit = topology.config().limits.max_payload_bytes;
        let kind = match Route::of(&head.method, &head.path) {
            Route::ControlPlane => return Self::Pass,
            Route::Internal => {
                return Self::Reply(ApiError::new(Code::NOT_FOUND, "Not found").reply());
            }
            // The one refusal that does not wait for the client's key: nobody sends 100 MB to hear it.
            Route::Write { .. } if declared_length(&head) > limit => {
                return Self::Reply(payload_too_large(limit).reply());
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
        let encoded =
            Encoding::of(head.header("content-encoding")).map(|encoding| (encoding, Body::default()));
        Self::Collect(Box::new(Collector { topology, head, encoded, kind }))
    }
}

impl Collector {
    /// Takes the next chunk of the body. A body that is too large is read to its end, and let go: a client that is answered
    /// before it has sent everything may not hear the answer.
    pub fn push(&mut self, chunk: &[u8]) {
        let limit = self.topology.config().limits.max_payload_bytes;
        let taken = match &mut self.encoded {
            Some((_, body)) => {
                let settled = body.last().1.len();
                body.push(chunk, settled);
                body.len() as u64 <= limit
            }
            None => self.kind.push(chunk, limit),
        };
        if !taken {
            self.encoded = None;
            self.kind = Kind::too_large(limit);
        }
    }

    /// The bytes to be held, as the head announces them; 0 where it does not.
    #[must_use]
    pub fn declared(&self) -> u64 {
        match self.kind {
            Kind::Refused { .. } => 0,
            _ => declared_length(&self.head),
        }
    }

    /// Bytes of the body that are held.
    #[must_use]
    pub fn held(&self) -> u64 {
        let plain = match &self.kind {
            Kind::Documents { reader, .. } => reader.held(),
            Kind::Read { body, .. } | Kind::Write { body, .. } => body.len(),
            Kind::Refused { body, .. } => body.as_ref().map_or(0, Body::len),
            Kind::DocumentRead { .. } => 0,
        };
        (plain + self.encoded.as_ref().map_or(0, |(_, body)| body.len())) as u64
    }

    /// The operation's name in metrics and logs.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match &self.kind {
            Kind::Read { route, .. } => read_name(route),
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
        Some(Self { topology, head: self.head.clone(), encoded: self.encoded.clone(), kind })
    }

    /// Whether the operation must outlive the client's connection.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Documents { .. } | Kind::Write { .. })
    }

    /// The body is whole: starts the operation.
    #[must_use]
    pub fn finish(mut self) -> Progress<Operation> {
        if let Some((encoding, body)) = self.encoded.take() {
            let limit = self.topology.config().limits.max_payload_bytes;
            let mut taken = true;
            let decoded = encoding.decode(body.reader(), |chunk| {
                taken = self.kind.push(chunk, limit);
                taken
            });
            if !taken {
                self.kind = Kind::too_large(limit);
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
        self.start()
    }

    fn start(self) -> Progress<Operation> {
        let Self { topology, head, kind, .. } = self;
        match kind {
            Kind::Read { route, body } => start_read(topology, route, head, body),
            Kind::DocumentRead { id } => {
                DocumentRead::start(topology, head, &id).map(Operation::DocumentRead)
            }
            Kind::Documents { reader, update, context } => {
                let documents = match reader.finish() {
                    Ok(documents) => documents,
                    Err(refused) => {
                        let (error, body) = *refused;
                        // The reserved field is nothing that a node could know of.
                        let body = (error.body.code != Code::BAD_REQUEST.name()).then_some(body);
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
            Kind::Write { kind, body, context } => match write_payload(&topology, kind, &body) {
                Some(Payload::Edit { edit, .. }) if let Err(error) = edit.check() => {
                    refuse(&topology, &head, error, None)
                }
                Some(payload) => start_write(topology, context, payload),
                None => {
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
    /// Takes the next chunk of the body as it is; `false` once there is too much.
    fn push(&mut self, chunk: &[u8], limit: u64) -> bool {
        match self {
            Self::Documents { reader, .. } => reader.push(chunk).is_ok(),
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

fn start_read(
    topology: Arc<Topology>,
    route: Route,
    head: RequestHead,
    body: Vec<u8>,
) -> Progress<Operation> {
    let name = read_name(&route);
    Read::start(topology, head, body, |topology, head, body| match route {
        Route::Search { index } => Search::of(topology, &index, head, body),
        Route::MultiSearch => MultiSearch::of(topology, body),
        Route::FacetSearch { index } => FacetSearch::of(topology, &index, body),
        Route::Similar { index } => similar(topology, &index, head, body),
        Route::DocumentList { index } => DocumentList::of(topology, &index, head, body),
        _ => None,
    })
    .map(|machine| Operation::Read(name, Box::new(machine)))
}

fn read_name(route: &Route) -> &'static str {
    match route {
        Route::MultiSearch => "multi_search",
        Route::FacetSearch { .. } => "facet_search",
        Route::Similar { .. } => "similar",
        Route::DocumentList { .. } => "document_list",
        _ => "search",
    }
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
        let collect = |method: &str, path: &'static str| {
            let head = RequestHead {
                method: method.into(),
                path: path.into(),
                headers: vec![("content-type".into(), "application/json".into())],
            };
            match Intake::of(topology(0), "vm", head) {
                Intake::Collect(mut collector) => {
                    collector.push(br#"{"q":"red"}"#);
                    collector
                }
                intake => panic!("{intake:?}"),
            }
        };
        for (method, path) in [("POST", "/indexes/a/search"), ("GET", "/indexes/a/documents/1")] {
            let collector = collect(method, path);
            let again = collector.again(topology(1)).unwrap();
            for (collector, node) in [(*collector, 0), (again, 1)] {
                match collector.finish() {
                    Progress::Pending { calls, .. } => assert_eq!(calls[0].upstream, Upstream::Node(node)),
                    Progress::Done(reply) => panic!("{reply:?}"),
                }
            }
        }
        assert!(collect("POST", "/indexes/a/documents").again(topology(1)).is_none());
    }
}
