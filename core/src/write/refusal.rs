//! A write that cannot be taken: the client's key is looked at first, then a node says in its own words what is wrong.

use super::{answered_or_unavailable, ask_control};
use crate::{
    error::ApiError,
    http::{Answer, CallId, Callout, Outcome, RequestHead},
    operation::Progress,
    protocol::{AUTHORIZATION_PREFIX, REFUSAL_PREFIX},
    topology::Topology,
};

/// Bodies above this are not sent to a node again only to hear what is wrong with them.
pub const MAX_BODY: usize = 8 << 20;

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
        let method = match head.method.as_str() {
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => "POST",
        };
        let prefix = if body.is_some() { REFUSAL_PREFIX } else { AUTHORIZATION_PREFIX };
        let call =
            Callout { method, ..ask_control(topology, CallId(0), head.path.clone().below(&prefix.into())) };
        let forwarded = ["authorization", "content-type", "content-encoding"];
        let headers = head.headers.iter().filter(|(name, _)| forwarded.contains(&name.as_str())).cloned();
        let headers = call.headers.into_iter().chain(headers).collect();
        let call = Callout { headers, body: body.unwrap_or_default(), ..call };
        Progress::Pending { machine: Self { error }, calls: vec![call] }
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
