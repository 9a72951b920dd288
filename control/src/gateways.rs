//! Gateways: which topology each of their VMs has, and for how long it may read by it.
//!
//! A VM reports from its tick, and gets a *lease*. It reads without asking only while the lease lasts; so one that was stopped asks
//! before it reads again, and an old copy may go as soon as every VM whose lease lasts has a newer topology.

use miroir_core::protocol::{Report, ReportReply};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The VMs that have reported.
#[derive(Debug)]
pub struct Gateways {
    lease: Duration,
    /// VMs that have a lease from before may not have reported yet.
    since: Instant,
    vms: Mutex<BTreeMap<String, Vm>>,
}

#[derive(Clone, Debug)]
struct Vm {
    at: Instant,
    oldest: u64,
    unreached: Vec<String>,
    /// It reads by nothing older. Filters of before do not tell.
    needed: Option<u64>,
}

/// A VM at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    /// Its name: random.
    pub vm: String,
    /// The oldest topology that something in it still uses.
    pub oldest: u64,
    /// When it reported, seconds ago.
    pub seconds_ago: u64,
    /// Nodes that have not answered it yet.
    #[serde(default)]
    pub unreached: Vec<String>,
}

impl Gateways {
    /// No VM has reported yet.
    #[must_use]
    pub fn new(lease_ms: u64) -> Self {
        // Their clocks may go a bit slower than this one.
        let lease = Duration::from_millis(lease_ms.saturating_mul(3) / 2);
        Self { lease, since: Instant::now(), vms: Mutex::default() }
    }

    /// Takes a VM's report. `floor`: old copies of before that version may be gone.
    #[must_use]
    pub fn report(&self, report: Report, floor: u64) -> ReportReply {
        let Report { vm, oldest, unreached, needed, .. } = report;
        self.vms().insert(vm, Vm { at: Instant::now(), oldest, unreached, needed });
        ReportReply { needed: floor }
    }

    /// Whether nobody reads by a topology older than this version any more.
    #[must_use]
    pub fn confirmed(&self, version: u64) -> bool {
        self.all(|vm| vm.oldest >= version)
    }

    /// Whether that is so of all VMs whose lease lasts.
    fn all(&self, is: impl Fn(&Vm) -> bool) -> bool {
        if self.since.elapsed() < self.lease {
            return false;
        }
        let mut vms = self.vms();
        vms.retain(|_, vm| vm.at.elapsed() < self.lease);
        vms.values().all(is)
    }

    /// The VMs that a node has not answered yet.
    #[must_use]
    pub fn strangers_to(&self, node: &str) -> Vec<String> {
        let vms = self.vms();
        let lasting = vms.iter().filter(|(_, vm)| vm.at.elapsed() < self.lease);
        let strangers = lasting.filter(|(_, vm)| vm.unreached.iter().any(|name| name == node));
        strangers.map(|(name, _)| name.clone()).collect()
    }

    /// Whether nobody reads by a topology older than this version: who has one, for an upload or because no newer one has come, knows
    /// that it must not. Of filters that do not tell what they know it is believed after a lease since its publication.
    #[must_use]
    pub fn know(&self, version: u64, published: Instant) -> bool {
        let knows = |vm: &Vm| match vm.needed {
            Some(needed) => needed >= version,
            None => published.elapsed() >= self.lease,
        };
        self.all(|vm| vm.oldest >= version || knows(vm))
    }

    /// Whether gateways had the time to take up what was published then.
    #[must_use]
    pub fn is_late(&self, published: Instant) -> bool {
        published.elapsed() >= self.lease
    }

    /// The VMs whose lease lasts.
    #[must_use]
    pub fn status(&self) -> Vec<VmStatus> {
        let vms = self.vms();
        let lasting = vms.iter().filter(|(_, vm)| vm.at.elapsed() < self.lease);
        let status = lasting.map(|(name, vm)| VmStatus {
            vm: name.clone(),
            oldest: vm.oldest,
            seconds_ago: vm.at.elapsed().as_secs(),
            unreached: vm.unreached.clone(),
        });
        status.collect()
    }

    fn vms(&self) -> MutexGuard<'_, BTreeMap<String, Vm>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_copy_may_go_when_all_that_have_a_lease_know() {
        let gateways = Gateways::new(100);
        let report =
            |vm: &str, oldest| gateways.report(Report { vm: vm.into(), oldest, ..Report::default() }, 7);
        assert_eq!(report("a", 3).needed, 7);
        assert!(!gateways.confirmed(3), "others may have a lease from before");
        std::thread::sleep(Duration::from_millis(160));
        let _ = (report("a", 3), report("b", 4));
        assert!(gateways.confirmed(3) && !gateways.confirmed(4));
        std::thread::sleep(Duration::from_millis(100));
        let _ = report("b", 4);
        assert!(!gateways.confirmed(4));
        std::thread::sleep(Duration::from_millis(60));
        assert!(gateways.confirmed(4), "the lease of the first is over");
        assert_eq!(gateways.status().len(), 1);
    }

    #[test]
    fn who_has_an_old_topology_must_know_that_it_is_not_to_be_read_by() {
        let gateways = Gateways::new(100);
        let published = Instant::now();
        let report = |needed| {
            let _ = gateways.report(Report { vm: "a".into(), oldest: 3, needed, ..Report::default() }, 0);
        };
        assert!(!gateways.know(4, published), "others may have a lease from before");
        std::thread::sleep(Duration::from_millis(160));
        report(Some(3));
        assert!(gateways.is_late(published) && !gateways.know(4, published));
        report(Some(4));
        assert!(gateways.know(4, published) && !gateways.confirmed(4));
        report(None);
        assert!(gateways.know(4, published) && !gateways.know(4, Instant::now()));
    }

    #[test]
    fn a_node_is_a_stranger_to_those_that_it_has_not_answered() {
        let gateways = Gateways::new(100);
        let report = |vm: &str, unreached: &[&str]| {
            let unreached = unreached.iter().map(|name| (*name).to_owned()).collect();
            let _ = gateways.report(Report { vm: vm.into(), oldest: 3, unreached, ..Report::default() }, 0);
        };
        report("a", &[]);
        report("b", &["x", "y"]);
        assert_eq!(gateways.strangers_to("y"), ["b"]);
        report("b", &["x"]);
        assert!(gateways.strangers_to("y").is_empty());
        std::thread::sleep(Duration::from_millis(160));
        assert!(gateways.strangers_to("x").is_empty(), "the lease is over");
        let old: Report = serde_json::from_str(r#"{"vm":"c","oldest":1}"#).unwrap();
        assert!(old.unreached.is_empty(), "a filter of before says nothing of nodes");
    }
}
