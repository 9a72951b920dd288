//! Counters among Envoy's own statistics.

use miroir_core::{http::Reply, read::MISSING_SHARDS_HEADER};
use proxy_wasm::{hostcalls, types::MetricType};
use std::cell::OnceCell;

/// Shards that nobody answered for, over all answers.
const MISSING_SHARDS: &str = "miroir_missing_shards";

thread_local! {
    static MISSING_SHARDS_COUNTER: OnceCell<Option<u32>> = const { OnceCell::new() };
}

/// Counts what a reply says.
pub fn count(reply: &Reply) {
    let header = reply.headers.iter().find(|(name, _)| name == MISSING_SHARDS_HEADER);
    let Some((_, shards)) = header else { return };
    let missing = i64::try_from(shards.split(',').count()).unwrap_or(i64::MAX);
    MISSING_SHARDS_COUNTER.with(|counter| {
        let define = || hostcalls::define_metric(MetricType::Counter, MISSING_SHARDS).ok();
        let counted =
            counter.get_or_init(define).map(|counter| hostcalls::increment_metric(counter, missing));
        if !matches!(counted, Some(Ok(()))) {
            log::warn!("{MISSING_SHARDS} cannot be counted");
        }
    });
}
