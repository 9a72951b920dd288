//! A VM's lease: for how long it may read by the topology that it has, without having heard of the control plane.
//!
//! Every VM reports which topologies it still uses, and each answer grants it a lease. A VM that was stopped finds that its lease is
//! over, and asks before it reads: copies that it knows may be gone. Where the control plane does not answer it goes on, and says so,
//! or does not, as configured.
//!
//! 1. A lease lasts for `limits.leaseMs` from the moment when the report was *sent* that it answers. The control plane counts it from
//!    the moment when the report *came*, and by half as much again: a VM stops before the control plane takes it as stopped.
//! 2. An answer counts once, however often and in whatever order answers come: a late one cannot make a lease longer than the report
//!    that it answers does.
//! 3. What a VM has heard that it needs never gets less: it does not read by an older topology.
//!
//! There is no clock here: `now` is the time since any moment, the same for all calls, by a clock that never goes back.

use crate::{
    http::Outcome,
    protocol::{Report, ReportReply},
    settings_changes::SettingsChanges,
    topology::{Hold, OnLostControl, Topologies, Topology},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How long the control plane may take to answer a report.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long the control plane counts as unreachable after it failed to answer.
const AWAY: Duration = Duration::from_secs(3);

/// The lease of one VM, and the topologies that it uses.
#[derive(Debug, Default)]
pub struct Lease {
    /// Those that are in use.
    topologies: Topologies,
    /// Reports on their way, by the host's token: when they were sent.
    reports: HashMap<u32, Duration>,
    /// When the last report that was answered with a lease was sent.
    granted: Option<Duration>,
    /// Whether any report has been answered, with or without a lease.
    has_heard: bool,
    /// When the control plane last failed to answer.
    lost: Option<Duration>,
    /// The oldest topology version that may still be read by.
    needed: u64,
    /// The changes of indexes' settings, current and recent.
    settings: SettingsChanges,
}

/// Whether a read may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It is allowed; its answer says how many seconds ago the control plane last answered.
    CutOff(u64),
    /// Unknown: ask the control plane first.
    Ask,
    /// It may not use this topology; it must wait for a newer one.
    Outdated,
    /// It may not.
    Refused,
}

/// What to do after the answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReport {
    /// The VM must report once more.
    Again,
    /// Nothing.
    Done,
}

impl Lease {
    /// Puts a topology in force.
    pub fn register(&mut self, topology: &Arc<Topology>) {
        self.topologies.put_in_force(Arc::clone(topology));
        let oldest = self.topologies.oldest(topology);
        self.settings.note(topology, oldest);
    }

    /// Takes a hold on the newest topology of the same cluster, for a new operation.
    #[must_use]
    pub fn hold(&self, topology: &Arc<Topology>) -> Hold {
        let newest = self.topologies.newest(topology);
        newest.unwrap_or_else(|| Hold::unpublished(Arc::clone(topology)))
    }

    /// The value of the settings header for a read of these indexes that began with this topology.
    #[must_use]
    pub fn settings_changes(&self, topology: &Topology, indexes: &[String]) -> Option<String> {
        self.settings.since(topology.version(), indexes)
    }

    /// How often to report.
    #[must_use]
    pub fn period(topology: &Topology) -> Duration {
        Duration::from_millis((topology.config().limits.lease_ms / 5).clamp(50, 1_000))
    }

    /// The report to send now: what the host tells, and what is known here. To be followed by [`Self::sent`] or [`Self::not_sent`].
    #[must_use]
    pub fn report(&self, topology: &Topology, told: Report) -> Report {
        let newest = self.topologies.newest(topology);
        Report {
            oldest: self.topologies.oldest(topology),
            newest: newest.map_or_else(|| topology.version(), |newest| newest.version()),
            needed: Some(self.needed),
            has_heard: Some(self.has_heard),
            stale_by_index: true,
            ..told
        }
    }

    /// A report is on its way under this token. `now` is from before it was sent.
    pub fn sent(&mut self, token: u32, now: Duration) {
        // Contexts that were let go hear no answers.
        self.reports.retain(|_, sent| now.saturating_sub(*sent) < PATIENCE * 4);
        self.reports.insert(token, now);
    }

    /// A report could not be sent: the control plane is away.
    pub fn not_sent(&mut self, now: Duration) {
        self.lost = Some(now);
    }

    /// Whether this token is that of a report on its way.
    #[must_use]
    pub fn awaits(&self, token: u32) -> bool {
        self.reports.contains_key(&token)
    }

    /// Digests the answer to a report; `None` where the token is of something else, or its answer has come before.
    pub fn digest(&mut self, token: u32, outcome: Outcome, now: Duration) -> Option<AfterReport> {
        let sent = self.reports.remove(&token)?;
        let reply = match outcome {
            Outcome::Answered(answer) if answer.status == 200 => ReportReply::from_json(&answer.body),
            _ => None,
        };
        let Some(reply) = reply else {
            // If more time passed than a report can take, this VM was paused, and the control plane is not to blame.
            if now.saturating_sub(sent) < PATIENCE * 2 {
                self.lost = Some(now);
            }
            return Some(AfterReport::Done);
        };
        if reply.lease {
            self.granted = self.granted.max(Some(sent));
        }
        self.has_heard = true;
        self.needed = self.needed.max(reply.needed);
        self.lost = None;
        Some(if reply.lease { AfterReport::Done } else { AfterReport::Again })
    }

    /// Whether a read may use this topology now.
    #[must_use]
    pub fn permission(&self, topology: &Topology, now: Duration) -> Permission {
        let config = topology.config();
        if config.control.is_none() {
            return Permission::Granted;
        }
        if topology.version() < self.needed {
            return Permission::Outdated;
        }
        let heard_ago = self.granted.map(|sent| now.saturating_sub(sent));
        if heard_ago.is_some_and(|ago| ago < Duration::from_millis(config.limits.lease_ms)) {
            return Permission::Granted;
        }
        if self.lost.is_none_or(|lost| now.saturating_sub(lost) > AWAY) {
            return Permission::Ask;
        }
        match config.on_lost_control {
            OnLostControl::Serve => Permission::CutOff(heard_ago.map_or(0, |ago| ago.as_secs())),
            OnLostControl::Refuse => Permission::Refused,
        }
    }
}

#[cfg(test)]
mod tests;
