//! Operations under way: writes and reads.

use super::{Gateway, OnReply, send_to_control};
use crate::{
    node::NodeRequest,
    world::{Party, World},
};
use miroir_core::{
    http::{Answer, CallId, Callout, Outcome, Upstream},
    intake::Collector,
    lease::Permission,
    operation::Operation,
    progress::Progress,
    topology::{Hold, Topology},
};
use std::collections::BTreeSet;

/// An operation under way.
pub(super) struct Running {
    operation: Operation,
    hold: Hold,
    pending: BTreeSet<CallId>,
    is_read: bool,
    pub(super) done: OnReply,
}

impl Gateway {
    pub(super) fn write(world: &mut World, number: usize, mut collector: Collector, done: OnReply) {
        let gateway = &mut world.gateways[number];
        let Some(topology) = gateway.topology.clone() else { return done(world, None) };
        let hold = gateway.lease.hold(&topology);
        collector.plan_by(hold.topology().clone());
        Self::start(world, number, hold, collector.finish(|_| Ok(())), false, done);
    }

    /// Starts a read as soon as the lease allows it.
    pub(super) fn read(
        world: &mut World,
        number: usize,
        mut collector: Box<Collector>,
        until: u64,
        done: OnReply,
    ) {
        let now = Self::now(world);
        let gateway = &mut world.gateways[number];
        let Some(topology) = gateway.topology.clone() else { return done(world, None) };
        let hold = gateway.lease.hold(&topology);
        match gateway.lease.permission(hold.topology(), now) {
            Permission::Granted | Permission::CutOff(_) => {
                collector.plan_by(hold.topology().clone());
                Self::start(world, number, hold, collector.finish(|_| Ok(())), true, done);
            }
            Permission::Refused => done(world, None),
            Permission::Ask | Permission::Outdated if world.now >= until => done(world, None),
            Permission::Ask | Permission::Outdated => {
                let process = gateway.process;
                let then = move |world: &mut World| {
                    world.after(5, move |world| {
                        Self::when_running(world, number, process, move |world| {
                            Self::read(world, number, collector, until, done);
                        });
                    });
                };
                Self::report(world, number, Some(Box::new(then)));
            }
        }
    }

    fn start(
        world: &mut World,
        number: usize,
        hold: Hold,
        progress: Progress<Operation>,
        is_read: bool,
        done: OnReply,
    ) {
        let gateway = &mut world.gateways[number];
        gateway.next += 1;
        let id = gateway.next;
        Self::advance(world, number, id, progress, hold, is_read, done);
    }

    fn advance(
        world: &mut World,
        number: usize,
        id: u64,
        progress: Progress<Operation>,
        hold: Hold,
        is_read: bool,
        done: OnReply,
    ) {
        match progress {
            Progress::Done(reply) => done(world, Some(reply)),
            Progress::Pending { machine: mut operation, calls } => {
                let calls: Vec<(Callout, Vec<u8>)> = calls
                    .into_iter()
                    .map(|mut call| {
                        let body =
                            operation.late_body(call.id).unwrap_or_else(|| std::mem::take(&mut call.body));
                        (call, body)
                    })
                    .collect();
                let topology = hold.topology().clone();
                let mut pending: BTreeSet<CallId> = calls.iter().map(|(call, _)| call.id).collect();
                let gateway = &mut world.gateways[number];
                // Those that are pending from before stay so.
                pending.extend(gateway.running.remove(&id).into_iter().flat_map(|running| running.pending));
                gateway.running.insert(id, Running { operation, hold, pending, is_read, done });
                for (call, body) in calls {
                    if !is_read && Self::dies_at_call(world, number) {
                        return;
                    }
                    Self::send(world, number, id, &topology, call, body);
                }
            }
        }
    }

    fn send(world: &mut World, number: usize, id: u64, topology: &Topology, call: Callout, body: Vec<u8>) {
        let process = world.gateways[number].process;
        let (call_id, timeout) = (call.id, call.timeout_ms);
        let header =
            |name: &str| call.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match call.upstream {
            Upstream::Control => {
                let mut request = send_to_control(topology, call.method, &call.path.to_string(), body);
                request.headers.clone_from(&call.headers);
                Self::ask_control(
                    world,
                    number,
                    process,
                    request,
                    timeout,
                    Box::new(move |world, outcome| {
                        Self::digest(world, number, process, id, call_id, outcome);
                    }),
                );
            }
            Upstream::Node(node) => {
                let name = topology.node(node).map(|node| node.name.to_string()).unwrap_or_default();
                let request = NodeRequest {
                    method: call.method.to_owned(),
                    path: call.path,
                    authorization: header("authorization"),
                    body,
                };
                world.send_to_node(
                    Party::Gateway(number),
                    &name,
                    request,
                    Box::new(move |world, answer| {
                        let outcome = answer.map_or(Outcome::Failed, |(status, body)| {
                            Outcome::Answered(Answer { status, headers: Vec::new(), body: body.into_bytes() })
                        });
                        Self::digest(world, number, process, id, call_id, outcome);
                    }),
                );
                world.after(timeout, move |world| {
                    Self::digest(world, number, process, id, call_id, Outcome::Failed)
                });
            }
        }
    }

    fn digest(world: &mut World, number: usize, process: u64, id: u64, call: CallId, outcome: Outcome) {
        Self::when_running(world, number, process, move |world| {
            let now = Self::now(world);
            let gateway = &mut world.gateways[number];
            let Some(running) = gateway.running.get_mut(&id) else { return };
            if !running.pending.remove(&call) {
                return;
            }
            let Some(Running { operation, hold, pending, is_read, done }) = gateway.running.remove(&id)
            else {
                return;
            };
            // A read must not go on with a topology that it may not use any more.
            let permission = gateway.lease.permission(hold.topology(), now);
            if is_read && !matches!(permission, Permission::Granted | Permission::CutOff(_)) {
                return done(world, None);
            }
            let progress = operation.digest(call, outcome);
            Self::advance_with(world, number, id, progress, hold, pending, is_read, done);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of one operation")]
    fn advance_with(
        world: &mut World,
        number: usize,
        id: u64,
        progress: Progress<Operation>,
        hold: Hold,
        pending: BTreeSet<CallId>,
        is_read: bool,
        done: OnReply,
    ) {
        Self::advance(world, number, id, progress, hold, is_read, done);
        if let Some(running) = world.gateways[number].running.get_mut(&id) {
            running.pending.extend(pending);
        }
    }
}
