//! What goes wrong, and ends again.

use super::{
    gateway::Gateway,
    node::DiskTrouble,
    plan::Fault,
    world::{HeldBody, World},
};
use miroir_core::node_name::NodeName;

/// A node that is back so soon, in milliseconds, may not have been missed. With another disk it is read until its next check: a known gap.
const UNSEEN: u64 = 5_000;

/// Something goes wrong now.
pub fn strike(world: &mut World, fault: &Fault) {
    world.note(|| format!("fault: {fault:?}"));
    match fault.clone() {
        Fault::Crash => world.crash("by itself"),
        Fault::CrashAtWrite { writes, death } => world.setup.disk.dies_after(writes, death),
        Fault::StopControl { millis } => world.stop_control(millis),
        Fault::FullLedger { millis } => {
            world.setup.disk.set_full(true);
            world.after(millis, |world| world.setup.disk.set_full(false));
        }
        Fault::ClockJump { seconds } => {
            let by = seconds * 1_000_000_000;
            world.wall += by;
            world.control.iter().for_each(|control| control.set_wall(by));
        }
        Fault::CrashGateway { gateway } => {
            let pause = world.rng.between(50, 2_000);
            Gateway::crash(world, gateway, pause);
        }
        Fault::CrashGatewayAtCall { gateway, calls } => world.gateways[gateway].dies_at_call = Some(calls),
        Fault::StopGateway { gateway, millis } => world.gateways[gateway].stopped_until = world.now + millis,
        Fault::RestartNode { node, millis } => restart(world, &node, millis, false),
        Fault::LoseDisk { node, millis } => {
            let loses_disk = may_lose_disk(world, &node);
            let millis = if loses_disk { millis.max(UNSEEN) } else { millis };
            restart(world, &node, millis, loses_disk);
        }
        Fault::StopNode { node, millis } => {
            let until = world.now + millis;
            world.nodes.get_mut(&node).into_iter().for_each(|node| node.stopped_until = until);
        }
        Fault::SlowNode { node, millis } => {
            set(world, node, millis, |node, is_on| node.slowness = if is_on { 40 } else { 1 });
        }
        Fault::FullNode { node, millis, is_refusing } => {
            let trouble = if is_refusing { DiskTrouble::RefusesTasks } else { DiskTrouble::FailsTasks };
            set(world, node, millis, move |node, is_on| {
                node.disk = if is_on { trouble } else { DiskTrouble::Nothing }
            });
        }
        Fault::OwnTasks { node, tasks } => {
            let now = super::control::START + i64::try_from(world.now).unwrap() * 1_000_000;
            for (_, node) in world.nodes.iter_mut().filter(|it| node.as_ref().is_none_or(|node| node == it.0))
            {
                node.add_own_tasks(tasks, now);
            }
        }
        Fault::Partition { one, other, millis } => {
            let until = world.now + millis;
            world.network.partitions.push((one, other, until));
        }
        Fault::Loss { one_in, millis } => world.network.loss = (world.now + millis, one_in),
        Fault::SlowNetwork { millis } => world.network.slow_until = world.now + millis,
        Fault::Doubled { messages } => world.network.doubled = messages,
        Fault::LateBody { from, node, millis } => {
            world.network.held_bodies.push(HeldBody { from, node, millis })
        }
    }
}

/// Whether the cluster can do without a node's disk now: other nodes have active replicas of all of its shards, on disks that they had
/// when these became active.
fn may_lose_disk(world: &mut World, name: &str) -> bool {
    let Some(control) = &world.control else { return false };
    let state = control.cluster.cluster_state();
    // What is under way may be on this disk only.
    if control.cluster.open.count() > 0 || control.cluster.tracked_tasks.count() > 0 {
        return false;
    }
    let nodes = &world.nodes;
    world.empty_disks.retain(|name| {
        let has_joined = nodes.get(name).is_some_and(|node| node.has_key_named("miroir:read"));
        !has_joined || state.behind.contains(name.as_str()) || !state.stale_on(name).is_empty()
    });
    let stands_in = |node: &NodeName| *node != *name && !world.empty_disks.contains(node.as_str());
    state
        .shards()
        .all(|shard| state.active(shard).any(|node| stands_in(node) && state.has_everything(shard, node)))
}

/// Changes a node now, and back later.
fn set(
    world: &mut World,
    name: String,
    millis: u64,
    change: impl Fn(&mut super::node::Node, bool) + 'static,
) {
    let Some(node) = world.nodes.get_mut(&name) else { return };
    change(node, true);
    world.after(millis, move |world| {
        world.nodes.get_mut(&name).into_iter().for_each(|node| change(node, false));
    });
}

fn restart(world: &mut World, name: &str, millis: u64, loses_disk: bool) {
    let seed = world.setup.seed;
    let Some(node) = world.nodes.get_mut(name).filter(|node| node.is_up) else { return };
    node.stop();
    if loses_disk {
        node.format(seed);
        world.has_lost_disks = true;
        world.empty_disks.insert(name.to_owned());
    }
    let name = name.to_owned();
    world.after(millis, move |world| {
        world.note(|| format!("{name} starts"));
        if let Some(node) = world.nodes.get_mut(&name) {
            node.is_up = true;
            node.stopped_until = 0;
        }
        world.kick(&name);
    });
}
