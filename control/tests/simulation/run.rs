//! Runs a history from its plan.

use super::{
    check, client,
    control::Setup,
    decisions, faults,
    gateway::Gateway,
    node::Node,
    plan::{BEGIN, Part, Plan},
    random::SeededRandom,
    storage::Disk,
    world::World,
};
use miroir_control::base::{
    config::ClusterFile,
    outbound::{Outbound, Policy},
    secrets::Secrets,
};
use std::sync::Arc;

/// How a history has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What must not have happened.
    pub violations: Vec<String>,
    /// When it ended, in simulated milliseconds.
    pub ended: u64,
    /// What happened, if that was asked for.
    pub history: String,
}

/// Runs a history.
pub fn run(plan: &Plan, outbound: &Outbound, shows: bool) -> Outcome {
    let mut world = World::new(setup(plan, outbound), plan.seed, shows);
    for number in 0..plan.nodes {
        let name = format!("n{number}");
        world.nodes.insert(name.clone(), Node::new(&name, &world.setup.secrets.master_key, plan.seed));
    }
    for number in 0..2 {
        world.gateways.push(Gateway::new(number, 0));
    }
    world.start_control();
    for step in plan.steps.clone() {
        world.after(step.at, move |world| match &step.part {
            Part::Action(action) => client::act(world, &step, action),
            Part::Fault(fault) => faults::strike(world, fault),
        });
    }
    let last = plan.steps.last().map_or(BEGIN, |step| step.at);
    check::judge(&mut world, plan, last + 1_000);
    decisions::judge(&mut world, plan);
    Outcome {
        violations: std::mem::take(&mut world.violations),
        ended: world.now,
        history: world.history.take().unwrap_or_default(),
    }
}

fn setup(plan: &Plan, outbound: &Outbound) -> Setup {
    let nodes: Vec<String> =
        (0..plan.nodes).map(|number| format!("n{number}=http://n{number}:7700")).collect();
    let mut file = ClusterFile::from_flags(&nodes).unwrap();
    file.shards = plan.shards;
    file.replication = plan.replication;
    file.limits.write_timeout_ms = 5_000;
    file.limits.control_timeout_ms = 30_000;
    file.limits.search_timeout_ms = 1_000;
    file.limits.lease_ms = 3_000;
    Setup {
        seed: plan.seed,
        config: file.validate().unwrap(),
        secrets: Secrets {
            master_key: "master".into(),
            gateway_secret: "gateways".into(),
            admin_token: "operators".into(),
        },
        outbound: outbound.clone(),
        random: Arc::new(SeededRandom::new(plan.seed)),
        disk: Disk::new(),
        task_limits: plan.task_limits,
    }
}

/// A client for URLs that clients give. Making one takes longer than a history.
pub fn outbound() -> Outbound {
    Outbound::new(Policy::new(&[])).unwrap()
}
