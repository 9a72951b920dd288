//! Where time comes from, and moments and durations as Meilisearch writes them.

use std::{
    fmt::{Debug, Write},
    sync::Arc,
};
use time::{
    Date, Duration, OffsetDateTime, Time, format_description::well_known::Rfc3339, macros::format_description,
};

/// A moment to measure from. It is tokio's, so that a test that pauses tokio's time governs [`SystemClock`] and sleeps alike.
pub use tokio::time::Instant;

/// Nanoseconds since 1970, UTC. The ledger stores points in time so, because they sort as numbers.
pub type Nanos = i64;

/// Where time comes from. Whatever needs the time gets a clock, so that a test or a simulation can set it; sleeps and timeouts go
/// through `tokio::time`.
pub trait Clock: Debug + Send + Sync {
    /// The time of day. It may go backwards.
    fn wall(&self) -> Nanos;

    /// The time since some moment in the past. It never goes backwards.
    fn monotonic(&self) -> Instant;

    /// How long ago a moment was; zero for one to come.
    fn since(&self, moment: Instant) -> std::time::Duration {
        self.monotonic().saturating_duration_since(moment)
    }
}

/// The clock of whoever shares the cluster's state.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Nanos {
        to_nanos(OffsetDateTime::now_utc())
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

fn to_nanos(moment: OffsetDateTime) -> Nanos {
    i64::try_from(moment.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339.
#[must_use]
pub fn format(nanos: Nanos) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Reads RFC 3339.
#[must_use]
pub fn parse(text: &str) -> Option<Nanos> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(to_nanos)
}

/// Reads a filter's date: RFC 3339, or a day without a time. Such a day means its first moment or, with `after`, its end.
#[must_use]
pub fn parse_filter(text: &str, after: bool) -> Option<Nanos> {
    if let Some(nanos) = parse(text) {
        return Some(nanos);
    }
    let format = format_description!("[year repr:full base:calendar]-[month repr:numerical]-[day]");
    let day = Date::parse(text, format).ok()?.with_time(Time::MIDNIGHT).assume_utc();
    let moment = if after { day.checked_add(Duration::DAY).unwrap_or(day) } else { day };
    Some(to_nanos(moment))
}

/// Formats a duration as Meilisearch's `serialize_duration` does: ISO 8601 with days and seconds only, and 3, 6 or 9 decimals.
/// `None` if it is negative.
#[must_use]
pub fn duration(start: Nanos, end: Nanos) -> Option<String> {
    const NANOS_A_SECOND: i64 = 1_000_000_000;
    let nanos = end.checked_sub(start).filter(|nanos| *nanos >= 0)?;
    let (seconds, nanos) = (nanos / NANOS_A_SECOND, nanos % NANOS_A_SECOND);
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    let mut text = "P".to_owned();
    if days != 0 {
        let _ = write!(text, "{days}D");
    }
    if seconds != 0 || nanos != 0 || days == 0 {
        let _ = match nanos {
            0 => write!(text, "T{seconds}S"),
            n if n % 1_000_000 == 0 => write!(text, "T{seconds}.{:03}S", n / 1_000_000),
            n if n % 1_000 == 0 => write!(text, "T{seconds}.{:06}S", n / 1_000),
            n => write!(text, "T{seconds}.{n:09}S"),
        };
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_worded_as_meilisearch_does() {
        let day = 86_400_000_000_000;
        for (nanos, text) in [
            (0, "PT0S"),
            (1_500_000_000, "PT1.500S"),
            (9_330_000, "PT0.009330S"),
            (7, "PT0.000000007S"),
            (day, "P1D"),
            (day + 2_000_000_000, "P1DT2S"),
        ] {
            assert_eq!(duration(10, 10 + nanos).as_deref(), Some(text));
        }
        assert_eq!(duration(10, 9), None);
    }

    #[test]
    fn a_day_as_a_filter_ends_where_the_next_begins() {
        assert_eq!(parse_filter("2024-01-01", true), parse("2024-01-02T00:00:00Z"));
        assert_eq!(parse_filter("2024-01-01", false), parse("2024-01-01T00:00:00Z"));
        assert_eq!(parse_filter("soon", true), None);
    }
}
