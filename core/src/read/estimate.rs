//! Estimates the cost of a read before it is expanded: a short body can ask for much.

use crate::{
    documents::payload_too_large,
    error::{ApiError, Code},
    fan_out,
    http::RequestHead,
    json,
    route::Route,
    topology::Topology,
};
use memchr::{memchr_iter, memmem};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeSet, fmt};

/// A read with an estimate up to this begins without a check of the client's key. A worker needs about a millisecond to write
/// this many bytes, which is also what the check would take. An ordinary search is a few kilobytes for each node.
pub const SMALL: u64 = 256 << 10;

/// Bytes added to each query for merging: paging, score details, fields.
const ADDED: u64 = 256;
/// Bytes of a shard's tag in a JSON filter: `\",,,\", `.
const TAG: u64 = 9;
/// Memory for a parsed query besides its values, in bytes.
const QUERY: u64 = 1024;
/// Memory for one parsed value, or one member of an object, in bytes.
const VALUE: u64 = 128;

/// An upper bound for the cost of a read that is not small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Number of queries in the read.
    pub queries: u64,
    /// Bytes sent to nodes in one step. For each query and each node that is asked, these are the query's text and the text
    /// added to it; each query also has the tags of all shards. Hybrid queries count twice, because nodes also get them as
    /// keyword queries.
    pub fan_out: u64,
    /// Bytes of memory that the read takes here, including [`Self::fan_out`].
    pub memory: u64,
}

impl Estimate {
    /// The estimate of a read; `None` if it is [`SMALL`] whatever it contains.
    #[must_use]
    pub fn of(topology: &Topology, route: &Route, head: &RequestHead, body: &[u8]) -> Option<Self> {
        let text = head.path.to_string().len().saturating_add(body.len()) as u64;
        let shards = u64::from(topology.shard_count());
        let sent = |nodes: u64, queries: u64, text: u64| {
            let each = text.saturating_add(queries.saturating_mul(ADDED));
            nodes.saturating_mul(each).saturating_add(queries.saturating_mul(shards * TAG))
        };
        // Each query has at least one brace.
        let most = match route {
            Route::MultiSearch => memchr_iter(b'{', body).count() as u64,
            _ => 1,
        };
        let nodes = topology.config().nodes.len() as u64;
        if sent(nodes, most, text).saturating_mul(2) <= SMALL {
            return None;
        }
        // Only the number of nodes counts here, and not which of their replicas are stale in an index.
        let nodes = fan_out::plan(topology, &[], topology.shards(), &BTreeSet::new(), 0).asks.len() as u64;
        let is_hybrid = |text: &[u8]| memmem::find(text, b"hybrid").is_some();
        let (queries, hybrid, hybrid_text) = match route {
            Route::MultiSearch => match serde_json::from_slice(body) {
                Ok(Counted { queries, hybrid, hybrid_text }) => (queries, hybrid, hybrid_text),
                // The body is invalid and is not expanded: a node says what is wrong.
                Err(_) => (0, 0, 0),
            },
            _ if is_hybrid(body) || is_hybrid(head.query().as_bytes()) => (1, 1, text),
            _ => (1, 0, 0),
        };
        let fan_out = sent(nodes, queries, text).saturating_add(sent(nodes, hybrid, hybrid_text));
        let values = json::values(body).saturating_mul(VALUE);
        let memory = queries.saturating_mul(QUERY).saturating_add(values).saturating_add(fan_out);
        Some(Self { queries, fan_out, memory })
    }

    /// The error for the client if the read would send nodes more than the limit.
    #[must_use]
    pub fn refusal(&self, topology: &Topology) -> Option<ApiError> {
        let limit = topology.config().limits.max_fan_out_bytes;
        let message = || {
            format!(
                "The provided payload asks for too much at once: its {} queries would send {} bytes to nodes, and the limit \
                 is {limit} (`limits.maxFanOutBytes`). Send fewer or shorter queries at a time.",
                self.queries, self.fan_out
            )
        };
        (self.fan_out > limit).then(|| ApiError::new(Code::PAYLOAD_TOO_LARGE, message()))
    }
}

/// The error for a read whose body exceeds the limit for reads.
#[must_use]
pub(crate) fn too_large(topology: &Topology) -> ApiError {
    payload_too_large(topology.config().limits.read_bytes())
}

/// The queries of a multi-search, counted in one pass over the body without building values.
#[derive(Default)]
struct Counted {
    queries: u64,
    hybrid: u64,
    hybrid_text: u64,
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Body;
        impl<'de> Visitor<'de> for Body {
            type Value = Counted;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a multi-search")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counted, A::Error> {
                let mut all = Counted::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    if name == "queries" {
                        // If there are several lists, each one counts.
                        let List(list) = map.next_value()?;
                        all.queries += list.queries;
                        all.hybrid += list.hybrid;
                        all.hybrid_text += list.hybrid_text;
                    } else {
                        let _: IgnoredAny = map.next_value()?;
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Body)
    }
}

struct List(Counted);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Queries;
        impl<'de> Visitor<'de> for Queries {
            type Value = List;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("queries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List, A::Error> {
                let mut all = Counted::default();
                while let Some(query) = list.next_element::<&RawValue>()? {
                    all.queries += 1;
                    if memmem::find(query.get().as_bytes(), b"hybrid").is_some() {
                        all.hybrid += 1;
                        all.hybrid_text += query.get().len() as u64;
                    }
                }
                Ok(List(all))
            }
        }
        deserializer.deserialize_seq(Queries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Two rows of this many nodes.
    fn topology(nodes: u16) -> Topology {
        let names = (0..2 * nodes).map(|node| json!({"name": node.to_string(), "cluster": node.to_string()}));
        let placement = (0..64).map(|shard| [shard % nodes, nodes + shard % nodes]);
        let config = json!({"schema": 1, "version": 1, "nodes": names.collect::<Vec<_>>(),
            "placement": placement.collect::<Vec<_>>()});
        Topology::from_json(config.to_string().as_bytes()).unwrap()
    }

    fn estimate(nodes: u16, path: &'static str, body: &str) -> Option<Estimate> {
        let head = RequestHead { method: "POST".into(), path: path.into(), headers: Vec::new() };
        Estimate::of(&topology(nodes), &Route::of("POST", &head.path), &head, body.as_bytes())
    }

    fn multi_search(count: usize, query: &str) -> String {
        format!("{{\"queries\":[{}]}}", vec![query; count].join(","))
    }

    #[test]
    fn ordinary_searches_are_small() {
        assert_eq!(
            estimate(10, "/indexes/movies/search", &json!({"q": "x".repeat(4_000)}).to_string()),
            None
        );
        assert_eq!(
            estimate(3, "/multi-search", &multi_search(20, r#"{"indexUid":"movies","q":"red"}"#)),
            None
        );
    }

    #[test]
    fn each_query_counts_for_each_node_that_is_asked() {
        let body = multi_search(1_000, "{}");
        let three = estimate(3, "/multi-search", &body).unwrap();
        assert_eq!(three.queries, 1_000);
        assert_eq!(three.fan_out, 3 * (body.len() as u64 + 13 + 256_000) + 64 * 9 * 1_000);
        assert!(estimate(6, "/multi-search", &body).unwrap().fan_out > three.fan_out);
        assert!(three.memory > three.fan_out + 1_000_000);
        let hybrid = estimate(3, "/multi-search", &multi_search(1_000, r#"{"hybrid":{}}"#)).unwrap();
        assert!(hybrid.fan_out > 2 * three.fan_out);
    }

    #[test]
    fn braces_that_are_no_queries_do_not_count() {
        let text = json!({"queries": [{"indexUid": "a", "q": "{".repeat(10_000)}]}).to_string();
        let estimate = estimate(3, "/multi-search", &text).unwrap();
        assert_eq!(estimate.queries, 1);
        assert!(estimate.fan_out < SMALL);
    }

    #[test]
    fn all_lists_of_queries_count() {
        let list = vec!["3"; 2_000].join(",");
        let body = format!(r#"{{"queries":[{list}],"que\u0072ies":[{list}],"x":"{}"}}"#, "{".repeat(1_000));
        assert_eq!(estimate(3, "/multi-search", &body).unwrap().queries, 4_000);
    }

    #[test]
    fn what_cannot_be_read_is_one_nodes_to_refuse() {
        let body = "{".repeat(100_000);
        assert_eq!(estimate(3, "/multi-search", &body).unwrap().queries, 0);
    }

    #[test]
    fn too_much_is_refused_with_what_to_do() {
        let topology = topology(3);
        let much = estimate(3, "/multi-search", &multi_search(600_000, "{}")).unwrap();
        let refusal = much.refusal(&topology).unwrap();
        assert_eq!((refusal.status, &*refusal.body.code), (413, "payload_too_large"));
        assert!(refusal.body.message.contains("fewer or shorter queries"), "{}", refusal.body.message);
        assert_eq!(
            estimate(3, "/multi-search", &multi_search(5_000, "{}")).unwrap().refusal(&topology),
            None
        );
    }
}
