//! How fast nodes answer this worker's reads, so that no read waits for a node that is slow or hangs while others have its shards.
//!
//! Envoy takes a node that hangs out of use after some health checks, which takes seconds. A worker knows it sooner: by a request that the
//! node has not answered for much longer than it usually needs.

use crate::metrics;
use miroir_core::{http::Outcome, node_name::NodeName, topology::Topology};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// A node that has not answered for this long may be slow; below, waiting costs less than asking others.
const SHORTEST: Duration = Duration::from_millis(150);
/// A node that has not answered for this long is slow, however slow it is usually.
const LONGEST: Duration = Duration::from_secs(1);
/// A node is slow that has not answered for so many times as long as for 19 of 20 requests.
const PATIENCE: u32 = 4;
/// A node is slow whose median is so many times that of the fastest node, and [`MARGIN`] more.
const RATIO: u32 = 3;
const MARGIN: Duration = Duration::from_millis(10);
/// The number of answers from which on a node's median counts.
const ENOUGH: u32 = 16;
/// A request is given up that has waited for so many times as long as 19 of 20 others took, if others can answer it.
const LAST_PATIENCE: u32 = 8;
/// The shortest time after which a request is given up so.
const SHORTEST_LAST: Duration = Duration::from_millis(250);
/// At most one request of so many is given up so.
const ONE_OF: u32 = 20;
/// So many of them may follow each other.
const AT_ONCE: u32 = 10;
/// How long a node is avoided after it has failed or was slow; then a single read tries it.
const AVOIDED: Duration = Duration::from_secs(1);

thread_local! {
    static NODES: RefCell<HashMap<NodeName, Times>> = RefCell::default();

    /// Grows with each request; one that is given up costs [`ONE_OF`].
    static BUDGET: Cell<u32> = const { Cell::new(ONE_OF * AT_ONCE) };
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Times {
    /// The requests that it has not answered, in their order.
    waiting: BTreeMap<u64, Instant>,
    next: u64,
    answers: u32,
    /// An estimate of the median.
    median: Duration,
    /// An estimate of the time within which 19 of 20 requests are answered.
    high: Duration,
    /// When it answered last.
    answered: Option<Instant>,
    /// When it answered last, or failed to.
    heard: Option<Instant>,
    has_failed: bool,
    /// Whether it was slow when a read began last.
    is_slow: bool,
}

impl Times {
    /// A request took this time, or more. Each moves the estimates a little, so that they follow the last dozens of requests.
    fn took(&mut self, took: Duration, now: Instant) {
        if self.answers == 0 {
            (self.median, self.high) = (took, took);
        }
        let shifted = |estimate: Duration, up: f64, down: f64| {
            estimate.max(Duration::from_micros(1)).mul_f64(if took > estimate { up } else { down })
        };
        self.median = shifted(self.median, 1.05, 1.0 / 1.05);
        self.high = shifted(self.high, 1.2, 0.99);
        self.answers = self.answers.saturating_add(1);
        (self.heard, self.has_failed) = (Some(now), false);
    }

    fn answered(&mut self, took: Duration, now: Instant) {
        self.answered = Some(now);
        self.took(took, now);
    }

    fn failed(&mut self, now: Instant) {
        (self.heard, self.has_failed) = (Some(now), true);
    }

    /// How long a request may wait until the node counts as slow.
    fn patience(&self) -> Duration {
        (self.high * PATIENCE).clamp(SHORTEST, LONGEST)
    }

    /// Whether the node should be avoided. `fastest` is the median of the fastest node.
    fn is_slow(&self, fastest: Duration, now: Instant) -> bool {
        // A node that answers others meanwhile does not hang.
        let silent_since =
            self.waiting.values().next().map(|since| self.answered.map_or(*since, |it| it.max(*since)));
        let waits = silent_since.map(|since| now.saturating_duration_since(since));
        if waits.is_some_and(|waits| waits > self.patience()) {
            return true;
        }
        let is_slower = self.answers >= ENOUGH && self.median > fastest * RATIO + MARGIN;
        // It is tried again after a while, by one read at a time.
        let is_recent = self.heard.is_some_and(|heard| now.saturating_duration_since(heard) < AVOIDED);
        (self.has_failed || is_slower) && (is_recent || waits.is_some())
    }
}

/// A read's request that a node has not answered yet.
#[derive(Debug)]
pub struct Waiting {
    node: NodeName,
    number: u64,
    since: Instant,
    patience: Option<Duration>,
}

impl Waiting {
    /// A request has been sent that is given up after this time.
    pub fn for_node(node: &NodeName, patience: Option<Duration>) -> Self {
        let since = Instant::now();
        BUDGET.set((BUDGET.get() + 1).min(ONE_OF * AT_ONCE));
        let number = with(node, |times| {
            times.next += 1;
            times.waiting.insert(times.next, since);
            times.next
        });
        Self { node: node.clone(), number, since, patience }
    }

    /// The node has answered, or has failed to. Tells whether it was given up.
    pub fn ended(self, outcome: Outcome) -> Outcome {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.since);
        // Envoy answers with 504 what takes too long. Its clock may be a little behind.
        let is_timeout = match &outcome {
            Outcome::Answered(answer) => answer.status == 504,
            Outcome::Failed | Outcome::GivenUp => true,
        };
        let is_given_up = is_timeout && self.patience.is_some_and(|patience| took >= patience * 3 / 4);
        if is_given_up {
            BUDGET.set(BUDGET.get().saturating_sub(ONE_OF));
            metrics::count("miroir_reads_given_up_total", &[("node", &self.node)], 1);
        }
        with(&self.node, |times| {
            times.waiting.remove(&self.number);
            // A node that answers others meanwhile does not hang: this read is a long one.
            let is_alive = times.answered.is_some_and(|answered| answered > self.since);
            match &outcome {
                Outcome::Answered(answer) if answer.status < 500 => times.answered(took, now),
                _ if is_given_up && is_alive => times.took(took, now),
                _ => times.failed(now),
            }
        });
        if is_given_up { Outcome::GivenUp } else { outcome }
    }
}

/// How long to wait for a node before another one is asked instead; `None` if that is not known yet, or too many requests were given up.
pub fn patience(node: &NodeName) -> Option<Duration> {
    let high = with(node, |times| (times.answers >= ENOUGH).then_some(times.high))?;
    (BUDGET.get() >= ONE_OF).then_some((high * LAST_PATIENCE).max(SHORTEST_LAST))
}

/// Nobody waits for the answer any more.
impl Drop for Waiting {
    fn drop(&mut self) {
        let now = Instant::now();
        // There is nothing left where the worker ends.
        let _ = NODES.try_with(|nodes| {
            let mut nodes = nodes.borrow_mut();
            let Some(times) = nodes.get_mut(&self.node) else { return };
            let was_waiting = times.waiting.remove(&self.number).is_some();
            let is_alive = times.answered.is_some_and(|answered| answered > self.since);
            if was_waiting && !is_alive && now.saturating_duration_since(self.since) > times.patience() {
                times.failed(now);
            }
        });
    }
}

fn with<T>(node: &NodeName, change: impl FnOnce(&mut Times) -> T) -> T {
    NODES.with_borrow_mut(|nodes| change(nodes.entry(node.clone()).or_default()))
}

/// Lets the reads that begin from now on avoid the nodes that are slow at the moment.
pub fn avoid_slow(topology: &Topology) {
    let now = Instant::now();
    let slow = NODES.with_borrow_mut(|nodes| {
        let members = &topology.config().nodes;
        let known = members.iter().filter_map(|node| nodes.get(&node.name));
        let medians = known.filter(|times| times.answers >= ENOUGH).map(|times| times.median);
        let fastest = medians.min().unwrap_or_default();
        let mut slow = BTreeSet::new();
        for (position, node) in (0..).zip(members) {
            let Some(times) = nodes.get_mut(&node.name) else { continue };
            let is_slow = times.is_slow(fastest, now);
            if is_slow {
                slow.insert(position);
            }
            if is_slow && !times.is_slow {
                metrics::count("miroir_nodes_avoided_total", &[("node", &node.name)], 1);
            }
            times.is_slow = is_slow;
        }
        slow
    });
    topology.avoid(slow);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn estimates_follow_the_answers() {
        let (mut times, now) = (Times::default(), Instant::now());
        for number in 0..2_000u32 {
            times.answered(MILLI * (number * 7 % 100 + 1), now);
        }
        assert!((MILLI * 30..MILLI * 70).contains(&times.median), "{:?}", times.median);
        assert!((MILLI * 80..MILLI * 130).contains(&times.high), "{:?}", times.high);
        for _ in 0..100 {
            times.answered(MILLI, now);
        }
        assert!(times.median < MILLI * 2, "{:?}", times.median);
    }

    #[test]
    fn a_node_is_slow_while_it_hangs_and_for_a_while_after_it_has_failed() {
        let (mut times, begun) = (Times::default(), Instant::now());
        (0..100).for_each(|_| times.answered(MILLI * 2, begun));
        let is_slow = |times: &Times, after: Duration| times.is_slow(MILLI * 2, begun + after);
        times.waiting.insert(1, begun);
        assert!(!is_slow(&times, SHORTEST - MILLI) && is_slow(&times, SHORTEST + MILLI));
        times.waiting.clear();
        times.failed(begun + MILLI * 5_000);
        assert!(is_slow(&times, MILLI * 5_999));
        assert!(!is_slow(&times, MILLI * 6_001), "one read tries it");
        times.waiting.insert(2, begun + MILLI * 6_001);
        assert!(is_slow(&times, MILLI * 6_002), "others wait for what that one finds");
        times.waiting.clear();
        times.answered(MILLI * 2, begun + MILLI * 6_003);
        assert!(!is_slow(&times, MILLI * 6_003));
    }

    #[test]
    fn a_node_is_slow_that_is_much_slower_than_the_fastest_one() {
        let (mut times, now) = (Times::default(), Instant::now());
        for number in 1..=ENOUGH {
            assert!(!times.is_slow(MILLI * 2, now), "after {number} answers");
            times.answered(MILLI * 20, now);
        }
        assert!(times.is_slow(MILLI * 2, now));
        assert!(!times.is_slow(MILLI * 4, now), "all are slow");
        assert!(!times.is_slow(MILLI * 2, now + AVOIDED));
    }
}
