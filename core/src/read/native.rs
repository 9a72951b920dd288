//! A node is asked the client's own request, for its own words.

use super::{Asked, Asking, Context, Phase, Read, is_refusal, node_error_reply};
use crate::{
    error::{ApiError, Code},
    http::{Answer, CallId, Outcome},
    progress::Progress,
    scatter_query::ScatterQuery,
    scrub,
};
use std::collections::BTreeMap;

/// The client's own request, under way to one node.
#[derive(Debug)]
pub(super) struct Native {
    call: CallId,
    node: u16,
    why: Why,
    /// Slices that were asked for before. Their answers do not matter any more, but it matters which nodes fail.
    others: BTreeMap<CallId, Asked>,
}

/// Why a node is asked: what its answer is good for.
#[derive(Debug)]
pub(super) enum Why {
    /// The request cannot be understood here: the node says what is wrong. If it takes it, its answer would be a part of the truth only.
    Unread,
    /// The node's answer is the client's.
    Answer,
    /// A node has refused its slices. The client gets this refusal if no node refuses the client's own request.
    Refused {
        /// The node's answer.
        refusal: Answer,
        /// The scatter query.
        scatter_query: Box<dyn ScatterQuery>,
    },
}

impl Native {
    /// Asks the node that knows best, else the preferred one, else any that has not failed, and is not slow if there is such a one.
    pub fn ask(
        mut context: Context,
        why: Why,
        preferred: Option<u16>,
        others: BTreeMap<CallId, Asked>,
    ) -> Progress<Read> {
        let (all, slow) = (context.topology.config().nodes.len(), &context.topology.slow() | &context.late);
        let left = (0..u16::try_from(all).unwrap_or(u16::MAX)).filter(|node| !context.failed.contains(node));
        let owner = context.owner.filter(|owner| !context.failed.contains(owner));
        let node = owner.or(preferred).or_else(|| left.min_by_key(|node| (slow.contains(node), *node)));
        let Some(node) = node else {
            return Progress::Done(match why {
                Why::Refused { refusal, .. } => context.refused(refusal),
                Why::Unread | Why::Answer => {
                    context.revealed(ApiError::new(Code::UNAVAILABLE, "No node answers.").reply())
                }
            });
        };
        let call = context.native(node);
        let phase = Phase::Native(Self { call: call.id, node, why, others });
        Progress::Pending { machine: Read { context, phase }, calls: vec![call] }
    }

    /// What a callout under way asks for, where it is not the client's own request.
    pub fn asked(&self, id: CallId) -> Option<&Asked> {
        self.others.get(&id)
    }

    /// Handles the result of one callout.
    pub fn digest(mut self, mut context: Context, id: CallId, outcome: Outcome) -> Progress<Read> {
        if id != self.call {
            if outcome == Outcome::GivenUp {
                context.late.extend(self.others.remove(&id).map(|asked| asked.node));
            }
            let failed = !matches!(&outcome, Outcome::Answered(Answer { status, .. }) if *status == 200 || is_refusal(*status));
            context.failed.extend(self.others.remove(&id).filter(|_| failed).map(|asked| asked.node));
            return Progress::Pending {
                machine: Read { context, phase: Phase::Native(self) },
                calls: Vec::new(),
            };
        }
        match outcome {
            Outcome::Answered(answer) if is_refusal(answer.status) => Progress::Done(context.refused(answer)),
            Outcome::Answered(answer) if answer.status == 200 => self.taken(context, answer),
            _ => {
                context.failed.insert(self.node);
                Self::ask(context, self.why, None, self.others)
            }
        }
    }

    /// The node finds no fault with the client's own request.
    fn taken(self, context: Context, answer: Answer) -> Progress<Read> {
        match self.why {
            Why::Answer => Progress::Done(context.revealed(node_error_reply(answer))),
            Why::Unread => Progress::Done(context.unread().reply()),
            Why::Refused { refusal, scatter_query } => match scatter_query.simpler() {
                Some(simpler) => Asking::put(context, simpler),
                None if scrub::mentions_tag(&refusal.body) => Progress::Done(context.not_there_yet(&refusal)),
                None => Progress::Done(context.refused(refusal)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::RequestHead, search::Search, topology::Topology};
    use serde_json::{Value, json};
    use std::sync::Arc;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn pending(progress: Progress<Read>) -> (Read, Vec<crate::http::Callout>) {
        match progress {
            Progress::Pending { machine, calls } => (machine, calls),
            Progress::Done(reply) => panic!("{reply:?}"),
        }
    }

    #[test]
    fn once_a_part_is_refused_only_the_clients_own_request_is_asked() {
        let config = json!({"schema": 1, "version": 1, "placement": [[0], [1]],
            "nodes": [{"name": "a", "cluster": "a"}, {"name": "b", "cluster": "b"}]});
        let topology = Arc::new(Topology::from_json(config.to_string().as_bytes()).unwrap());
        let headers = vec![("content-type".into(), "application/json".into())];
        let head = RequestHead { method: "POST".into(), path: "/indexes/movies/search".into(), headers };
        let understand =
            |topology: &Topology, head: &RequestHead, body: &[u8]| Search::of(topology, "movies", head, body);
        let refused = |body: &Value| {
            Outcome::Answered(Answer {
                status: 400,
                headers: Vec::new(),
                body: body.to_string().into_bytes(),
            })
        };
        let (machine, calls) = pending(Read::start(topology, head, b"{}".to_vec(), understand));
        let (one, other) = (calls[0].id, calls[1].id);
        let refusal = json!({"message": "no", "code": "invalid_search_filter"});
        let (machine, native) = pending(machine.digest(one, refused(&refusal)));
        assert_eq!((native.len(), native[0].upstream, &*native[0].body), (1, calls[0].upstream, &b"{}"[..]));
        // What becomes of the other part does not matter any more, but that its node has failed is kept in mind.
        let (machine, none) = pending(machine.digest(other, Outcome::Failed));
        assert!(none.is_empty());
        match machine.digest(native[0].id, Outcome::Failed) {
            Progress::Done(reply) => assert_eq!(reply.status, 400, "no node is left: the refusal is told"),
            Progress::Pending { calls, .. } => panic!("{calls:?}"),
        }
    }
}
