//! A write that the gateway refuses: the control plane checks the client's key first, then a node reports the error in its own
//! words.

use super::{answered_or_unavailable, ask_control, is_meilisearch_error, refused};
use crate::{
    error::ApiError,
    http::{Answer, CallId, Callout, Outcome, Reply, RequestHead},
    progress::Progress,
    protocol::{AUTHORIZATION_PREFIX, REFUSAL_PREFIX},
    topology::Topology,
};

/// Larger bodies are not sent to a node only to learn what is wrong with them.
pub const MAX_BODY: usize = 8 << 20;

/// The result of checking whether a client may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client may write.
    Allowed,
    /// The client may not write: the reply for it.
    Refused(Reply),
    /// The control plane gave no answer: the reply for the client if the request cannot continue without one.
    Unknown(Reply),
}

/// A refusal in progress.
#[derive(Debug)]
pub struct Refusal {
    /// The error for the client if no node has a better one.
    error: ApiError,
}

impl Refusal {
    /// Starts to refuse a request with `error`. Without a body, only the client's key is checked.
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

    /// The request that asks the control plane whether the client's key allows this write.
    #[must_use]
    pub fn authorization(topology: &Topology, head: &RequestHead) -> Callout {
        ask(topology, head, AUTHORIZATION_PREFIX)
    }

    /// Interprets the answer to [`Self::authorization`].
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

    /// Handles the control plane's answer.
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
