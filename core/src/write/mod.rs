//! The state machine of a write: begin at the control plane, a look-up of stored documents if the write is small, one callout
//! to each node, commit. Only then does the client get its 202.

mod diagnosis;
mod edit;
mod payload;
mod stored_documents;

pub use diagnosis::{MAX_BODY as MAX_REFUSED_BODY, Refusal, Verdict};
pub use edit::{Edit, LINES_BEFORE as EDIT_LINES_BEFORE};
pub use payload::{DocumentsPayload, Payload};

use crate::{
    error::{ApiError, Code, ErrorBody},
    http::{Answer, CallId, Callout, Outcome, Reply, Upstream},
    json::to_bytes,
    node_name::NodeName,
    path::ApiPath,
    progress::Progress,
    protocol::{
        BEGIN_PATH, Begin, BeginReply, COMMIT_PATH, Commit, NodeOutcome, NodeResult, SECRET_HEADER, metadata,
    },
    shard::Shard,
    topology::Topology,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How often a commit is sent before the client is told that its result is unknown.
const COMMIT_ATTEMPTS: u32 = 3;
/// How often a payload is split again because the index has another primary key than assumed.
const SPLIT_ATTEMPTS: u32 = 2;
/// The most bytes of documents that are sent to the control plane for the preflight.
const SHOWN_BYTES: usize = 1 << 20;

/// Who writes to which index, on whose behalf.
#[derive(Clone, Debug, Default)]
pub struct WriteContext {
    /// The id of the worker's VM, which selects the write key.
    pub gateway: String,
    /// Index uid.
    pub index: String,
    /// The client's `Authorization`.
    pub authorization: Option<String>,
    /// The client's `customMetadata`.
    pub custom_metadata: Option<String>,
}

/// A mutation of documents.
#[derive(Debug)]
pub struct Write {
    topology: Arc<Topology>,
    context: WriteContext,
    payload: Payload,
    state: State,
    next_call: u32,
    /// Whether the control plane has asked for the documents that nodes may refuse.
    shows: bool,
}

#[derive(Debug)]
enum State {
    Beginning { attempt: u32, shards: Vec<Shard> },
    LookingUp { plan: Plan, pending: BTreeSet<CallId> },
    Sending { commit: Commit, pending: BTreeMap<CallId, Part>, unsent: usize },
    Committing { commit: Commit, attempt: u32 },
}

/// The control plane's decision on a write.
#[derive(Debug)]
struct Plan {
    commit: Commit,
    /// The gateway's write key.
    key: String,
    primary_key: Option<String>,
    /// Names of the nodes.
    nodes: Vec<NodeName>,
    shards: Vec<Shard>,
    /// For each shard, the positions in `nodes` of its writers.
    writers: Vec<Vec<u16>>,
}

/// The part of a write that one node gets.
#[derive(Debug)]
struct Part {
    node: NodeName,
    shards: BTreeSet<Shard>,
}

impl Write {
    /// Starts with *begin*.
    #[must_use]
    pub fn start(topology: Arc<Topology>, context: WriteContext, payload: Payload) -> Progress<Self> {
        let state = State::Beginning { attempt: 0, shards: Vec::new() };
        Self { topology, context, payload, state, next_call: 0, shows: false }.begin(0)
    }

    /// Handles the result of one callout.
    #[must_use]
    pub fn digest(mut self, id: CallId, outcome: Outcome) -> Progress<Self> {
        match &mut self.state {
            State::Beginning { attempt, shards } => {
                let (attempt, shards) = (*attempt, std::mem::take(shards));
                self.digest_begin(attempt, &shards, outcome)
            }
            State::LookingUp { pending, .. } => {
                pending.remove(&id);
                if let Outcome::Answered(Answer { status: 200, body, .. }) = outcome {
                    self.payload.keep_sequences(&body);
                }
                self.send_when_looked_up(Vec::new())
            }
            State::Sending { commit, pending, .. } => {
                if let Some(part) = pending.remove(&id) {
                    commit.results.push(NodeResult { node: part.node, outcome: node_outcome(&outcome) });
                }
                self.commit_when_all_answered(Vec::new())
            }
            State::Committing { commit, attempt } => {
                let (commit, attempt) = (commit.clone(), *attempt);
                self.digest_commit(commit, attempt, outcome)
            }
        }
    }

    /// Whether a pending callout only looks up stored documents.
    #[must_use]
    pub fn is_looking_up(&self, id: CallId) -> bool {
        matches!(&self.state, State::LookingUp { pending, .. } if pending.contains(&id))
    }

    /// The shards whose documents a pending callout carries.
    #[must_use]
    pub fn sent_to(&self, id: CallId) -> Vec<Shard> {
        match &self.state {
            State::Sending { pending, .. } => {
                pending.get(&id).into_iter().flat_map(|part| part.shards.iter().copied()).collect()
            }
            State::Beginning { .. } | State::LookingUp { .. } | State::Committing { .. } => Vec::new(),
        }
    }

    /// The body of a callout to a node. It is built only when it is sent, so that only one is in memory at a time. Call this
    /// once for each callout: the last call drops the payload.
    #[must_use]
    pub fn late_body(&mut self, id: CallId) -> Option<Vec<u8>> {
        let State::Sending { commit, pending, unsent } = &mut self.state else { return None };
        let shards = &pending.get(&id)?.shards;
        let body = self.payload.body(commit.uid, |shard| shards.contains(&shard));
        *unsent = unsent.saturating_sub(1);
        if *unsent == 0 {
            self.payload = Payload::All;
        }
        Some(body)
    }

    fn begin(mut self, attempt: u32) -> Progress<Self> {
        let shards = self.payload.shards(&self.topology);
        let begin = Begin {
            gateway: self.context.gateway.clone(),
            topology_version: self.topology.version(),
            index: self.context.index.clone(),
            operation: self.payload.operation(&self.topology, &self.context.index),
            shards: shards.clone(),
            authorization: self.context.authorization.clone(),
            custom_metadata: self.context.custom_metadata.clone(),
            fields: self.payload.fields(),
            nested_fields: self.payload.nested_fields(),
            doubts: self.payload.doubts(),
            doubtful: if self.shows { self.payload.doubtful(SHOWN_BYTES) } else { None },
        };
        self.state = State::Beginning { attempt, shards };
        self.ask_control(BEGIN_PATH, &begin)
    }

    fn digest_begin(mut self, attempt: u32, shards: &[Shard], outcome: Outcome) -> Progress<Self> {
        let reply = match outcome {
            Outcome::Answered(Answer { status: 200, body, .. }) => serde_json::from_slice(&body),
            Outcome::Answered(answer) if is_meilisearch_error(&answer) => {
                return Progress::Done(refused(answer));
            }
            _ => return Progress::Done(no_control_plane().reply()),
        };
        match reply {
            Ok(BeginReply::Send { uid, key, primary_key, nodes, writers, record, begun }) => {
                // These ids must be collected now, because the payload is dropped when it is sent.
                let written = self.payload.written(&record.into_iter().collect());
                let commit = Commit { uid, begun, results: Vec::new(), written };
                let shards = shards.to_vec();
                self.look_up(Plan { commit, key, primary_key, nodes, shards, writers })
            }
            Ok(BeginReply::Show) if !self.shows => {
                self.shows = true;
                self.begin(attempt)
            }
            Ok(BeginReply::Recorded { task }) => Progress::Done(accepted(&task)),
            Ok(BeginReply::Split { primary_key }) if attempt < SPLIT_ATTEMPTS => {
                match self.payload.split_again(&primary_key, self.topology.shard_count()) {
                    Ok(()) => self.begin(attempt + 1),
                    Err(error) => Progress::Done(error.reply()),
                }
            }
            Ok(BeginReply::Infer) if attempt < SPLIT_ATTEMPTS => {
                match self.payload.infer_again(self.topology.shard_count()) {
                    Ok(()) => self.begin(attempt + 1),
                    Err(error) => Progress::Done(error.reply()),
                }
            }
            Ok(BeginReply::Split { .. } | BeginReply::Infer | BeginReply::Show) | Err(_) => {
                Progress::Done(no_control_plane().reply())
            }
        }
    }

    /// Asks nodes for the sequences of documents that are already stored.
    fn look_up(mut self, plan: Plan) -> Progress<Self> {
        let calls =
            stored_documents::calls(&self.topology, &self.context.index, &self.payload, &plan, || {
                self.next_call += 1;
                CallId(self.next_call)
            });
        self.state = State::LookingUp { plan, pending: calls.iter().map(|call| call.id).collect() };
        self.send_when_looked_up(calls)
    }

    fn send_when_looked_up(mut self, calls: Vec<Callout>) -> Progress<Self> {
        match self.state {
            State::LookingUp { plan, pending } if pending.is_empty() => {
                self.state = State::Beginning { attempt: 0, shards: Vec::new() };
                self.send(plan)
            }
            _ => Progress::Pending { machine: self, calls },
        }
    }

    fn send(mut self, plan: Plan) -> Progress<Self> {
        let mut pending = BTreeMap::new();
        let mut calls = Vec::new();
        let Plan { mut commit, key, primary_key, nodes, shards, writers } = plan;
        for (position, name) in nodes.iter().enumerate() {
            let mine = shards.iter().zip(&writers);
            let mine: BTreeSet<Shard> = mine
                .filter(|(_, nodes)| nodes.iter().any(|node| usize::from(*node) == position))
                .map(|(shard, _)| *shard)
                .collect();
            if mine.is_empty() {
                continue;
            }
            // The node is newer than this gateway's topology; the control plane will repair it.
            let Some(node) = self.topology.node_named(name) else {
                let outcome = NodeOutcome::Refused { status: 0, error: None };
                commit.results.push(NodeResult { node: name.clone(), outcome });
                continue;
            };
            let (method, path) =
                self.payload.request(&self.context.index, primary_key.as_deref(), &metadata(commit.uid));
            let id = self.next_id();
            pending.insert(id, Part { node: name.clone(), shards: mine });
            let mut headers = vec![("authorization".to_owned(), format!("Bearer {key}"))];
            if method != "DELETE" {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            calls.push(Callout {
                id,
                upstream: Upstream::Node(node),
                method,
                path,
                headers,
                body: Vec::new(),
                timeout_ms: self.topology.config().limits.write_timeout_ms,
                has_stand_in: false,
            });
        }
        self.state = State::Sending { commit, unsent: pending.len(), pending };
        self.commit_when_all_answered(calls)
    }

    fn commit_when_all_answered(mut self, calls: Vec<Callout>) -> Progress<Self> {
        match &mut self.state {
            State::Sending { commit, pending, .. } if pending.is_empty() => {
                let commit = commit.clone();
                self.commit(commit, 0)
            }
            _ => Progress::Pending { machine: self, calls },
        }
    }

    fn commit(mut self, commit: Commit, attempt: u32) -> Progress<Self> {
        self.state = State::Committing { commit: commit.clone(), attempt };
        self.ask_control(COMMIT_PATH, &commit)
    }

    fn digest_commit(self, commit: Commit, attempt: u32, outcome: Outcome) -> Progress<Self> {
        match outcome {
            Outcome::Failed if attempt + 1 < COMMIT_ATTEMPTS => self.commit(commit, attempt + 1),
            Outcome::Answered(answer)
                if answer.status != 200
                    && !is_meilisearch_error(&answer)
                    && attempt + 1 < COMMIT_ATTEMPTS =>
            {
                self.commit(commit, attempt + 1)
            }
            outcome => Progress::Done(answered_or_unavailable(outcome, 200)),
        }
    }

    fn ask_control(mut self, path: &'static str, body: &impl Serialize) -> Progress<Self> {
        let id = self.next_id();
        let mut call = ask_control(&self.topology, id, path.into());
        call.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        call.body = to_bytes(body);
        Progress::Pending { machine: self, calls: vec![call] }
    }

    fn next_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }
}

/// A request to the control plane, without its body. If there is no control plane, sending it fails.
fn ask_control(topology: &Topology, id: CallId, path: ApiPath) -> Callout {
    let config = topology.config();
    let secret = config.control.as_ref().map(|control| (SECRET_HEADER.to_owned(), control.secret.clone()));
    Callout {
        id,
        upstream: Upstream::Control,
        method: "POST",
        path,
        headers: secret.into_iter().collect(),
        body: Vec::new(),
        timeout_ms: config.limits.control_timeout_ms,
        has_stand_in: false,
    }
}

/// The client's reply: the control plane's answer if it has this status, or its error; 503 if it is neither.
fn answered_or_unavailable(outcome: Outcome, status: u16) -> Reply {
    match outcome {
        Outcome::Answered(answer) if answer.status == status => Reply::json(202, answer.body),
        Outcome::Answered(answer) if is_meilisearch_error(&answer) => refused(answer),
        _ => no_control_plane().reply(),
    }
}

/// Interprets a node's answer to its part.
fn node_outcome(outcome: &Outcome) -> NodeOutcome {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary {
        task_uid: u32,
    }
    match outcome {
        Outcome::Answered(answer) if answer.status == 202 => match serde_json::from_slice(&answer.body) {
            Ok(Summary { task_uid }) => NodeOutcome::Enqueued { task_uid },
            Err(_) => NodeOutcome::Unknown,
        },
        Outcome::Answered(answer) if (400..500).contains(&answer.status) => {
            NodeOutcome::Refused { status: answer.status, error: serde_json::from_slice(&answer.body).ok() }
        }
        // A proxy may send a 5xx after the node accepted the write.
        _ => NodeOutcome::Unknown,
    }
}

fn is_meilisearch_error(answer: &Answer) -> bool {
    answer.status >= 400 && serde_json::from_slice::<ErrorBody>(&answer.body).is_ok()
}

/// Passes the control plane's error on to the client.
fn refused(answer: Answer) -> Reply {
    let retry_after = answer.header("retry-after").map(str::to_owned);
    let reply = Reply::json(answer.status, answer.body);
    match retry_after {
        Some(value) => reply.with_header("retry-after", value),
        None => reply,
    }
}

fn accepted(task: &serde_json::Value) -> Reply {
    Reply::json(202, to_bytes(task))
}

fn no_control_plane() -> ApiError {
    ApiError::new(
        Code::UNAVAILABLE,
        "The control plane does not answer: writes are not accepted now. Try again later.",
    )
}

#[cfg(test)]
mod tests;
