//! Takes in a client's request: from its headers to the operation that it starts.

mod kind;

use self::kind::{Kind, write, write_payload, written_bytes};
use crate::{
    budget::OverBudget,
    cors,
    document_read::DocumentRead,
    documents::{Body, payload_too_large},
    encoding::Encoding,
    error::{ApiError, Code},
    http::{Callout, Outcome, Reply, RequestHead},
    operation::Operation,
    progress::Progress,
    query::pairs,
    read::{begin, too_large},
    route::Route,
    tenant,
    topology::Topology,
    write::{DocumentsPayload, MAX_REFUSED_BODY, Payload, Refusal, Verdict, Write, WriteContext},
};
use std::sync::Arc;

/// What the filter does with a request, decided by its headers.
#[derive(Debug)]
pub enum Intake {
    /// The control plane handles this request: pass it on.
    Pass,
    /// Answer immediately.
    Reply(Reply),
    /// Collect the body, then start the operation.
    Collect(Box<Collector>),
}

/// Once a body is larger than this, the client's right to send it is checked before the body is complete, and for a write also
/// before it is decoded. This limits what clients without a valid key can make a gateway hold. The right to send smaller bodies
/// is checked when the operation begins, by a request that it needs anyway.
const UNJUDGED: u64 = 256 << 10;

/// Collects a body, chunk by chunk, then starts the operation.
#[derive(Debug)]
pub struct Collector {
    topology: Arc<Topology>,
    head: RequestHead,
    /// Bytes received so far.
    received: u64,
    /// How the body is compressed, and its compressed bytes.
    encoded: Option<(Encoding, Body)>,
    kind: Kind,
}

impl Intake {
    /// Decides by a request's headers. `gateway` identifies this worker's VM.
    #[must_use]
    pub fn of(topology: Arc<Topology>, gateway: &str, head: RequestHead) -> Self {
        if let Some(reply) = cors::preflight(&head) {
            return Self::Reply(reply);
        }
        let limits = topology.config().limits;
        if let Err(error) = tenant::check(head.header("authorization")) {
            return Self::Reply(error.reply());
        }
        let kind = match Route::of(&head.method, &head.path) {
            Route::ControlPlane => return Self::Pass,
            Route::Internal => {
                return Self::Reply(ApiError::new(Code::NOT_FOUND, "Not found").reply());
            }
            // These refusals are sent without checking the client's key: nobody gains anything by sending 100 MB to get one.
            Route::Write { .. } if declared_length(&head) > limits.max_payload_bytes => {
                return Self::Reply(payload_too_large(limits.max_payload_bytes).reply());
            }
            route
                if !matches!(route, Route::Write { .. }) && declared_length(&head) > limits.read_bytes() =>
            {
                return Self::Reply(too_large(&topology).reply());
            }
            route @ (Route::Search { .. }
            | Route::MultiSearch
            | Route::FacetSearch { .. }
            | Route::Similar { .. }
            | Route::DocumentList { .. }) => Kind::Read { route, body: Vec::new() },
            Route::DocumentRead { index, id } => Kind::DocumentRead { index, id },
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
    /// Takes the next chunk of the body. If a write is too large, its body is still read to the end and dropped: a client that
    /// gets an answer before it has sent everything may not read the answer.
    ///
    /// # Errors
    /// The request is a read, and too large; the error holds the answer.
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

    /// Bytes held for the body, and for what the collector derived from it.
    #[must_use]
    pub fn held(&self) -> u64 {
        let encoded = self.encoded.as_ref().map_or(0, |(_, body)| body.len() as u64);
        encoded.saturating_add(self.kind.held(self.topology.config().limits.buffered_bytes_per_client()))
    }

    /// The request that checks whether the client may do this, if enough of the body has arrived to check before it is
    /// complete. [`Self::verdict`] reads the answer. Writes are checked by the control plane, reads by a node.
    #[must_use]
    pub fn judge_early(&self) -> Option<Callout> {
        if self.received <= UNJUDGED {
            return None;
        }
        match &self.kind {
            Kind::Read { route, .. } => {
                Some(begin::authorization_request(&self.topology, route, &self.head, self.received, 0))
            }
            Kind::DocumentRead { .. } => None,
            _ => Some(Refusal::authorization(&self.topology, &self.head)),
        }
    }

    /// Reads the answer to the request from [`Self::judge_early`] or [`Self::judge_encoded`].
    #[must_use]
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        if self.is_read() { begin::verdict(outcome) } else { Refusal::verdict(outcome) }
    }

    /// The same check for a complete, compressed body: if decoding makes it large, the client's right is checked before it is
    /// decoded.
    #[must_use]
    pub fn judge_encoded(&self) -> Option<Callout> {
        let (encoding, body) = self.encoded.as_ref().filter(|_| !self.is_read())?;
        let mut decoded = 0;
        // A body that cannot be decoded does not count as large.
        let _ = encoding.decode(body.reader(), |chunk| {
            decoded += chunk.len() as u64;
            decoded <= UNJUDGED
        });
        (decoded > UNJUDGED).then(|| Refusal::authorization(&self.topology, &self.head))
    }

    /// The operation's name in metrics and logs.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match &self.kind {
            Kind::Read { route, .. } => begin::name(route),
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

    /// A copy of this read, to be planned with another topology; `None` if this is not a read.
    #[must_use]
    pub fn again(&self, topology: Arc<Topology>) -> Option<Self> {
        let kind = match &self.kind {
            Kind::Read { route, body } => Kind::Read { route: route.clone(), body: body.clone() },
            Kind::DocumentRead { index, id } => Kind::DocumentRead { index: index.clone(), id: id.clone() },
            Kind::Documents { .. } | Kind::Write { .. } | Kind::Refused { .. } => return None,
        };
        let (head, encoded) = (self.head.clone(), self.encoded.clone());
        Some(Self { topology, head, received: self.received, encoded, kind })
    }

    /// Plans this request with another topology than the one that it arrived under.
    pub fn plan_by(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
    }

    /// Whether this is a read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. } | Kind::DocumentRead { .. })
    }

    /// Whether the operation must outlive the client's connection.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Documents { .. } | Kind::Write { .. })
    }

    /// Starts the operation, once the body is complete. `charge` gets the total number of bytes that the request holds.
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
            } else if let (Err(_), Kind::Read { route, .. }) = (&decoded, &self.kind) {
                return begin::ask_node_verbatim(self.topology, route, self.head, body.concat())
                    .map(Operation::Read);
            } else if decoded.is_err() {
                let error = ApiError::new(
                    Code::BAD_REQUEST,
                    "The provided payload is incomplete and cannot be parsed",
                );
                return refuse(&self.topology, &self.head, error, Some(body));
            }
            // From here on the body is the uncompressed one.
            self.head.headers.retain(|(name, _)| name != "content-encoding");
        }
        self.start(charge)
    }

    fn start(self, mut charge: impl FnMut(u64) -> Result<(), OverBudget>) -> Progress<Operation> {
        let Self { topology, head, kind, .. } = self;
        match kind {
            Kind::Read { route, body } => {
                // The collector also keeps the body as received, so that a newer topology can plan the read again.
                let held = (body.len() as u64).saturating_mul(2);
                begin::begin(topology, route, head, body, |bytes| charge(held.saturating_add(bytes)))
                    .map(Operation::Read)
            }
            Kind::DocumentRead { index, id } => {
                DocumentRead::start(topology, head, &index, &id).map(Operation::DocumentRead)
            }
            Kind::Documents { reader, update, context } => {
                let documents = match reader.finish() {
                    Ok(documents) => documents,
                    Err(refused) => {
                        let (error, body) = *refused;
                        // The reserved field and this gateway's limits are errors that no node can know about.
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
                start_write(topology, context, Payload::Documents(Box::new(payload)))
            }
            Kind::Write { kind, body, context } => match charge(written_bytes(&kind, &body))
                .map(|()| write_payload(&topology, kind, &body))
            {
                Err(over) => Progress::Done(over.error().reply()),
                Ok(Some(Payload::Edit(edit))) if let Err(error) = edit.check() => {
                    refuse(&topology, &head, error, None)
                }
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

fn refuse(
    topology: &Topology,
    head: &RequestHead,
    error: ApiError,
    body: Option<Body>,
) -> Progress<Operation> {
    let body = body.filter(|body| body.len() <= MAX_REFUSED_BODY).map(|body| body.concat());
    Refusal::start(topology, head, error, body).map(Operation::Refusal)
}

fn start_write(topology: Arc<Topology>, context: WriteContext, payload: Payload) -> Progress<Operation> {
    Write::start(topology, context, payload).map(|machine| Operation::Write(Box::new(machine)))
}

fn declared_length(head: &RequestHead) -> u64 {
    head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// A parameter of the query string; the last one if there are several.
fn parameter(head: &RequestHead, name: &str) -> Option<String> {
    pairs(head.query()).filter(|(key, _)| key == name).map(|(_, value)| value).last()
}

#[cfg(test)]
mod tests;
