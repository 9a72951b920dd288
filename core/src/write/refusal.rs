//! A write that cannot be taken: the client's key is looked at first, then a node says in its own words what is wrong.

use super::{answered_or_unavailable, ask_control, is_meilisearch_error, refused};
use crate::{
    error::ApiError,
    http::{Answer, CallId, Callout, Outcome, Reply, RequestHead},
    progress::Progress,
    protocol::{AUTHORIZATION_PREFIX, REFUSAL_PREFIX},
    topology::Topology,
};

/// Bodies above this are not sent to a node again only to hear what is wrong with them.
pub const MAX_BODY: usize = 8 << 20;

/// Whether a client may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not: what it is told.
    Refused(Reply),
    /// The control plane does not say: what the client is told where nothing goes on without it.
    Unknown(Reply),
}

/// A refusal under way.
#[derive(Debug)]
pub struct Refusal {
    /// What the client hears where no node has better words.
    error: ApiError,
}

impl Refusal {
    /// Starts to refuse a request for `error`. Without a body, only the client's key is looked at.
    #[must_use]
    pub fn start(
        topology: &Topology,
        head: &RequestHead,
        error: ApiError,
        body: Option<Vec<u8>>,
    ) -> Progress<Self> {
        let prefix = if body.is_some() { REFUSAL_PREFIX } else { AUTHORIZATION_PREFIX };
        let call = Callout { body: body.unwrap_or_default(), ..ask(topology, head, prefix) };
        Progress::Pending { machine: Self { error }, calls: vec![call] }
    }

    /// The request that asks the control plane whether the client's key allows the write of this head.
    #[must_use]
    pub fn authorization(topology: &Topology, head: &RequestHead) -> Callout {
        ask(topology, head, AUTHORIZATION_PREFIX)
    }

    /// What the answer to [`Self::authorization`] says.
    #[must_use]
    pub fn verdict(outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Answered(Answer { status: 204, .. }) => Verdict::Allowed,
            Outcome::Answered(answer) if is_meilisearch_error(&answer) && answer.status < 500 => {
                Verdict::Refused(refused(answer))
            }
            outcome => Verdict::Unknown(answered_or_unavailable(outcome, 202)),
        }
    }

    /// Digests the control plane's answer.
    #[must_use]
    pub fn digest(self, outcome: Outcome) -> Progress<Self> {
        Progress::Done(match outcome {
            Outcome::Answered(Answer { status: 204, .. }) => self.error.reply(),
            outcome => answered_or_unavailable(outcome, 202),
        })
    }
}

fn ask(topology: &Topology, head: &RequestHead, prefix: &'static str) -> Callout {
    let method = match head.method.as_str() {
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "POST",
    };
    let call =
        Callout { method, ..ask_control(topology, CallId(0), head.path.clone().below(&prefix.into())) };
    let forwarded = ["authorization", "content-type", "content-encoding"];
    let headers = head.headers.iter().filter(|(name, _)| forwarded.contains(&name.as_str())).cloned();
    let headers = call.headers.into_iter().chain(headers).collect();
    Callout { headers, ..call }
}
