//! This VM's lease: for how long it may read by the topology that it has, without having heard of the control plane.
//!
//! Every VM reports which topologies it still uses. A VM that was stopped finds that its lease is over, and asks before it reads:
//! copies that it knows may be gone. Where the control plane does not answer it goes on, and says so, or does not, as configured.

use crate::{callouts::outcome, gateway_name, reach, refusal, vm_name};
use miroir_core::{
    http::Outcome,
    protocol::{REPORT_PATH, Report, ReportReply, SECRET_HEADER},
    settings_changes::SettingsChanges,
    topology::{Hold, OnLostControl, Topologies, Topology},
};
use proxy_wasm::hostcalls;
use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the control plane may take to answer a report.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long it is taken as away, once it has not answered.
const AWAY: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Lease {
    /// Those that are in use.
    topologies: Topologies,
    /// Reports on their way, by Envoy's token: when they were sent.
    reports: HashMap<u32, Instant>,
    /// When the last report that was answered was sent.
    heard: Option<Instant>,
    /// Some report has been answered, with a lease or without.
    has_heard: bool,
    /// When it turned out that the control plane does not answer.
    lost: Option<Instant>,
    /// Older topologies must not be read by.
    needed: u64,
    /// Whose settings are being changed, or were.
    settings: SettingsChanges,
}

thread_local! {
    static LEASE: RefCell<Lease> = RefCell::default();
}

/// Whether a read may go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It may, and its answer says how many seconds ago the control plane was heard.
    CutOff(u64),
    /// Nobody knows: the control plane is to be asked.
    Ask,
    /// It may not by this topology: by a newer one, once that is here.
    Outdated,
    /// It may not.
    Refused,
}

/// A topology is in force from now on.
pub fn register(topology: &Arc<Topology>) {
    LEASE.with_borrow_mut(|lease| {
        lease.topologies.put_in_force(Arc::clone(topology));
        let oldest = lease.topologies.oldest(topology);
        lease.settings.note(topology, oldest);
    });
}

/// Holds the newest topology of the same cluster, for an operation that begins.
pub fn hold(topology: &Arc<Topology>) -> Hold {
    let newest = LEASE.with_borrow(|lease| lease.topologies.newest(topology));
    newest.unwrap_or_else(|| Hold::unpublished(Arc::clone(topology)))
}

/// What the answer to a read of these indexes says of changes of their settings since it began by this topology.
pub fn settings_changes(topology: &Topology, indexes: &[String]) -> Option<String> {
    LEASE.with_borrow(|lease| lease.settings.since(topology.version(), indexes))
}

/// How often to report.
pub fn period(topology: &Topology) -> Duration {
    Duration::from_millis((topology.config().limits.lease_ms / 5).clamp(50, 1_000))
}

/// Sends a report from the context that is active now; gives Envoy's token. `waits`: a read waits for a newer topology, and asks
/// again after that.
pub fn report(topology: &Topology, waits: bool) -> Option<u32> {
    let control = topology.config().control.as_ref()?;
    let (oldest, newest, needed, has_heard) = LEASE.with_borrow_mut(|lease| {
        // A context that was let go hears no answers.
        lease.reports.retain(|_, sent| sent.elapsed() < PATIENCE * 4);
        let (oldest, newest) = (lease.topologies.oldest(topology), lease.topologies.newest(topology));
        (oldest, newest, lease.needed, lease.has_heard)
    });
    let (unreached, without_cluster) = reach::unreached(topology);
    let report = Report {
        vm: vm_name(),
        oldest,
        newest: newest.map_or_else(|| topology.version(), |newest| newest.version()),
        unreached,
        without_cluster,
        gateway: gateway_name(),
        refused: refusal::last(),
        needed: Some(needed),
        has_heard: Some(has_heard),
        waits,
    };
    let body = report.to_json();
    let headers = vec![
        (":method", "POST"),
        (":path", REPORT_PATH),
        (":authority", "miroir"),
        ("content-type", "application/json"),
        (SECRET_HEADER, &*control.secret),
    ];
    let sent = hostcalls::dispatch_http_call(&control.cluster, headers, Some(&body), Vec::new(), PATIENCE);
    let now = Instant::now();
    LEASE.with_borrow_mut(|lease| match sent {
        Ok(token) => {
            lease.reports.insert(token, now);
            Some(token)
        }
        Err(_) => {
            lease.lost = Some(now);
            None
        }
    })
}

/// What the answer to a report is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The VM is to report once more.
    Again,
    /// Nothing more is to be done.
    Done,
}

/// Digests the answer to a report; `None` where the token is of something else.
pub fn digest(token: u32, headers: usize, body_size: usize) -> Option<Heard> {
    let sent = LEASE.with_borrow_mut(|lease| lease.reports.remove(&token))?;
    let reply = match outcome(headers, body_size) {
        Outcome::Answered(answer) if answer.status == 200 => ReportReply::from_json(&answer.body),
        _ => None,
    };
    LEASE.with_borrow_mut(|lease| match reply {
        Some(reply) => {
            if reply.lease {
                lease.heard = lease.heard.max(Some(sent));
            }
            lease.has_heard = true;
            lease.needed = lease.needed.max(reply.needed);
            lease.lost = None;
        }
        // After longer than it can take, it is this VM that was stopped.
        None if sent.elapsed() < PATIENCE * 2 => lease.lost = Some(Instant::now()),
        None => {}
    });
    Some(if reply.is_some_and(|reply| !reply.lease) { Heard::Again } else { Heard::Done })
}

/// Whether to read by a topology now.
pub fn permission(topology: &Topology) -> Permission {
    let config = topology.config();
    if config.control.is_none() {
        return Permission::Granted;
    }
    LEASE.with_borrow(|lease| {
        if topology.version() < lease.needed {
            return Permission::Outdated;
        }
        if lease.heard.is_some_and(|heard| heard.elapsed() < Duration::from_millis(config.limits.lease_ms)) {
            return Permission::Granted;
        }
        if lease.lost.is_none_or(|lost| lost.elapsed() > AWAY) {
            return Permission::Ask;
        }
        match config.on_lost_control {
            OnLostControl::Serve => {
                Permission::CutOff(lease.heard.map_or(0, |heard| heard.elapsed().as_secs()))
            }
            OnLostControl::Refuse => Permission::Refused,
        }
    })
}
