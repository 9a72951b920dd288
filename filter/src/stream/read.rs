//! Reads: whether they may go on, and their callouts.

use super::{State, Stream};
use crate::{
    budget,
    callouts::{Driven, drive, send_reply},
    latency,
    lease::{self, Permission},
    observed::Observed,
    traces,
};
use miroir_core::{
    error::{ApiError, Code},
    http::Reply,
    intake::Collector,
    operation::Operation,
    progress::Progress,
    settings_changes,
    topology::Hold,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The header that says for how many seconds the control plane has not answered.
const LOST_HEADER: &str = "x-miroir-control-lost";

impl Stream {
    /// Starts the read by the newest topology, once it may read.
    pub(super) fn read_if_allowed(&mut self, mut collector: Box<Collector>) {
        let hold = lease::hold(&self.topology);
        if !Arc::ptr_eq(hold.topology(), &self.topology) {
            self.topology = Arc::clone(hold.topology());
            collector.plan_by(Arc::clone(&self.topology));
        }
        let permission = lease::permission(&hold);
        match permission {
            Permission::Granted => self.read(collector, hold),
            Permission::CutOff(seconds) => {
                self.cut_off = Some(seconds);
                self.read(collector, hold);
            }
            Permission::Ask | Permission::Outdated if self.has_patience() => {
                match lease::report(&self.topology, permission == Permission::Outdated) {
                    Some(token) => self.state = State::Asking(collector, token),
                    // The failed report marks the control plane as unreachable.
                    None if permission == Permission::Ask => self.read_if_allowed(collector),
                    None => self.refuse_outdated(),
                }
            }
            Permission::Ask | Permission::Outdated | Permission::Refused => self.refuse_outdated(),
        }
    }

    /// Whether to ask once more.
    fn has_patience(&mut self) -> bool {
        let limit = Duration::from_millis(self.topology.config().limits.search_timeout_ms);
        self.asking.get_or_insert_with(Instant::now).elapsed() < limit
    }

    fn read(&mut self, collector: Box<Collector>, hold: Hold) {
        self.asking = None;
        self.hold = Some(hold);
        (self.deadline, self.indexes) = (None, Vec::new());
        self.read = collector.again(Arc::clone(&self.topology)).map(Box::new);
        latency::avoid_slow(&self.topology);
        let observed = Observed::new(&self.topology, &collector, self.begun);
        let (own, limits) = (self.context_id, self.topology.config().limits);
        let progress = collector.finish(|bytes| budget::charge(own, own, bytes, &limits));
        self.advance(progress, observed);
    }

    fn refuse_outdated(&mut self) {
        self.leave(&out_of_date());
    }

    /// Whether a pending read may go on; if not, it is started again, or its client gets an error.
    pub(super) fn may_go_on(&mut self) -> bool {
        match lease::permission(&self.topology) {
            Permission::Granted => return true,
            Permission::CutOff(seconds) => {
                self.cut_off = Some(seconds);
                return true;
            }
            Permission::Ask | Permission::Outdated | Permission::Refused => {}
        }
        // The answers to its callouts are no longer needed.
        self.calls.clear();
        self.hold = None;
        self.state = State::Left;
        match self.read.take() {
            Some(read) => self.read_if_allowed(read),
            None => self.refuse_outdated(),
        }
        false
    }

    pub(super) fn advance(&mut self, progress: Progress<Operation>, mut observed: Observed) {
        // While the client's right is being checked, the read has not begun, and has neither a deadline nor indexes.
        if let (Progress::Pending { machine, .. }, None) = (&progress, self.deadline) {
            let time = machine.deadline_ms().map(Duration::from_millis);
            self.deadline = time.and_then(|time| Instant::now().checked_add(time));
            self.indexes = machine.indexes().to_vec();
        }
        let calls = &mut self.calls;
        match drive(&self.topology, progress, self.deadline, &mut observed, |token, id| {
            calls.insert(token, id);
        }) {
            Driven::Waiting(operation) => self.state = State::Waiting(operation, Box::new(observed)),
            Driven::Done(reply) => {
                (self.hold, self.read) = (None, None);
                budget::release(self.context_id);
                let reply = match lease::settings_changes(&self.topology, &self.indexes) {
                    Some(changing) => reply.with_header(settings_changes::HEADER, changing),
                    None => reply,
                };
                observed.done(&reply, self.cut_off.is_some());
                observed.tell(&reply);
                if traces::is_full() {
                    self.writes.borrow().wake();
                }
                send_reply(&match self.cut_off {
                    Some(seconds) => reply.with_header(LOST_HEADER, seconds.to_string()),
                    None => reply,
                });
            }
        }
    }
}

fn out_of_date() -> Reply {
    let message = "The gateway's topology is out of date. Try again.";
    ApiError::new(Code::UNAVAILABLE, message).reply()
}
