//! An index of books on a cluster, and a check of its documents that must hold whatever happens to the nodes.

use crate::{Options, Sandbox};
use serde_json::{Value, json};

/// The name of the index.
pub const BOOKS: &str = "books";
/// The route of its documents.
pub const BOOKS_PATH: &str = "/indexes/books/documents";

/// The books with these ids, in this version.
#[must_use]
pub fn books(ids: std::ops::Range<u64>, version: u64) -> Value {
    ids.map(|id| json!({"id": id, "v": version, "title": format!("book number {id}"), "price": 1.5}))
        .collect()
}

impl Sandbox {
    /// A cluster with short leases that has 400 books of version 1.
    #[must_use]
    pub fn library(nodes: u16, replication: u16, gateways: u16) -> Self {
        let options = Options {
            nodes,
            replication,
            gateways,
            lease_ms: 1_000,
            write_timeout_ms: 4_000,
            ..Options::default()
        };
        let cluster = Self::start(options);
        let settings = json!({"filterableAttributes": ["v"], "sortableAttributes": ["id"]});
        cluster.client.create(BOOKS, "id", &settings);
        cluster.client.add(BOOKS, &books(0..400, 1));
        cluster
    }

    /// Checks that every book has this version, that a search through each gateway finds it once, and that all its copies are
    /// the same.
    ///
    /// # Panics
    /// The check fails.
    pub fn library_is_whole(&self, count: usize, version: u64) {
        self.wait_tasks_ended();
        for gateway in 0..self.gateways() {
            let query = json!({"limit": 1000, "filter": format!("v = {version}")});
            let answer = self.gateway(gateway).json("POST", "/indexes/books/search", &query);
            let hits = answer.body["hits"].as_array().map(Vec::len);
            assert_eq!((answer.status, hits), (200, Some(count)), "gateway {gateway}: {:?}", answer.headers);
            assert_eq!(answer.header("x-miroir-missing-shards"), None);
        }
        assert_eq!(self.identical(BOOKS, "id").len(), count);
        self.miroir_ok(&["verify"]);
    }

    /// The control plane's status of a node; null if the node is not in the cluster.
    #[must_use]
    pub fn member(&self, name: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.into_iter().find(|node| node["name"] == name).unwrap_or_default()
    }
}
