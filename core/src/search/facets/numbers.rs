//! Which of a facet's values on one node are numbers: nodes tell all of them as texts.

use serde_json::Value;
use std::borrow::Cow;

/// The smallest and the largest number of a facet on one node; both are among its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    min: f64,
    max: f64,
}

impl Range {
    pub(super) fn of(stats: &Value) -> Option<Self> {
        Some(Self { min: stats.get("min")?.as_f64()?, max: stats.get("max")?.as_f64()? })
    }

    /// The number that a name may stand for: it must be written as nodes write numbers, and be in this range.
    pub(super) fn number(self, name: &str) -> Option<f64> {
        let number: f64 = name.parse().ok()?;
        let within = self.min <= number && number <= self.max;
        (within && number.to_string() == name).then_some(number)
    }
}

/// A value as a node reports it.
pub(super) struct ReportedValue<'a> {
    pub name: Cow<'a, str>,
    pub number: Option<f64>,
    pub count: u64,
}

impl ReportedValue<'_> {
    /// Whether a number may come after another one when ordered by name, by value, or by count.
    fn follows(&self, before: &Self, by_count: bool, by_value: bool) -> bool {
        match (by_count, by_value) {
            // Values with equal counts come in any order.
            (true, _) => self.count <= before.count,
            (false, true) => self.number > before.number,
            (false, false) => self.name > before.name,
        }
    }
}

/// How many of a node's values are numbers, which come first, and whether they are in the order of their values. Strings may
/// look like numbers: a value after the smallest and the largest number counts as a number only if it continues their order.
pub(super) fn numbers(values: &[ReportedValue<'_>], range: Range, by_count: bool) -> (usize, bool) {
    let like_numbers = values.iter().take_while(|value| value.number.is_some()).count();
    let values = values.get(..like_numbers).unwrap_or_default();
    let is_end =
        |value: &ReportedValue<'_>| value.number == Some(range.min) || value.number == Some(range.max);
    let least = values.iter().rposition(is_end).map_or(0, |last| last + 1);
    let pairs = || values.iter().zip(values.iter().skip(1));
    let by_value = !by_count && pairs().take(least.saturating_sub(1)).any(|(one, two)| two.name < one.name);
    let more =
        pairs().skip(least.saturating_sub(1)).take_while(|(one, two)| two.follows(one, by_count, by_value));
    (if least == 0 { 0 } else { least + more.count() }, by_value)
}
