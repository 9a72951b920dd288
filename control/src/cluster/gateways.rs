//! Gateways: which topology each of their VMs has, and how long it may read by that topology.
//!
//! A VM reports periodically, and each report renews its *lease*. Without a valid lease, a VM must ask the control plane before
//! it reads. So a VM that was suspended asks before it reads again, and an old copy may be deleted as soon as every VM with a
//! valid lease has a newer topology.

use crate::base::time::{Instant, SharedClock};
use miroir_core::{
    node_name::NodeName,
    protocol::{RefusedTopology, Report, ReportReply},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a gateway may take to apply a published topology before that counts as a problem.
const PATIENCE: Duration = Duration::from_secs(3);

/// The gateways' VMs that may have a lease.
#[derive(Debug)]
pub struct Gateways {
    clock: SharedClock,
    lease: Duration,
    /// Set if VMs that are not known may have a lease from before the start: the time of the start. They have one lease's time
    /// to report.
    unknown_since: Option<Instant>,
    vms: Mutex<BTreeMap<String, Vm>>,
    /// Held while the names of VMs are stored, so that the ledger has the newest ones.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Vm {
    at: Instant,
    /// Since when it has its newest topology.
    since: Instant,
    told: Report,
}

impl Vm {
    /// A VM that has not reported yet: it may have any topology.
    fn silent(vm: String, now: Instant) -> Self {
        Self { at: now, since: now, told: Report { vm, needed: Some(0), ..Report::default() } }
    }
}

/// The status of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    /// Its random name.
    pub vm: String,
    /// The oldest topology that a request in the VM still uses.
    pub oldest: u64,
    /// Seconds since its last report.
    pub seconds_ago: u64,
    /// Nodes that have not answered this VM yet.
    #[serde(default)]
    pub unreached: Vec<NodeName>,
    /// Those of the unreached nodes whose cluster is missing in its Envoy.
    #[serde(default)]
    pub without_cluster: Vec<NodeName>,
    /// The newest topology that it has; 0 if its filter does not report it.
    #[serde(default)]
    pub newest: u64,
    /// Its Envoy's name.
    #[serde(default)]
    pub gateway: String,
    /// The configuration that the VM's Envoy has refused since that topology, if any.
    #[serde(default)]
    pub refused: Option<RefusedTopology>,
}

/// A problem of a gateway with the published topology, for operators.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Its Envoy's name.
    pub gateway: String,
    /// The kind: `refused`, `behind`, `unreached`.
    pub kind: String,
    /// A description of the problem.
    pub what: String,
}

impl Gateways {
    /// The state at the start. `known` are the VMs that may have a lease from before the start; `None` if the ledger does not
    /// have them.
    #[must_use]
    pub fn new(lease_ms: u64, known: Option<Vec<String>>, clock: SharedClock) -> Self {
        // A VM's clock may run slower than this one, so leases count as longer here.
        let lease = Duration::from_millis(lease_ms.saturating_mul(3) / 2);
        let now = clock.monotonic();
        let unknown_since = known.is_none().then_some(now);
        let vms = known.into_iter().flatten().map(|vm| (vm.clone(), Vm::silent(vm, now))).collect();
        Self { clock, lease, unknown_since, vms: Mutex::new(vms), storing: tokio::sync::Mutex::default() }
    }

    /// How much longer unknown VMs may have a lease; `None` if there are none.
    #[must_use]
    pub fn unknown_for(&self) -> Option<Duration> {
        self.unknown_since.map(|since| self.lease.saturating_sub(self.clock.since(since)))
    }

    /// Adds a VM to those that may have a lease, before it gets one. If it has none, or its lease is over, `store` first gets the names
    /// of all VMs with a valid lease and its own, to be stored in the ledger.
    ///
    /// # Errors
    /// That of `store`: the VM gets no lease.
    pub async fn admit<E>(
        &self,
        vm: &str,
        store: impl AsyncFnOnce(Vec<String>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.renew(vm) {
            return Ok(());
        }
        let _one = self.storing.lock().await;
        if self.renew(vm) {
            return Ok(());
        }
        let mut names: Vec<String> = {
            let vms = self.vms();
            let lasting = vms.iter().filter(|(_, vm)| self.clock.since(vm.at) < self.lease);
            lasting.map(|(name, _)| name.clone()).collect()
        };
        names.push(vm.to_owned());
        store(names).await?;
        self.vms().insert(vm.to_owned(), Vm::silent(vm.to_owned(), self.clock.monotonic()));
        Ok(())
    }

    /// Makes a VM's lease last from now on. Returns whether it had one.
    fn renew(&self, vm: &str) -> bool {
        let mut vms = self.vms();
        let lasting = vms.get_mut(vm).filter(|vm| self.clock.since(vm.at) < self.lease);
        lasting.map(|vm| vm.at = self.clock.monotonic()).is_some()
    }

    /// Handles a VM's report. Also returns whether the VM's newest topology has changed. `floor` is the oldest version that VMs
    /// may read by.
    #[must_use]
    pub fn report(&self, report: Report, floor: u64) -> (ReportReply, bool) {
        let now = self.clock.monotonic();
        let mut vms = self.vms();
        let before = vms.get(&report.vm);
        let since = before.filter(|vm| vm.told.newest == report.newest).map_or(now, |vm| vm.since);
        if before.is_none_or(|vm| vm.told.refused != report.refused)
            && let Some(refused) = &report.refused
        {
            let (gateway, version, reason) = (&report.gateway, refused.version, &refused.reason);
            tracing::error!(gateway, version, reason, "a gateway refuses a topology");
        }
        let has_another = before.is_none_or(|vm| vm.told.newest != report.newest);
        vms.insert(report.vm.clone(), Vm { at: now, since, told: report });
        (ReportReply { needed: floor, lease: true }, has_another)
    }

    /// Whether no VM with a valid lease uses a topology older than this version.
    #[must_use]
    pub fn confirmed(&self, version: u64) -> bool {
        self.all(|vm| vm.told.oldest >= version)
    }

    /// Whether the condition holds for all VMs with a valid lease; `false` while unknown VMs may have one.
    fn all(&self, is: impl Fn(&Vm) -> bool) -> bool {
        if self.unknown_since.is_some_and(|since| self.clock.since(since) < self.lease) {
            return false;
        }
        let mut vms = self.vms();
        vms.retain(|_, vm| self.clock.since(vm.at) < self.lease);
        vms.values().all(is)
    }

    /// Whether every request that starts now, at any gateway, uses this version or a newer one.
    #[must_use]
    pub fn all_start_with(&self, version: u64) -> bool {
        // A filter of an older build does not report its newest topology, only its oldest one.
        self.all(|vm| vm.told.newest.max(vm.told.oldest) >= version)
    }

    /// The VMs that have not had an answer from this node yet.
    #[must_use]
    pub fn vms_that_cannot_reach(&self, node: &str) -> Vec<String> {
        let vms = self.vms();
        let lasting = vms.iter().filter(|(_, vm)| self.clock.since(vm.at) < self.lease);
        let outside_nodes = lasting.filter(|(_, vm)| vm.told.unreached.iter().any(|name| name == node));
        outside_nodes.map(|(name, _)| name.clone()).collect()
    }

    /// Whether no VM reads by a topology older than this version. A VM may still have an older one, for a running upload or
    /// because it has not got the newer one, if it knows that it must not read by it. A filter of an older build does not
    /// report what it knows: it counts as knowing once a lease has passed since `published`.
    #[must_use]
    pub fn know(&self, version: u64, published: Instant) -> bool {
        let knows = |vm: &Vm| match vm.told.needed {
            Some(needed) => needed >= version,
            None => self.clock.since(published) >= self.lease,
        };
        self.all(|vm| vm.told.oldest >= version || knows(vm))
    }

    /// Whether all VMs with a valid lease know topologies that say which replicas are stale in which index; `None` if none has
    /// reported.
    #[must_use]
    pub fn know_stale_by_index(&self) -> Option<bool> {
        let vms = self.vms();
        let lasting = vms.values().filter(|vm| self.clock.since(vm.at) < self.lease && vm.told.oldest > 0);
        lasting.map(|vm| vm.told.stale_by_index).reduce(|all, knows| all && knows)
    }

    /// Whether a lease has passed since `published`, so that gateways had time to apply it.
    #[must_use]
    pub fn is_late(&self, published: Instant) -> bool {
        self.clock.since(published) >= self.lease
    }

    /// The status of all VMs with a valid lease.
    #[must_use]
    pub fn status(&self) -> Vec<VmStatus> {
        let vms = self.vms();
        // VMs from before the start that have not reported yet are left out.
        let lasting = vms.iter().filter(|(_, vm)| self.clock.since(vm.at) < self.lease && vm.told.oldest > 0);
        let status = lasting.map(|(name, vm)| VmStatus {
            vm: name.clone(),
            oldest: vm.told.oldest,
            seconds_ago: self.clock.since(vm.at).as_secs(),
            unreached: vm.told.unreached.clone(),
            without_cluster: vm.told.without_cluster.clone(),
            newest: vm.told.newest,
            gateway: vm.told.gateway.clone(),
            refused: vm.told.refused.clone(),
        });
        status.collect()
    }

    /// The problems of gateways with a valid lease, without duplicates. `published` is the current version, published `since`
    /// ago.
    #[must_use]
    pub fn troubles(&self, published: u64, since: Duration) -> Vec<Trouble> {
        let vms = self.vms();
        let mut troubles = BTreeSet::new();
        for vm in vms.values().filter(|vm| self.clock.since(vm.at) < self.lease) {
            let told = &vm.told;
            let mut add = |kind: &str, what: String| {
                let gateway = told.gateway.clone();
                troubles.insert(Trouble { gateway, kind: kind.to_owned(), what });
            };
            if let Some(RefusedTopology { version, reason }) = &told.refused {
                let version = version.map_or_else(String::new, |version| format!(" {version}"));
                add("refused", format!("refuses topology{version}: {reason}"));
            }
            let is_behind = told.newest > 0 && told.newest < published;
            if is_behind && since.min(self.clock.since(vm.since)) > PATIENCE {
                let newest = told.newest;
                add(
                    "behind",
                    format!("still has topology {newest} instead of {published}: see its Envoy's log"),
                );
            }
            // A VM that has just got this topology has not reached its nodes yet, and Envoy starts short-lived VMs to validate
            // a configuration: neither is a problem.
            let is_settled = vm.at.saturating_duration_since(vm.since) > PATIENCE;
            for node in told.unreached.iter().filter(|_| is_settled) {
                let why = match told.without_cluster.contains(node) {
                    true => "its Envoy does not have this node's cluster",
                    false => "the node does not answer it",
                };
                add("unreached", format!("does not reach {node}: {why}"));
            }
        }
        troubles.into_iter().collect()
    }

    fn vms(&self) -> MutexGuard<'_, BTreeMap<String, Vm>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
