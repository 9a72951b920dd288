//! The kind of a request whose body is arriving, and what is held for it.

use super::parameter;
use crate::{
    content_type::ContentType,
    documents::{Body, DocumentReader, Format, PrimaryKey, payload_too_large},
    error::{ApiError, Code},
    http::RequestHead,
    json,
    query::pairs,
    route::{Route, WriteKind},
    topology::Topology,
    write::{MAX_REFUSED_BODY, Payload, WriteContext},
};

/// Memory for one parsed id of a batch deletion, in bytes.
const ID: u64 = 96;
/// Memory for one parsed value in the body of any other write, in bytes.
const VALUE: u64 = 192;

#[derive(Debug)]
pub(super) enum Kind {
    Read {
        route: Route,
        body: Vec<u8>,
    },
    DocumentRead {
        index: String,
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
    /// A request that is refused whatever its body contains. A node reports the error, if the request has a body to send to it.
    Refused {
        error: ApiError,
        body: Option<Body>,
    },
}

impl Kind {
    pub(super) fn too_large(limit: u64) -> Self {
        Self::Refused { error: payload_too_large(limit), body: None }
    }
}

impl Kind {
    /// Whether this gateway reads the request's body.
    pub(super) fn is_decoded(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Documents { .. } => true,
            Self::Write { kind, .. } => !matches!(kind, WriteKind::DeleteOne { .. } | WriteKind::DeleteAll),
            Self::DocumentRead { .. } | Self::Refused { .. } => false,
        }
    }

    /// Bytes that the request holds. A payload within its limit is not refused because of the data derived from its documents:
    /// that data counts only up to three quarters of `share`, which is one client's share, so that the client's other requests
    /// can go on.
    pub(super) fn held(&self, share: u64) -> u64 {
        match self {
            Self::Documents { reader, .. } => {
                let body = reader.held() as u64;
                body.saturating_add(reader.known()).min(body.max(share / 4 * 3))
            }
            Self::Read { body, .. } | Self::Write { body, .. } => body.len() as u64,
            Self::Refused { body, .. } => body.as_ref().map_or(0, Body::len) as u64,
            Self::DocumentRead { .. } => 0,
        }
    }

    /// Takes the next chunk of the decoded body; `false` if the body is too large.
    pub(super) fn push(&mut self, chunk: &[u8], limit: u64) -> bool {
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

/// Memory for a parsed write that carries no documents, in bytes.
pub(super) fn written_bytes(kind: &WriteKind, body: &[u8]) -> u64 {
    let each = match kind {
        WriteKind::DeleteBatch => ID,
        WriteKind::DeleteByFilter | WriteKind::Edit => VALUE,
        WriteKind::DeleteOne { .. } | WriteKind::DeleteAll | WriteKind::Add { .. } => 0,
    };
    let values = if each > 0 { json::values(body) } else { 0 };
    (body.len() as u64).saturating_add(values.saturating_mul(each))
}

pub(super) fn write_payload(topology: &Topology, kind: WriteKind, body: &[u8]) -> Option<Payload> {
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

/// Checks everything in a write except its body. A node words the errors better, so these are only the fallback.
pub(super) fn write(
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
    if has_body && !ContentType::of(head.header("content-type")).is_json() {
        return Err(ApiError::new(Code::INVALID_CONTENT_TYPE, "The Content-Type is invalid."));
    }
    Ok(Kind::Write { kind, body: Vec::new(), context })
}

pub(super) fn document_reader(
    topology: &Topology,
    head: &RequestHead,
    index: &str,
) -> Result<DocumentReader, ApiError> {
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
