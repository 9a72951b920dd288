//! A node's health: what its checks say, with a hysteresis.

use crate::base::{error::Error, time::Instant};
use std::{error::Error as StdError, io, time::Duration};

/// How long a health check may take.
pub(super) const CHECK: Duration = Duration::from_secs(2);
/// A node is away after this many missed checks in a row, unless its address refuses connections: then it is away at once.
const MISSED_CHECKS: u32 = 3;
/// A node is away at a missed check if it has answered none that began within this time before.
const MISSED_FOR: Duration = Duration::from_secs(5);

/// Why a node is not taken that has the data of another cluster.
pub const FOREIGN: &str = "it has the data of another cluster, or of this one under a ledger that was lost: start it with an empty data \
                           folder; or, if the ledger was lost, make a new one with `miroir recover`";

/// What health checks say of a node.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether it answers: it answered the last check with 200, or has not missed enough checks since to be away.
    pub up: bool,
    /// Since when `up` has this value.
    pub since: Instant,
    /// Its version, once the node has reported it.
    pub version: Option<String>,
    /// The error of the last health check.
    pub error: Option<String>,
    /// Whether the node has the data of another cluster.
    pub is_foreign: bool,
    /// Whether it is known, since the node came, that it has not.
    is_verified: bool,
    /// The missed checks since the last answer: how many, and when the first of them began. Only a node that is up has some.
    missed: Option<(u32, Instant)>,
}

/// The result of a health check.
#[derive(Debug)]
pub(super) enum Check {
    /// 200.
    Answered,
    /// It answers, and has the data of another cluster.
    Foreign,
    /// Nobody listens at the node's address: its process has ended.
    Refused(String),
    /// No answer in time, a connection that broke, or another status than 200: it may be a hiccup.
    Missed(String),
}

impl Health {
    /// Whether it is known since the node came that it has no other cluster's data.
    pub(super) fn is_verified(&self) -> bool {
        self.up && self.is_verified
    }

    /// Notes that the node has no other cluster's data.
    pub(super) fn verified(&mut self) {
        self.is_verified = self.up;
    }

    /// Of a node that was never checked: it counts as away.
    pub(super) fn unknown(now: Instant) -> Self {
        Self {
            up: false,
            since: now,
            version: None,
            error: None,
            is_foreign: false,
            is_verified: false,
            missed: None,
        }
    }

    /// Learns the result of a check. Returns whether the node was away before, or was never checked, and is up now.
    ///
    /// One missed check is no verdict: it would make the replicas of a node stale that is well. A write that fails on a node makes
    /// its replicas stale whatever the health says.
    pub(super) fn learn(&mut self, check: Check, begun: Instant, now: Instant) -> bool {
        let was_up = self.up;
        self.is_foreign = matches!(check, Check::Foreign);
        let (is_up, since, error) = match check {
            Check::Answered => (true, now, None),
            Check::Refused(error) => (false, now, Some(error)),
            Check::Foreign => (false, now, Some(FOREIGN.to_owned())),
            Check::Missed(error) => {
                let (before, first) = self.missed.unwrap_or((0, begun));
                let is_away = before + 1 >= MISSED_CHECKS || now.duration_since(first) >= MISSED_FOR;
                self.missed = Some((before + 1, first));
                (was_up && !is_away, first, Some(error))
            }
        };
        if error.is_none() || !is_up {
            self.missed = None;
        }
        if is_up != was_up {
            self.up = is_up;
            self.since = since;
        }
        self.is_verified &= is_up;
        self.error = error;
        is_up && !was_up
    }
}

/// Whether nobody listens at the node's address. Where a connection only did not come about in time, this is not certain.
pub(super) fn is_refused(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The health of a node that is up, and when it was checked last.
    fn up() -> (Health, Instant) {
        let now = Instant::now();
        let mut health = Health::unknown(now);
        assert!(health.learn(Check::Answered, now, now), "it has come");
        (health, now)
    }

    fn missed() -> Check {
        Check::Missed("no answer".to_owned())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_missed_check_is_no_verdict_and_three_are() {
        let (mut health, now) = up();
        for after in 1..3 {
            assert!(!health.learn(missed(), now + SECOND * after, now + SECOND * after));
            assert!(health.up && health.error.is_some(), "after {after}");
        }
        assert!(!health.learn(Check::Answered, now + SECOND * 3, now + SECOND * 3), "it was not away");
        assert_eq!(health.error, None);
        for after in 4..7 {
            health.learn(missed(), now + SECOND * after, now + SECOND * after);
        }
        assert!(!health.up);
        assert_eq!(health.since, now + SECOND * 4, "it is away since its first missed check");
        assert!(health.learn(Check::Answered, now + SECOND * 8, now + SECOND * 8));
    }

    #[test]
    fn a_node_that_hangs_is_away_after_five_seconds() {
        let (mut health, now) = up();
        health.learn(missed(), now, now + CHECK);
        assert!(health.up);
        health.learn(missed(), now + SECOND * 3, now + SECOND * 3 + CHECK);
        assert!(!health.up);
    }

    #[test]
    fn a_refused_connection_is_certain_at_once() {
        let (mut health, now) = up();
        health.learn(Check::Refused("connection refused".to_owned()), now, now);
        assert!(!health.up);
        // Until it answers, it stays away.
        health.learn(missed(), now, now);
        assert!(!health.up);
    }

    #[test]
    fn only_a_refusal_is_taken_for_one() {
        let unreachable = |kind: io::ErrorKind| Error::Unreachable {
            node: "a".into(),
            is_unsent: true,
            source: io::Error::from(kind).into(),
        };
        assert!(is_refused(&unreachable(io::ErrorKind::ConnectionRefused)));
        assert!(!is_refused(&unreachable(io::ErrorKind::TimedOut)));
    }
}
