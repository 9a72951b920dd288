//! Core's callouts as Envoy's HTTP calls, and their answers back.

use crate::observed::Observed;
use miroir_core::{
    http::{Answer, CallId, Callout, Outcome, Reply, Upstream},
    operation::Operation,
    progress::Progress,
    topology::Topology,
};
use proxy_wasm::{
    hostcalls,
    types::{BufferType, MapType, Status},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// An operation whose wanted callouts have been sent.
pub enum Driven {
    /// It waits for answers.
    Waiting(Operation),
    /// It is done.
    Done(Reply),
}

/// Sends what an operation wants from the context that is active now, until it waits or is done; what it wants after its
/// deadline has failed. `sent` hears Envoy's token of each callout.
pub fn drive(
    topology: &Topology,
    mut progress: Progress<Operation>,
    deadline: Option<Instant>,
    observed: &mut Observed,
    mut sent: impl FnMut(u32, CallId),
) -> Driven {
    let mut unsent = VecDeque::new();
    loop {
        let machine = match progress {
            Progress::Done(reply) => return Driven::Done(reply),
            Progress::Pending { mut machine, calls } => {
                for mut call in calls {
                    if let Some(body) = machine.late_body(call.id) {
                        call.body = body;
                    }
                    let token = dispatch(topology, &call, &observed.trace.begin(&machine, &call), deadline);
                    observed.asked(topology, &call, token.is_some());
                    match token {
                        Some(token) => sent(token, call.id),
                        None => unsent.push_back(call.id),
                    }
                }
                machine
            }
        };
        match unsent.pop_front() {
            Some(id) => progress = observed.digest(machine, id, Outcome::Failed),
            None => return Driven::Waiting(machine),
        }
    }
}

/// Sends a callout that is no operation's from the context that is active now; gives Envoy's token.
pub fn send(topology: &Topology, call: &Callout) -> Option<u32> {
    dispatch(topology, call, &[], None)
}

/// Sends a callout; gives Envoy's token, or `None` where it cannot be sent (a cluster that Envoy does not have, no time).
fn dispatch(
    topology: &Topology,
    call: &Callout,
    trace: &[(String, String)],
    deadline: Option<Instant>,
) -> Option<u32> {
    let mut timeout = Duration::from_millis(call.timeout_ms);
    if let Some(deadline) = deadline {
        timeout = timeout.min(deadline.saturating_duration_since(Instant::now()));
        // Envoy takes a timeout of no milliseconds for none.
        if timeout.as_millis() == 0 {
            return None;
        }
    }
    let config = topology.config();
    let (cluster, authority) = match call.upstream {
        Upstream::Node(node) => topology.node(node).map(|node| (&*node.cluster, &*node.name)),
        Upstream::Control => config.control.as_ref().map(|control| (&*control.cluster, "miroir")),
    }?;
    let path = call.path.to_string();
    let mut headers = vec![(":method", call.method), (":path", &*path), (":authority", authority)];
    headers.extend(call.headers.iter().chain(trace).map(|(name, value)| (&**name, &**value)));
    let body = (!call.body.is_empty()).then_some(call.body.as_slice());
    match hostcalls::dispatch_http_call(cluster, headers, body, Vec::new(), timeout) {
        Ok(token) => Some(token),
        // No endpoint is healthy: that is Envoy's to tell, and would be told for every request.
        Err(Status::InternalFailure) => None,
        Err(status) => {
            log::warn!(
                "callout to cluster {cluster} cannot be sent: {status:?}; does Envoy have this cluster?"
            );
            None
        }
    }
}

/// The answer to the callout that Envoy tells of. A callout that failed has no headers; they must not be read then.
pub fn outcome(headers: usize, body_size: usize) -> Outcome {
    if headers == 0 {
        return Outcome::Failed;
    }
    let headers = read_headers(MapType::HttpCallResponseHeaders);
    let status =
        headers.iter().find(|(name, _)| name == ":status").and_then(|(_, status)| status.parse().ok());
    let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, body_size);
    match (status, body) {
        (Some(status), Ok(body)) => {
            Outcome::Answered(Answer { status, headers, body: body.unwrap_or_default() })
        }
        _ => Outcome::Failed,
    }
}

/// All headers of a map, names in lower case as Envoy keeps them.
pub fn read_headers(map: MapType) -> Vec<(String, String)> {
    let headers = hostcalls::get_map_bytes(map).unwrap_or_default();
    headers.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect()
}

/// Answers the stream whose context is in effect.
pub fn send_reply(reply: &Reply) {
    let headers = reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    if let Err(status) = hostcalls::send_http_response(u32::from(reply.status), headers, Some(&reply.body)) {
        log::error!("a reply cannot be sent: {status:?}");
    }
}
