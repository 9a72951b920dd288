//! Metrics among Envoy's own, in `/stats/prometheus` under `miroir_`.
//!
//! Prometheus labels are part of the name, as in `miroir_requests_total;operation=search;outcome=ok`; the tags in
//! `stats_config` of the sample bootstraps turn them into labels.

use proxy_wasm::{hostcalls, types::MetricType};
use std::{cell::RefCell, collections::HashMap, time::Duration};

thread_local! {
    /// Envoy's ids of the defined metrics, by name; `None` if Envoy refused one.
    static KNOWN: RefCell<HashMap<String, Option<u32>>> = RefCell::default();
}

/// The labels of a metric.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Defines a counter, so that it is listed before its first increment.
pub fn announce(name: &str) {
    known(MetricType::Counter, name, &[]);
}

/// Adds to a counter.
pub fn count(name: &str, labels: Labels, by: usize) {
    let id = known(MetricType::Counter, name, labels);
    if let (Some(id), Ok(by)) = (id, i64::try_from(by)) {
        noted(name, hostcalls::increment_metric(id, by));
    }
}

/// Sets a gauge.
pub fn set(name: &str, labels: Labels, value: u64) {
    if let Some(id) = known(MetricType::Gauge, name, labels) {
        noted(name, hostcalls::record_metric(id, value));
    }
}

/// Adds a value to a histogram.
pub fn record(name: &str, labels: Labels, value: u64) {
    if let Some(id) = known(MetricType::Histogram, name, labels) {
        noted(name, hostcalls::record_metric(id, value));
    }
}

/// Converts a duration to whole microseconds.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn known(kind: MetricType, name: &str, labels: Labels) -> Option<u32> {
    let mut full = name.to_owned();
    for (label, value) in labels {
        // A semicolon would end the label's value.
        let value = value.replace(';', "_");
        full.extend([";", label, "=", &value]);
    }
    KNOWN.with_borrow_mut(|known| match known.get(&full) {
        Some(id) => *id,
        None => {
            let id = hostcalls::define_metric(kind, &full);
            if let Err(status) = id {
                log::warn!("metric {full} cannot be defined: {status:?}");
            }
            known.insert(full, id.ok());
            id.ok()
        }
    })
}

fn noted<E: std::fmt::Debug>(name: &str, result: Result<(), E>) {
    if let Err(status) = result {
        log::warn!("metric {name} cannot be recorded: {status:?}");
    }
}
