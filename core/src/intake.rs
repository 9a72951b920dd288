//! A client's request on its way in: from its headers to the operation that it starts.

use crate::{
    document_read::DocumentRead,
    documents::{DocumentReader, Format, PrimaryKey, payload_too_large},
    error::{ApiError, Code},
    http::{Reply, RequestHead},
    operation::{Operation, Progress},
    query::pairs,
    read::Read,
    route::{Route, WriteKind},
    search::{DocumentList, FacetSearch, MultiSearch, Search, Similar},
    topology::Topology,
    write::{DocumentsPayload, Payload, Write, WriteContext},
};
use std::sync::Arc;

/// What is to be done with a request, from its headers.
#[derive(Debug)]
pub enum Intake {
    /// Not the data plane's: let it go on to the control plane.
    Pass,
    /// Answer at once.
    Reply(Reply),
    /// Take the body in.
    Collect(Box<Collector>),
}

/// Takes a body in, chunk by chunk, then starts the operation.
#[derive(Debug)]
pub struct Collector {
    topology: Arc<Topology>,
    head: RequestHead,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Read { route: Route, body: Vec<u8> },
    DocumentRead { id: String },
    Documents { reader: DocumentReader, update: bool, context: WriteContext },
    Write { kind: WriteKind, body: Vec<u8>, context: WriteContext },
}

impl Intake {
    /// Looks at a request's headers. `gateway` names this worker's VM.
    #[must_use]
    pub fn of(topology: Arc<Topology>, gateway: &str, head: RequestHead) -> Self {
        let kind = match Route::of(&head.method, head.route()) {
            Route::ControlPlane => return Self::Pass,
            Route::Internal => {
                return Self::Reply(ApiError::new(Code::NOT_FOUND, "Not found").reply());
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
                match kind {
                    WriteKind::Add { update } => match document_reader(&topology, &head, &context.index) {
                        Ok(reader) => Kind::Documents { reader, update, context },
                        Err(error) => return Self::Reply(error.reply()),
                    },
                    kind => Kind::Write { kind, body: Vec::new(), context },
                }
            }
        };
        Self::Collect(Box::new(Collector { topology, head, kind }))
    }
}

impl Collector {
    /// Takes the next chunk of the body.
    ///
    /// # Errors
    /// The answer to a body that is too large.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Reply> {
        let limit = self.topology.config().limits.max_payload_bytes;
        match &mut self.kind {
            Kind::Documents { reader, .. } => reader.push(chunk).map_err(|error| error.reply()),
            Kind::Read { body, .. } | Kind::Write { body, .. } => {
                if (body.len() + chunk.len()) as u64 > limit {
                    return Err(payload_too_large(limit).reply());
                }
                body.extend_from_slice(chunk);
                Ok(())
            }
            Kind::DocumentRead { .. } => Ok(()),
        }
    }

    /// Whether the operation must outlive the client's connection.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Documents { .. } | Kind::Write { .. })
    }

    /// The body is whole: starts the operation.
    #[must_use]
    pub fn finish(self) -> Progress<Operation> {
        let Self { topology, head, kind } = self;
        match kind {
            Kind::Read { route, body } => start_read(topology, route, head, body),
            Kind::DocumentRead { id } => {
                DocumentRead::start(topology, head, &id).map(Operation::DocumentRead)
            }
            Kind::Documents { reader, update, context } => {
                let documents = match reader.finish() {
                    Ok(documents) => documents,
                    Err(error) => return Progress::Done(error.reply()),
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
            Kind::Write { kind, body, context } => match write_payload(&topology, kind, body) {
                Some(payload) => start_write(topology, context, payload),
                None => Progress::Done(
                    ApiError::new(Code::BAD_REQUEST, "The body of this deletion cannot be read.").reply(),
                ),
            },
        }
    }
}

fn start_read(
    topology: Arc<Topology>,
    route: Route,
    head: RequestHead,
    body: Vec<u8>,
) -> Progress<Operation> {
    let name = match route {
        Route::MultiSearch => "multi_search",
        Route::FacetSearch { .. } => "facet_search",
        Route::Similar { .. } => "similar",
        Route::DocumentList { .. } => "document_list",
        _ => "search",
    };
    Read::start(topology, head, body, |topology, head, body| match route {
        Route::Search { index } => Search::of(topology, &index, head, body),
        Route::MultiSearch => MultiSearch::of(topology, body),
        Route::FacetSearch { index } => FacetSearch::of(topology, &index, body),
        Route::Similar { index } => Similar::of(&index, head, body),
        Route::DocumentList { index } => DocumentList::of(topology, &index, head, body),
        _ => None,
    })
    .map(|machine| Operation::Read(name, Box::new(machine)))
}

fn start_write(topology: Arc<Topology>, context: WriteContext, payload: Payload) -> Progress<Operation> {
    Write::start(topology, context, payload).map(|machine| Operation::Write(Box::new(machine)))
}

fn write_payload(topology: &Topology, kind: WriteKind, body: Vec<u8>) -> Option<Payload> {
    match kind {
        WriteKind::DeleteOne { id } => {
            let body = serde_json::to_vec(&[id]).ok()?;
            Payload::ids(&body, topology.shard_count())
        }
        WriteKind::DeleteBatch => Payload::ids(&body, topology.shard_count()),
        WriteKind::DeleteByFilter => Payload::filter(body),
        WriteKind::DeleteAll | WriteKind::Add { .. } => Some(Payload::All),
    }
}

fn document_reader(topology: &Topology, head: &RequestHead, index: &str) -> Result<DocumentReader, ApiError> {
    let delimiter = match parameter(head, "csvDelimiter") {
        None => None,
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() => Some(*byte),
            _ => {
                let message = format!(
                    "Invalid value in parameter `csvDelimiter`: expected a string of one character, but found the following string of {} characters: `{text}`",
                    text.chars().count()
                );
                return Err(ApiError::new(Code::INVALID_DOCUMENT_CSV_DELIMITER, message));
            }
        },
    };
    let format = Format::from_content_type(head.header("content-type"), delimiter)?;
    let requested = parameter(head, "primaryKey");
    let key = topology.primary_key(index).map(str::to_owned).or(requested).map(PrimaryKey::new);
    let limit = topology.config().limits.max_payload_bytes;
    let declared = head.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(payload_too_large(limit));
    }
    Ok(DocumentReader::new(format, key.as_ref(), topology.shard_count(), limit))
}

/// A parameter of the query string; the last of several.
fn parameter(head: &RequestHead, name: &str) -> Option<String> {
    pairs(head.query()).filter(|(key, _)| key == name).map(|(_, value)| value).last()
}
