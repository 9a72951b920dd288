//! Limits on what one worker holds for its clients at once: the bytes of request bodies, and the number of reads in progress.
//!
//! The budget charges a request only for bytes that have arrived, as received and as decoded. An announced `Content-Length`
//! reserves nothing.

use crate::{
    error::{ApiError, Code},
    topology::Limits,
};
use std::collections::HashMap;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// The worker holds as many bytes as it may.
    Worker,
    /// This client holds as many bytes as one client may.
    Client,
    /// This request alone needs more bytes than one client may have: that many.
    Request(u64),
    /// This client has as many reads in progress as it may: that many.
    Reads(u64),
}

/// The budget of one worker. Clients are told apart by their addresses.
#[derive(Debug, Default)]
pub struct Budget {
    streams: HashMap<u32, Stream>,
    clients: HashMap<String, Client>,
    total: u64,
}

/// A body that has been coming in for this long may count as slow, in milliseconds.
const SLOW_AFTER_MS: u64 = 2_000;
/// A body with a lower average rate than this gives its memory up to other requests, in bytes a second.
const SLOW: u64 = 32 << 10;

#[derive(Debug)]
struct Stream {
    client: String,
    bytes: u64,
    is_read: bool,
    /// When the request began, in milliseconds.
    began: u64,
    /// When the body has to be complete, in milliseconds; `None` once it is complete.
    deadline: Option<u64>,
}

#[derive(Debug, Default)]
struct Client {
    streams: u64,
    bytes: u64,
    reads: u64,
}

impl Budget {
    /// Registers a request whose body is about to come in. `now` is in milliseconds. The caller must [release](Self::release)
    /// it in every case.
    ///
    /// # Errors
    /// The request is a read, and the client has as many reads in progress as it may.
    pub fn begin(
        &mut self,
        stream: u32,
        client: &str,
        is_read: bool,
        now: u64,
        limits: &Limits,
    ) -> Result<(), OverBudget> {
        self.release(stream);
        let reads = self.clients.get(client).map_or(0, |client| client.reads);
        if is_read && reads >= limits.max_reads_per_client {
            return Err(OverBudget::Reads(limits.max_reads_per_client));
        }
        let of_client = self.clients.entry(client.to_owned()).or_default();
        of_client.streams += 1;
        of_client.reads += u64::from(is_read);
        let deadline = Some(now.saturating_add(limits.body_timeout_ms));
        self.streams
            .insert(stream, Stream { client: client.to_owned(), bytes: 0, is_read, began: now, deadline });
        Ok(())
    }

    /// Sets the number of bytes that a request holds now.
    ///
    /// # Errors
    /// The request may not hold that many; the budget is unchanged.
    pub fn charge(&mut self, stream: u32, bytes: u64, limits: &Limits) -> Result<(), OverBudget> {
        let Some(entry) = self.streams.get_mut(&stream) else { return Ok(()) };
        let Some(client) = self.clients.get_mut(&entry.client) else { return Ok(()) };
        let swap = |held: u64| held.saturating_sub(entry.bytes).saturating_add(bytes);
        let (total, of_client) = (swap(self.total), swap(client.bytes));
        if bytes > entry.bytes {
            let share = limits.buffered_bytes_per_client();
            if bytes > share {
                return Err(OverBudget::Request(share));
            }
            if of_client > share {
                return Err(OverBudget::Client);
            }
            if total > limits.max_buffered_bytes {
                return Err(OverBudget::Worker);
            }
        }
        entry.bytes = bytes;
        client.bytes = of_client;
        self.total = total;
        Ok(())
    }

    /// Marks a request's body as complete.
    pub fn whole(&mut self, stream: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.deadline = None;
        }
    }

    /// Releases the requests whose bodies are past their deadline, and returns them.
    pub fn expire(&mut self, now: u64) -> Vec<u32> {
        let late = self.streams.iter().filter(|(_, stream)| stream.deadline.is_some_and(|by| by <= now));
        let mut late: Vec<u32> = late.map(|(stream, _)| *stream).collect();
        late.sort_unstable();
        late.iter().for_each(|stream| self.release(*stream));
        late
    }

    /// Makes room for a request that needs this many bytes when the worker is full: releases bodies that stall or trickle in,
    /// the slowest first, and returns their requests. A request never evicts itself.
    pub fn make_room(&mut self, stream: u32, bytes: u64, now: u64, limits: &Limits) -> Vec<u32> {
        let held = self.streams.get(&stream).map_or(0, |stream| stream.bytes);
        let wanted =
            self.total.saturating_sub(held).saturating_add(bytes).saturating_sub(limits.max_buffered_bytes);
        let rate =
            |stream: &Stream| stream.bytes.saturating_mul(1_000) / now.saturating_sub(stream.began).max(1);
        let is_slow = |stream: &Stream| {
            stream.deadline.is_some()
                && now.saturating_sub(stream.began) >= SLOW_AFTER_MS
                && rate(stream) < SLOW
        };
        let others =
            self.streams.iter().filter(|(other, it)| **other != stream && it.bytes > 0 && is_slow(it));
        let mut slow: Vec<(u64, u32, u64)> = others.map(|(other, it)| (rate(it), *other, it.bytes)).collect();
        slow.sort_unstable();
        let mut freed = 0;
        let gone = slow.into_iter().take_while(|(_, _, bytes)| {
            let goes = freed < wanted;
            freed += bytes;
            goes
        });
        let gone: Vec<u32> = gone.map(|(_, other, _)| other).collect();
        gone.iter().for_each(|other| self.release(*other));
        gone
    }

    /// Forgets a request that is over, or whose body is dropped.
    pub fn release(&mut self, stream: u32) {
        let Some(stream) = self.streams.remove(&stream) else { return };
        self.total = self.total.saturating_sub(stream.bytes);
        let Some(client) = self.clients.get_mut(&stream.client) else { return };
        client.streams = client.streams.saturating_sub(1);
        client.bytes = client.bytes.saturating_sub(stream.bytes);
        client.reads = client.reads.saturating_sub(u64::from(stream.is_read));
        if client.streams == 0 {
            self.clients.remove(&stream.client);
        }
    }

    /// Bytes that the worker holds in total.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.total
    }
}

impl OverBudget {
    /// The error for the client: 413 if a retry cannot help, 429 if the client itself uses up its share, otherwise 503.
    #[must_use]
    pub fn error(self) -> ApiError {
        match self {
            Self::Worker => {
                let message = "The gateway has no memory left for payloads. Try again later.";
                ApiError::new(Code::UNAVAILABLE, message)
            }
            Self::Client => {
                let message = "This client uses all the memory that one client may have. Wait for your other requests to end, \
                               then try again.";
                ApiError { status: 429, ..ApiError::new(Code::TOO_MANY_SEARCH_REQUESTS, message) }
            }
            Self::Request(share) => {
                let message = format!(
                    "This request needs more than the {share} bytes of the gateway's memory that one client may have \
                     (`limits.maxBufferedBytesPerClient`). Send it in parts."
                );
                ApiError::new(Code::PAYLOAD_TOO_LARGE, message)
            }
            // Meilisearch's own message, with another limit.
            Self::Reads(most) => {
                let message =
                    format!("Too many search requests running at the same time: {most}. Retry after 10s.");
                ApiError { status: 429, ..ApiError::new(Code::TOO_MANY_SEARCH_REQUESTS, message) }
            }
        }
    }
}

/// How the budget identifies a client: its address without the port.
#[must_use]
pub fn client_of(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn limits() -> Limits {
        Limits {
            max_payload_bytes: 100,
            max_buffered_bytes: 250,
            max_buffered_bytes_per_client: Some(120),
            max_reads_per_client: 2,
            body_timeout_ms: 1_000,
            ..Limits::default()
        }
    }

    #[test]
    fn bytes_are_charged_to_the_request_the_client_and_the_worker() {
        let (limits, mut budget) = (limits(), Budget::default());
        for (stream, client) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            budget.begin(stream, client, false, 0, &limits).unwrap();
        }
        assert_eq!(budget.charge(1, 121, &limits), Err(OverBudget::Request(120)));
        budget.charge(1, 100, &limits).unwrap();
        assert_eq!(budget.charge(2, 21, &limits), Err(OverBudget::Client));
        budget.charge(2, 20, &limits).unwrap();
        budget.charge(3, 120, &limits).unwrap();
        assert_eq!(budget.charge(4, 11, &limits), Err(OverBudget::Worker));
        budget.charge(4, 10, &limits).unwrap();
        assert_eq!(budget.held(), 250);
        // Charging less always succeeds, and makes room for others.
        budget.charge(3, 20, &limits).unwrap();
        budget.charge(4, 110, &limits).unwrap();
        for stream in 1..5 {
            budget.release(stream);
            budget.release(stream);
        }
        assert_eq!((budget.held(), budget.clients.len(), budget.streams.len()), (0, 0, 0));
    }

    #[test]
    fn a_client_has_so_many_reads_and_any_number_of_writes() {
        let (limits, mut budget) = (limits(), Budget::default());
        budget.begin(1, "a", true, 0, &limits).unwrap();
        budget.begin(2, "a", true, 0, &limits).unwrap();
        assert_eq!(budget.begin(3, "a", true, 0, &limits), Err(OverBudget::Reads(2)));
        budget.begin(4, "a", false, 0, &limits).unwrap();
        budget.begin(5, "b", true, 0, &limits).unwrap();
        budget.release(1);
        budget.begin(3, "a", true, 0, &limits).unwrap();
        let refused = OverBudget::Reads(2).error().reply();
        assert_eq!(refused.status, 429);
        assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"));
    }

    #[test]
    fn a_body_that_does_not_come_is_let_go() {
        let (limits, mut budget) = (limits(), Budget::default());
        for (stream, now) in [(1, 0), (2, 0), (3, 500)] {
            budget.begin(stream, "a", false, now, &limits).unwrap();
            budget.charge(stream, 40, &limits).unwrap();
        }
        budget.whole(2);
        assert_eq!(budget.expire(999), [0_u32; 0]);
        assert_eq!(budget.expire(1_000), [1]);
        assert_eq!(budget.held(), 80);
        assert_eq!(budget.expire(5_000), [3]);
        assert_eq!(budget.held(), 40);
    }

    #[test]
    fn bodies_that_stall_give_way_where_the_worker_is_full() {
        let (limits, mut budget) = (Limits { max_buffered_bytes: 250 << 10, ..limits() }, Budget::default());
        let limits = Limits { max_buffered_bytes_per_client: Some(200 << 10), ..limits };
        for (stream, client, kibibytes) in [(1, "a", 90), (2, "b", 60), (3, "c", 100)] {
            budget.begin(stream, client, true, 0, &limits).unwrap();
            budget.charge(stream, kibibytes << 10, &limits).unwrap();
        }
        budget.whole(3);
        budget.begin(4, "d", true, 9_000, &limits).unwrap();
        assert_eq!(budget.charge(4, 50 << 10, &limits), Err(OverBudget::Worker));
        assert_eq!(budget.make_room(4, 50 << 10, 1_900, &limits), [0_u32; 0], "nobody is slow yet");
        // The first two come in at 10 and 6.7 KiB a second; the third body is complete.
        assert_eq!(budget.make_room(4, 50 << 10, 9_000, &limits), [2]);
        budget.charge(4, 50 << 10, &limits).unwrap();
        assert_eq!(budget.make_room(4, 100 << 10, 9_000, &limits), [1]);
        budget.begin(5, "e", true, 9_000, &limits).unwrap();
        budget.charge(5, 100 << 10, &limits).unwrap();
        assert_eq!(
            budget.make_room(4, 100 << 10, 12_000, &limits),
            [0_u32; 0],
            "33 KiB a second is not slow"
        );
    }

    #[test]
    fn clients_are_told_apart_by_their_addresses() {
        for (address, client) in
            [("10.0.0.1:4711", "10.0.0.1"), ("[::1]:80", "[::1]"), ("/run/socket", "/run/socket"), ("", "")]
        {
            assert_eq!(client_of(address), client);
        }
    }
}
