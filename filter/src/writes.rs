//! Writes in progress. Their callouts are sent from the root context, so that a client that leaves, or a stream's timeout,
//! cannot stop a write halfway.

use crate::{
    budget,
    callouts::{Driven, drive, send_reply},
    lease,
    observed::Observed,
};
use miroir_core::{
    http::{CallId, Outcome, Reply},
    intake::Collector,
    operation::Operation,
    progress::Progress,
    topology::{Hold, Topology},
};
use proxy_wasm::hostcalls;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// A write in progress.
struct Running {
    operation: Operation,
    observed: Observed,
    /// The hold on the topology that the write began with.
    hold: Hold,
}

/// All writes of one root context.
#[derive(Default)]
pub struct Writes {
    /// The root context's own id.
    root: u32,
    /// The queue that wakes the root context; `None` before it is configured.
    queue: Option<u32>,
    /// Complete payloads that wait for the root context, each with its stream and its start time.
    waiting: VecDeque<(u32, Collector, u64)>,
    /// By stream, which also identifies the operation, because a stream has one write.
    running: HashMap<u32, Running>,
    /// Pending callouts by Envoy's token, each with its stream and its id.
    calls: HashMap<u32, (u32, CallId)>,
    /// Streams whose client is still connected.
    live: HashSet<u32>,
    /// Whether Envoy waits with dropping the root context until no write is in progress.
    leaving: bool,
}

impl Writes {
    pub fn new(root: u32) -> Self {
        Self { root, ..Self::default() }
    }

    /// Creates the queue that wakes the root context; its name must be unique.
    pub fn open_queue(&mut self, name: &str) -> bool {
        self.queue = hostcalls::register_shared_queue(name).ok();
        self.queue.is_some()
    }

    /// Hands a complete payload over to the root context.
    pub fn hand_over(&mut self, stream: u32, collector: Collector, begun: u64) {
        self.live.insert(stream);
        self.waiting.push_back((stream, collector, begun));
        self.wake();
    }

    /// Wakes the root context.
    pub fn wake(&self) {
        let woken = self.queue.map(|queue| hostcalls::enqueue_shared_queue(queue, Some(b"write")));
        if !matches!(woken, Some(Ok(()))) {
            log::error!("the root context cannot be woken: its work waits for the next tick");
        }
    }

    /// Records that the stream's client has left, or has its answer. The write itself goes on.
    pub fn forget_stream(&mut self, stream: u32) {
        self.live.remove(&stream);
        if !self.running.contains_key(&stream) && !self.waiting.iter().any(|(waiting, ..)| *waiting == stream)
        {
            budget::release(stream);
        }
    }

    /// Starts the waiting writes. Call this in the root context.
    pub fn start_waiting(&mut self, topology: &Arc<Topology>) {
        if let Some(queue) = self.queue {
            while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        }
        while let Some((stream, mut collector, begun)) = self.waiting.pop_front() {
            let hold = lease::hold(topology);
            collector.plan_by(Arc::clone(hold.topology()));
            let observed = Observed::new(hold.topology(), &collector, begun);
            let (root, limits) = (self.root, hold.config().limits);
            let progress = collector.finish(|bytes| budget::charge(root, stream, bytes, &limits));
            self.advance(hold, stream, progress, observed);
        }
    }

    /// Called when no stream of this root context is left. Returns whether no write is in progress either; otherwise Envoy is
    /// notified when the last one ends. Call this in the root context.
    pub fn leave(&mut self, topology: &Arc<Topology>) -> bool {
        self.start_waiting(topology);
        self.leaving = !self.running.is_empty();
        !self.leaving
    }

    /// Handles the answer to a callout. Call this in the root context.
    pub fn digest(&mut self, token: u32, outcome: Outcome) {
        let Some((stream, id)) = self.calls.remove(&token) else { return };
        let Some(Running { operation, mut observed, hold }) = self.running.remove(&stream) else { return };
        let progress = observed.digest(operation, id, outcome);
        self.advance(hold, stream, progress, observed);
        if self.leaving && self.running.is_empty() {
            self.leaving = false;
            if let Err(status) = hostcalls::done() {
                log::error!("this configuration cannot be released: {status:?}");
            }
        }
    }

    fn advance(&mut self, hold: Hold, stream: u32, progress: Progress<Operation>, mut observed: Observed) {
        let calls = &mut self.calls;
        match drive(&hold, progress, None, &mut observed, |token, id| {
            calls.insert(token, (stream, id));
        }) {
            Driven::Waiting(operation) => {
                self.running.insert(stream, Running { operation, observed, hold });
            }
            Driven::Done(reply) => {
                budget::release(stream);
                self.answer(stream, &reply, &mut observed);
            }
        }
    }

    fn answer(&mut self, stream: u32, reply: &Reply, observed: &mut Observed) {
        observed.done(reply, false);
        if self.live.remove(&stream) && hostcalls::set_effective_context(stream).is_ok() {
            observed.tell(reply);
            send_reply(reply);
            if let Err(status) = hostcalls::set_effective_context(self.root) {
                log::error!("cannot return to the root context: {status:?}");
            }
        }
    }
}
