//! This worker's budget: the memory that it holds for its clients, and the time that a body may take.

use crate::{callouts::send_reply, observed};
use miroir_core::{
    budget::{Budget, OverBudget, client_of},
    error::{ApiError, Code},
    http::Reply,
    topology::Limits,
};
use proxy_wasm::hostcalls;
use std::{cell::RefCell, time::Instant};

thread_local! {
    static BUDGET: RefCell<Budget> = RefCell::default();
    static EPOCH: Instant = Instant::now();
}

fn now() -> u64 {
    EPOCH.with(|epoch| u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Registers the request of the active stream, whose body is about to arrive.
pub fn begin(stream: u32, is_read: bool, limits: &Limits) -> Result<(), OverBudget> {
    let address = hostcalls::get_property(vec!["source", "address"]).ok().flatten().unwrap_or_default();
    let address = String::from_utf8_lossy(&address);
    BUDGET.with_borrow_mut(|budget| budget.begin(stream, client_of(&address), is_read, now(), limits))
}

/// Sets the number of bytes that a request holds now. `active` is the id of the active context. If there is no room, bodies
/// past their deadline are dropped first, then those that arrive slowly.
pub fn charge(active: u32, stream: u32, bytes: u64, limits: &Limits) -> Result<(), OverBudget> {
    let charged = BUDGET.with_borrow_mut(|budget| budget.charge(stream, bytes, limits));
    let charge = || BUDGET.with_borrow_mut(|budget| budget.charge(stream, bytes, limits));
    let charged = match charged {
        Err(OverBudget::Worker | OverBudget::Client) if expire(active) > 0 => charge(),
        charged => charged,
    };
    if charged != Err(OverBudget::Worker) {
        return charged;
    }
    let slow = BUDGET.with_borrow_mut(|budget| budget.make_room(stream, bytes, now(), limits));
    let_go(active, &slow, &too_slow());
    if slow.is_empty() { charged } else { charge() }
}

/// Marks a request's body as complete.
pub fn whole(stream: u32) {
    BUDGET.with_borrow_mut(|budget| budget.whole(stream));
}

/// Releases a request that has its answer, or whose client has left.
pub fn release(stream: u32) {
    // A context may be dropped together with the whole VM.
    let _ = BUDGET.try_with(|budget| budget.borrow_mut().release(stream));
}

/// Answers the requests whose bodies are past their deadline, and returns their number. `active` is the id of the active
/// context.
pub fn expire(active: u32) -> usize {
    let late = BUDGET.with_borrow_mut(|budget| budget.expire(now()));
    let_go(active, &late, &too_late());
    late.len()
}

/// Answers requests whose bodies are no longer awaited.
fn let_go(active: u32, streams: &[u32], reply: &Reply) {
    for stream in streams {
        if hostcalls::set_effective_context(*stream).is_ok() {
            observed::answered("refusal", reply, false);
            send_reply(reply);
        }
    }
    if !streams.is_empty() && hostcalls::set_effective_context(active).is_err() {
        log::error!("cannot return to the context that was active");
    }
}

fn too_slow() -> Reply {
    let message =
        "The body of this request arrives too slowly, and other requests need its memory. Try again.";
    ApiError { status: 408, ..ApiError::new(Code::BAD_REQUEST, message) }.reply()
}

fn too_late() -> Reply {
    let message = "The body of this request has taken too long to arrive (`limits.bodyTimeoutMs`).";
    ApiError { status: 408, ..ApiError::new(Code::BAD_REQUEST, message) }.reply()
}
