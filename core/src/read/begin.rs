//! Starts a read once its body is complete. For an expensive read, the client's key is checked first, so a client without the
//! right can only cause one small request to one node.

use super::{Estimate, Read, SMALL, node_error_reply};
use crate::{
    budget::OverBudget,
    error::{ApiError, Code},
    http::{Answer, CallId, Callout, Outcome, RequestHead, Upstream, forwarded_headers},
    path::ApiPath,
    progress::Progress,
    route::Route,
    search::{DocumentList, FacetSearch, MultiSearch, Search, similar},
    shard::Shard,
    topology::Topology,
    write::Verdict,
};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The most nodes that are asked about a client's key if they do not answer.
const ATTEMPTS: u16 = 3;

/// Begins a read. `charge` gets the number of bytes that the read will need here besides its body.
///
/// # Errors
/// The budget does not allow these bytes.
pub fn begin(
    topology: Arc<Topology>,
    route: Route,
    head: RequestHead,
    body: Vec<u8>,
    charge: impl FnOnce(u64) -> Result<(), OverBudget>,
) -> Progress<ReadOperation> {
    let Some(estimate) = Estimate::of(&topology, &route, &head, &body) else {
        return read(topology, route, head, body);
    };
    if let Some(refusal) = estimate.refusal(&topology) {
        return Progress::Done(refusal.reply());
    }
    if let Err(over) = charge(estimate.memory) {
        return Progress::Done(over.error().reply());
    }
    if estimate.fan_out <= SMALL {
        return read(topology, route, head, body);
    }
    AuthorizationCheck { topology, route, head, body, attempt: 0 }.ask()
}

/// Forwards a read that cannot be parsed here to a node, which says what is wrong with it.
pub fn ask_node_verbatim(
    topology: Arc<Topology>,
    route: &Route,
    head: RequestHead,
    body: Vec<u8>,
) -> Progress<ReadOperation> {
    let machine = Read::start(topology, head, body, |_, _, _| None);
    machine.map(|machine| ReadOperation::Read(name(route), Box::new(machine)))
}

/// The read's name in metrics and logs.
#[must_use]
pub fn name(route: &Route) -> &'static str {
    match route {
        Route::MultiSearch => "multi_search",
        Route::FacetSearch { .. } => "facet_search",
        Route::Similar { .. } => "similar",
        Route::DocumentList { .. } => "document_list",
        _ => "search",
    }
}

fn read(topology: Arc<Topology>, route: Route, head: RequestHead, body: Vec<u8>) -> Progress<ReadOperation> {
    let name = name(&route);
    Read::start(topology, head, body, |topology, head, body| match route {
        Route::Search { index } => Search::of(topology, &index, head, body),
        Route::MultiSearch => MultiSearch::of(topology, body),
        Route::FacetSearch { index } => FacetSearch::of(topology, &index, body),
        Route::Similar { index } => similar(topology, &index, head, body),
        Route::DocumentList { index } => DocumentList::of(topology, &index, head, body),
        _ => None,
    })
    .map(|machine| ReadOperation::Read(name, Box::new(machine)))
}

/// A read of many shards, from its whole body to its reply.
#[derive(Debug)]
pub enum ReadOperation {
    /// Checks whether the client may ask for an expensive read, before the read starts.
    Check(Box<AuthorizationCheck>),
    /// The read, with its name.
    Read(&'static str, Box<Read>),
}

impl ReadOperation {
    /// Handles the result of one callout.
    #[must_use]
    pub fn digest(self, id: CallId, outcome: Outcome) -> Progress<Self> {
        match self {
            Self::Check(machine) => machine.digest(outcome),
            Self::Read(name, machine) => {
                machine.digest(id, outcome).map(|machine| Self::Read(name, Box::new(machine)))
            }
        }
    }

    /// How long the read may take in total, in milliseconds; `None` while it is being checked, since it has not begun.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Check(_) => None,
            Self::Read(_, machine) => Some(machine.deadline_ms()),
        }
    }

    /// The shards that a pending callout is about.
    #[must_use]
    pub fn shards(&self, id: CallId) -> Vec<Shard> {
        match self {
            Self::Check(_) => Vec::new(),
            Self::Read(_, machine) => machine.asked_for(id),
        }
    }

    /// The indexes whose settings affect the answer.
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        match self {
            Self::Check(_) => &[],
            Self::Read(_, machine) => machine.indexes(),
        }
    }

    /// The read's name in metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Check(machine) => name(&machine.route),
            Self::Read(name, _) => name,
        }
    }
}

/// Checks whether the client's key allows an expensive read: asks a node for a tiny read of the same kind.
#[derive(Debug)]
pub struct AuthorizationCheck {
    topology: Arc<Topology>,
    route: Route,
    head: RequestHead,
    body: Vec<u8>,
    attempt: u16,
}

impl AuthorizationCheck {
    /// Handles the node's answer.
    fn digest(mut self, outcome: Outcome) -> Progress<ReadOperation> {
        match verdict(outcome) {
            Verdict::Refused(reply) => Progress::Done(reply),
            Verdict::Allowed => read(self.topology, self.route, self.head, self.body),
            Verdict::Unknown(_) if self.attempt < ATTEMPTS.min(self.nodes()) => self.ask(),
            Verdict::Unknown(reply) => {
                self.body.clear();
                Progress::Done(reply)
            }
        }
    }

    fn nodes(&self) -> u16 {
        u16::try_from(self.topology.config().nodes.len()).unwrap_or(u16::MAX)
    }

    fn ask(mut self) -> Progress<ReadOperation> {
        let seed = xxh3_64(&self.body);
        let call = authorization_request(&self.topology, &self.route, &self.head, seed, self.attempt);
        self.attempt += 1;
        Progress::Pending { machine: ReadOperation::Check(Box::new(self)), calls: vec![call] }
    }
}

/// Interprets a node's answer to [`authorization_request`].
#[must_use]
pub fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Answered(answer @ Answer { status: 401 | 403, .. }) => {
            Verdict::Refused(node_error_reply(answer))
        }
        // All other errors are reported by nodes when the read itself is sent.
        Outcome::Answered(answer) if answer.status < 500 => Verdict::Allowed,
        _ => Verdict::Unknown(ApiError::new(Code::UNAVAILABLE, "No node answers.").reply()),
    }
}

/// The request that asks a node whether the client's key allows a read: a tiny read that needs the same rights. `seed` chooses
/// the first node, `attempt` the nodes after it; slow ones come last.
#[must_use]
pub fn authorization_request(
    topology: &Topology,
    route: &Route,
    head: &RequestHead,
    seed: u64,
    attempt: u16,
) -> Callout {
    // Each of these routes needs the same action as the client's. A node judges the key before it reads the body.
    let (path, body): (ApiPath, &[u8]) = match route {
        Route::Search { index } | Route::FacetSearch { index } | Route::Similar { index } => {
            (ApiPath::of_index(index, &["search"]), br#"{"limit":0}"#)
        }
        Route::DocumentList { index } => {
            (ApiPath::of_index(index, &["documents", "fetch"]), br#"{"limit":0}"#)
        }
        _ => ("/multi-search".into(), br#"{"queries":[]}"#),
    };
    let config = topology.config();
    let mut headers = forwarded_headers(head, config.read_key.as_deref());
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    let nodes = u16::try_from(config.nodes.len()).unwrap_or(u16::MAX).max(1);
    let first = u16::try_from(seed % u64::from(nodes)).unwrap_or(0);
    let mut order: Vec<u16> = (0..nodes).map(|number| first.wrapping_add(number) % nodes).collect();
    let slow = topology.slow();
    order.sort_by_key(|node| slow.contains(node));
    let node = order.get(usize::from(attempt % nodes)).copied().unwrap_or(first);
    Callout {
        id: CallId(u32::from(attempt)),
        upstream: Upstream::Node(node),
        method: "POST",
        path,
        headers,
        body: body.to_vec(),
        timeout_ms: config.limits.search_timeout_ms,
        has_stand_in: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn topology() -> Arc<Topology> {
        let nodes = (0..3).map(|node| json!({"name": node.to_string(), "cluster": node.to_string()}));
        let config = json!({"schema": 1, "version": 1, "nodes": nodes.collect::<Vec<_>>(),
            "placement": [[0, 1], [1, 2], [2, 0]]});
        Arc::new(Topology::from_json(config.to_string().as_bytes()).unwrap())
    }

    fn start(path: &'static str, body: &Value) -> Progress<ReadOperation> {
        let headers = [("authorization", "Bearer mine"), ("content-type", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let head = RequestHead { method: "POST".into(), path: path.into(), headers };
        begin(topology(), Route::of("POST", &head.path), head, body.to_string().into_bytes(), |_| Ok(()))
    }

    fn calls(progress: Progress<ReadOperation>) -> (ReadOperation, Vec<Callout>) {
        match progress {
            Progress::Pending { machine, calls } => (machine, calls),
            Progress::Done(reply) => panic!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)),
        }
    }

    fn answered(status: u16) -> Outcome {
        let body = br#"{"message":"no","code":"invalid_api_key","type":"auth","link":""}"#.to_vec();
        Outcome::Answered(Answer { status, headers: Vec::new(), body })
    }

    #[test]
    fn an_expensive_read_is_judged_before_it_is_expanded() {
        let large = json!("x".repeat(200_000));
        let queries: Vec<_> = (0..1_000).map(|_| json!({"indexUid": "a"})).collect();
        for (path, body, asked, asks) in [
            ("/indexes/a/search", json!({"q": large}), "/indexes/a/search", r#"{"limit":0}"#),
            ("/indexes/a/facet-search", json!({"facetName": large}), "/indexes/a/search", r#"{"limit":0}"#),
            (
                "/indexes/a/documents/fetch",
                json!({"filter": large}),
                "/indexes/a/documents/fetch",
                r#"{"limit":0}"#,
            ),
            ("/multi-search", json!({"queries": queries}), "/multi-search", r#"{"queries":[]}"#),
        ] {
            let (machine, sent) = calls(start(path, &body));
            assert_eq!(sent.len(), 1, "{path}");
            assert_eq!(
                (&*sent[0].path.to_string(), std::str::from_utf8(&sent[0].body).unwrap()),
                (asked, asks)
            );
            assert!(sent[0].headers.contains(&("authorization".into(), "Bearer mine".into())));
            match machine.digest(sent[0].id, answered(403)) {
                Progress::Done(reply) => assert_eq!(reply.status, 403),
                Progress::Pending { calls, .. } => panic!("{calls:?}"),
            }
            let (machine, sent) = calls(start(path, &body));
            // Whether the index exists is checked by the read itself.
            let (machine, sent) = calls(machine.digest(sent[0].id, answered(404)));
            assert!(matches!(machine, ReadOperation::Read(..)));
            assert!(sent.len() > 1 && sent.iter().all(|call| call.body.len() > 10_000), "{path}");
        }
    }

    #[test]
    fn an_ordinary_read_is_not_judged() {
        for (path, body) in [
            ("/indexes/a/search", json!({"q": "red"})),
            ("/multi-search", json!({"queries": [{"indexUid": "a"}, {"indexUid": "a"}]})),
        ] {
            assert!(matches!(calls(start(path, &body)).0, ReadOperation::Read(..)));
        }
    }

    #[test]
    fn another_node_judges_where_one_does_not_answer() {
        let (machine, first) = calls(start("/indexes/a/search", &json!({"q": "x".repeat(200_000)})));
        let (machine, second) = calls(machine.digest(first[0].id, Outcome::Failed));
        assert_ne!(first[0].upstream, second[0].upstream);
        let (machine, third) = calls(machine.digest(second[0].id, answered(500)));
        match machine.digest(third[0].id, Outcome::Failed) {
            Progress::Done(reply) => assert_eq!(reply.status, 503),
            Progress::Pending { calls, .. } => panic!("{calls:?}"),
        }
    }

    #[test]
    fn what_a_read_takes_is_charged_before_it_is_taken() {
        let head = RequestHead { method: "POST".into(), path: "/multi-search".into(), headers: Vec::new() };
        let body = format!(r#"{{"queries":[{}]}}"#, vec!["{}"; 2_000].join(",")).into_bytes();
        let refuse = |bytes: u64| {
            assert!(bytes > 2_000_000);
            Err(OverBudget::Worker)
        };
        match begin(topology(), Route::MultiSearch, head, body, refuse) {
            Progress::Done(reply) => assert_eq!(reply.status, 503),
            Progress::Pending { calls, .. } => panic!("{calls:?}"),
        }
    }
}
