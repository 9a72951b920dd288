//! Where this VM keeps its [`Lease`]: it outlives configurations and streams, and hears the time and the answers from here.

use crate::{callouts::outcome, gateway_name, reachability, refused_topology, vm_name};
pub use miroir_core::lease::{AfterReport, Permission};
use miroir_core::{
    lease::{Lease, PATIENCE},
    protocol::{REPORT_PATH, Report, SECRET_HEADER},
    topology::{Hold, Topology},
};
use proxy_wasm::hostcalls;
use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

thread_local! {
    static LEASE: RefCell<Lease> = RefCell::default();
    /// Since when the lease's time is counted.
    static START: Instant = Instant::now();
}

fn now() -> Duration {
    START.with(Instant::elapsed)
}

/// Puts a topology in force.
pub fn register(topology: &Arc<Topology>) {
    LEASE.with_borrow_mut(|lease| lease.register(topology));
}

/// Takes a hold on the newest topology of the same cluster, for a new operation.
pub fn hold(topology: &Arc<Topology>) -> Hold {
    LEASE.with_borrow(|lease| lease.hold(topology))
}

/// The value of the settings header for a read of these indexes that began with this topology.
pub fn settings_changes(topology: &Topology, indexes: &[String]) -> Option<String> {
    LEASE.with_borrow(|lease| lease.settings_changes(topology, indexes))
}

/// Sends a report from the active context, and returns Envoy's token. With `waits`, a read waits for a newer topology; it asks
/// again after the answer.
pub fn report(topology: &Topology, waits: bool) -> Option<u32> {
    let control = topology.config().control.as_ref()?;
    let (unreached, without_cluster) = reachability::unreached(topology);
    let (vm, gateway, refused) = (vm_name(), gateway_name(), refused_topology::last());
    let told = Report { vm, gateway, refused, unreached, without_cluster, waits, ..Report::default() };
    let body = LEASE.with_borrow(|lease| lease.report(topology, told)).to_json();
    let headers = vec![
        (":method", "POST"),
        (":path", REPORT_PATH),
        (":authority", "miroir"),
        ("content-type", "application/json"),
        (SECRET_HEADER, &*control.secret),
    ];
    let now = now();
    let sent = hostcalls::dispatch_http_call(&control.cluster, headers, Some(&body), Vec::new(), PATIENCE);
    LEASE.with_borrow_mut(|lease| match sent {
        Ok(token) => lease.sent(token, now),
        Err(_) => lease.not_sent(now),
    });
    sent.ok()
}

/// Handles the answer to a report; `None` if the token belongs to something else.
pub fn digest(token: u32, headers: usize, body_size: usize) -> Option<AfterReport> {
    if !LEASE.with_borrow(|lease| lease.awaits(token)) {
        return None;
    }
    let outcome = outcome(headers, body_size);
    LEASE.with_borrow_mut(|lease| lease.digest(token, outcome, now()))
}

/// Whether a read may use this topology now.
pub fn permission(topology: &Topology) -> Permission {
    LEASE.with_borrow(|lease| lease.permission(topology, now()))
}
