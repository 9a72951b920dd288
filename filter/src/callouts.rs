//! Sends core's callouts as Envoy's HTTP calls, and converts their answers.

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

/// An operation after its wanted callouts were sent.
pub enum Driven {
    /// The operation waits for answers.
    Waiting(Operation),
    /// The operation is done.
    Done(Reply),
}

/// Sends the callouts that an operation wants from the active context, until it waits or is done. Callouts that it wants after
/// its deadline count as failed. `sent` gets Envoy's token of each callout.
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
                    let patience = observed.patience(topology, &call);
                    let trace = observed.trace.begin(&machine, &call);
                    let token = dispatch(topology, &call, &trace, patience, deadline);
                    observed.asked(topology, &call, token.is_some(), patience);
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

/// Sends a callout that belongs to no operation from the active context, and returns Envoy's token.
pub fn send(topology: &Topology, call: &Callout) -> Option<u32> {
    dispatch(topology, call, &[], None, None)
}

/// Sends a callout and returns Envoy's token; `None` if it cannot be sent because Envoy does not have the cluster or no time is
/// left.
fn dispatch(
    topology: &Topology,
    call: &Callout,
    trace: &[(String, String)],
    patience: Option<Duration>,
    deadline: Option<Instant>,
) -> Option<u32> {
    let mut timeout = Duration::from_millis(call.timeout_ms);
    timeout = patience.map_or(timeout, |patience| timeout.min(patience));
    if let Some(deadline) = deadline {
        timeout = timeout.min(deadline.saturating_duration_since(Instant::now()));
        // To Envoy, a timeout of zero milliseconds means no timeout.
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
        // No endpoint is healthy. Envoy reports that itself, and a log line here would repeat it for every request.
        Err(Status::InternalFailure) => None,
        Err(status) => {
            log::warn!(
                "callout to cluster {cluster} cannot be sent: {status:?}; does Envoy have this cluster?"
            );
            None
        }
    }
}

/// The outcome of the callout in Envoy's current callback. A failed callout has no headers, and reading them is not allowed.
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

/// All headers of a map. Envoy keeps names in lower case.
pub fn read_headers(map: MapType) -> Vec<(String, String)> {
    let headers = hostcalls::get_map_bytes(map).unwrap_or_default();
    headers.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect()
}

/// Sends the reply to the stream of the active context.
pub fn send_reply(reply: &Reply) {
    let headers = reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    if let Err(status) = hostcalls::send_http_response(u32::from(reply.status), headers, Some(&reply.body)) {
        log::error!("cannot send a reply: {status:?}");
    }
}
