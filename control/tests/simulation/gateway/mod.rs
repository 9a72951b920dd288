//! A model of a gateway: core's machines of writes, reads and leases, carried by the simulation as the filter carries them by Envoy.

mod operation;
mod report;

use super::{
    control::{ControlReply, ControlRequest},
    world::{Party, World},
};
use miroir_core::{
    http::{Answer, Outcome, Reply, RequestHead},
    intake::Intake,
    lease::Lease,
    protocol::SECRET_HEADER,
    topology::{Topology, TopologyConfig},
};
use operation::Running;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// What to do with the reply to a client; `None` where the connection broke.
pub type OnReply = Box<dyn FnOnce(&mut World, Option<Reply>)>;

/// What to do with the outcome of a request.
type OnOutcome = Box<dyn FnOnce(&mut World, Outcome)>;

/// How long Envoy's router waits for the control plane, in milliseconds.
const ROUTE_TIMEOUT: u64 = 60_000;

/// How long a client waits, in milliseconds.
const CLIENT_TIMEOUT: u64 = 70_000;

/// A gateway with one worker.
pub struct Gateway {
    /// The name of its worker's VM.
    vm: String,
    lease: Lease,
    topology: Option<Arc<Topology>>,
    running: BTreeMap<u64, Running>,
    next: u64,
    next_report: u32,
    reached: BTreeSet<String>,
    /// Its process: answers to an earlier one go nowhere.
    process: u64,
    pub is_up: bool,
    /// It dies when it sends a request of a write, after so many.
    pub dies_at_call: Option<u64>,
    pub stopped_until: u64,
}

impl Gateway {
    /// A gateway that has no topology yet.
    pub fn new(number: usize, process: u64) -> Self {
        Self {
            vm: format!("vm{number}-{process}"),
            lease: Lease::default(),
            topology: None,
            running: BTreeMap::new(),
            next: 0,
            next_report: 0,
            reached: BTreeSet::new(),
            process,
            is_up: true,
            dies_at_call: None,
            stopped_until: 0,
        }
    }

    /// Kills it, and starts another in its place.
    pub fn crash(world: &mut World, number: usize, pause: u64) {
        let gateway = &mut world.gateways[number];
        if !gateway.is_up {
            return;
        }
        gateway.is_up = false;
        gateway.process += 1;
        let process = gateway.process;
        let running = std::mem::take(&mut gateway.running);
        world.note(|| format!("gateway {number} dies"));
        for running in running.into_values() {
            (running.done)(world, None);
        }
        world.after(pause, move |world| {
            world.note(|| format!("gateway {number} starts"));
            world.gateways[number] = Self::new(number, process);
            // Envoy reads the configuration from the files that it watches.
            if let Some(config) = world.published.clone() {
                Self::take_topology(world, number, config);
            }
        });
    }

    /// Whether it dies instead of sending a request of a write.
    fn dies_at_call(world: &mut World, number: usize) -> bool {
        let Some(left) = &mut world.gateways[number].dies_at_call else { return false };
        if let Some(less) = left.checked_sub(1) {
            *left = less;
            return false;
        }
        let pause = world.rng.between(50, 2_000);
        Self::crash(world, number, pause);
        true
    }

    /// A topology arrives.
    pub fn take_topology(world: &mut World, number: usize, config: TopologyConfig) {
        let (now, gateway) = (world.now, &mut world.gateways[number]);
        if !gateway.is_up || gateway.topology.as_ref().is_some_and(|known| known.version() >= config.version)
        {
            return;
        }
        if now < gateway.stopped_until {
            let left = gateway.stopped_until - now;
            world.after(left, move |world| Self::take_topology(world, number, config));
            return;
        }
        let version = config.version;
        let topology = match Topology::validate(config) {
            Ok(topology) => Arc::new(topology),
            Err(error) => {
                world.violations.push(format!("gateway {number} refuses topology {version}: {error}"));
                return;
            }
        };
        let is_first = gateway.topology.is_none();
        gateway.lease.register(&topology);
        gateway.topology = Some(topology);
        let process = gateway.process;
        world.note(|| format!("gateway {number} has topology {version}"));
        Self::ask_nodes(world, number);
        Self::report(world, number, None);
        if is_first {
            Self::tick(world, number, process);
        }
    }

    fn now(world: &World) -> Duration {
        Duration::from_millis(world.now)
    }

    /// Sends a request to the control plane, with a timeout. If this gateway's process has ended meanwhile, nothing is heard of it.
    fn ask_control(
        world: &mut World,
        number: usize,
        process: u64,
        request: ControlRequest,
        timeout: u64,
        done: OnOutcome,
    ) {
        let once = Rc::new(RefCell::new(Some(done)));
        let late = once.clone();
        world.send_to_control(
            Party::Gateway(number),
            request,
            Box::new(move |world, reply: Option<ControlReply>| {
                let outcome = reply.map_or(Outcome::Failed, |ControlReply { status, body }| {
                    Outcome::Answered(Answer { status, headers: Vec::new(), body })
                });
                Self::when_running(world, number, process, move |world| {
                    let done = once.borrow_mut().take();
                    done.into_iter().for_each(|done| done(world, outcome.clone()));
                });
            }),
        );
        world.after(timeout, move |world| {
            Self::when_running(world, number, process, move |world| {
                let done = late.borrow_mut().take();
                done.into_iter().for_each(|done| done(world, Outcome::Failed));
            });
        });
    }

    /// Does something now, or as soon as the gateway's process goes on; not at all if that has ended.
    fn when_running(world: &mut World, number: usize, process: u64, work: impl FnOnce(&mut World) + 'static) {
        let gateway = &world.gateways[number];
        if !gateway.is_up || gateway.process != process {
            return;
        }
        if world.now < gateway.stopped_until {
            let left = gateway.stopped_until - world.now;
            world.after(left, move |world| Self::when_running(world, number, process, work));
            return;
        }
        work(world);
    }

    /// A client's request comes in. It waits for its reply for a limited time.
    pub fn request(world: &mut World, number: usize, head: RequestHead, body: Vec<u8>, done: OnReply) {
        let once = Rc::new(RefCell::new(Some(done)));
        let late = once.clone();
        let done = move |world: &mut World, reply: Option<Reply>| {
            let done = once.borrow_mut().take();
            done.into_iter().for_each(|done| done(world, reply.clone()));
        };
        Self::take(world, number, head, body, Box::new(done));
        world.after(CLIENT_TIMEOUT, move |world| {
            let done = late.borrow_mut().take();
            done.into_iter().for_each(|done| done(world, None));
        });
    }

    fn take(world: &mut World, number: usize, head: RequestHead, body: Vec<u8>, done: OnReply) {
        let gateway = &world.gateways[number];
        let Some(topology) = gateway.topology.clone().filter(|_| gateway.is_up) else {
            world.after(1, move |world| done(world, None));
            return;
        };
        let process = gateway.process;
        if world.now < gateway.stopped_until {
            let left = gateway.stopped_until - world.now;
            world.after(left, move |world| {
                if world.gateways[number].process == process {
                    Self::take(world, number, head, body, done);
                } else {
                    done(world, None);
                }
            });
            return;
        }
        match Intake::of(topology, &gateway.vm, head.clone()) {
            Intake::Reply(reply) => done(world, Some(reply)),
            Intake::Pass => {
                let request = ControlRequest {
                    method: head.method,
                    path: head.path.to_string(),
                    headers: head.headers,
                    body,
                };
                Self::pass(world, number, process, request, done);
            }
            Intake::Collect(mut collector) => {
                if let Err(reply) = collector.push(&body) {
                    done(world, Some(*reply));
                } else if collector.is_read() {
                    let until = world.now + 5_000;
                    Self::read(world, number, collector, until, done);
                } else {
                    Self::write(world, number, *collector, done);
                }
            }
        }
    }

    fn pass(world: &mut World, number: usize, process: u64, request: ControlRequest, done: OnReply) {
        let once = Rc::new(RefCell::new(Some(done)));
        let late = once.clone();
        world.send_to_control(
            Party::Gateway(number),
            request,
            Box::new(move |world, reply| {
                let is_there = world.gateways[number].process == process;
                let reply = reply.filter(|_| is_there).map(|it| Reply {
                    status: it.status,
                    headers: Vec::new(),
                    body: it.body,
                });
                let done = once.borrow_mut().take();
                done.into_iter().for_each(|done| done(world, reply.clone()));
            }),
        );
        world.after(ROUTE_TIMEOUT, move |world| {
            let done = late.borrow_mut().take();
            done.into_iter().for_each(|done| done(world, None));
        });
    }
}

/// A request of a gateway's own to the control plane.
fn send_to_control(topology: &Topology, method: &str, path: &str, body: Vec<u8>) -> ControlRequest {
    let secret =
        topology.config().control.as_ref().map(|control| (SECRET_HEADER.to_owned(), control.secret.clone()));
    let headers =
        secret.into_iter().chain([("content-type".to_owned(), "application/json".to_owned())]).collect();
    ControlRequest { method: method.to_owned(), path: path.to_owned(), headers, body }
}
