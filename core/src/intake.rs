//! A client's request on its way in: from its headers to the operation that it starts.

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

/// A request whose body has so many bytes is judged before it is whole, a write also before it is decoded: what a client may send and a gateway hold
/// before anybody has looked at its key. Smaller ones are judged when they begin, by the request that they need anyway.
const UNJUDGED: u64 = 256 << 10;

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

impl Intake {
    /// Looks at a request's headers. `gateway` names this worker's VM.
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
            // These refusals do not wait for the client's key: nobody sends 100 MB to hear them.
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

    /// The request that asks whether the client may do this, where enough has come to ask before all of it has;
    /// [`Self::verdict`] reads the answer. The control plane is asked about writes, a node about reads.
    #[must_use]
    pub fn judge_early(&self) -> Option<Callout> {
        if self.received <= UNJUDGED {
            return None;
        }
        match &self.kind {
            Kind::Read { route, .. } => {
                Some(begin::question(&self.topology, route, &self.head, self.received, 0))
            }
            Kind::DocumentRead { .. } => None,
            _ => Some(Refusal::authorization(&self.topology, &self.head)),
        }
    }

    /// What the answer to the request says that [`Self::judge_early`] or [`Self::judge_encoded`] has made.
    #[must_use]
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        if self.is_read() { begin::verdict(outcome) } else { Refusal::verdict(outcome) }
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
            } else if let (Err(_), Kind::Read { route, .. }) = (&decoded, &self.kind) {
                return begin::natively(self.topology, route, self.head, body.concat());
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
                begin::begin(topology, route, head, body, |bytes| charge(held.saturating_add(bytes)))
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

/// A parameter of the query string; the last of several.
fn parameter(head: &RequestHead, name: &str) -> Option<String> {
    pairs(head.query()).filter(|(key, _)| key == name).map(|(_, value)| value).last()
}

#[cfg(test)]
mod tests;
