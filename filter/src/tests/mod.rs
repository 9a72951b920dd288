//! The filter in a VM of its own, whose host is the test: what it asks of whom, when, and what its clients hear.
//!
//! What nodes' answers become is tested in `miroir-core`, without a host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod configuration;
mod leases;
mod limits;
mod reads;
mod writes;

use miroir_core::{
    protocol::REPORT_PATH,
    topology::{ControlConfig, IndexConfig, TopologyConfig},
};
use miroir_filter_host::{Callout, Stream, Vm, in_vm};
use serde_json::{Value, json};

const SEARCH: &str = "/indexes/movies/search";
const DOCUMENTS: &str = "/indexes/movies/documents";
const KEY: (&str, &str) = ("authorization", "Bearer client");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Three nodes, three shards, two replicas of each.
fn topology() -> TopologyConfig {
    let movies = IndexConfig { primary_key: Some("id".to_owned()), ..IndexConfig::default() };
    TopologyConfig {
        indexes: [("movies".to_owned(), movies)].into(),
        ..TopologyConfig::of(&["a", "b", "c"], [[0, 1], [1, 2], [2, 0]])
    }
}

/// The same with a control plane.
fn managed() -> TopologyConfig {
    let control = ControlConfig { cluster: "control".to_owned(), secret: "s3cret".to_owned() };
    TopologyConfig { control: Some(control), ..topology() }
}

/// Runs a test in a VM with this configuration, whose nodes have said that they are there.
fn configured(config: &TopologyConfig, test: impl FnOnce(&Vm) + Send) {
    in_vm(crate::_initialize, |vm| {
        assert!(vm.configure(&serde_json::to_string(config).unwrap()), "{:?}", vm.log());
        for call in vm.callouts_to("/health") {
            vm.answer(&call, 200, "{}");
        }
        test(vm);
    });
}

/// The same of a worker that has a lease.
fn leased(config: &TopologyConfig, test: impl FnOnce(&Vm) + Send) {
    configured(config, |vm| {
        answer_reports(vm, &json!({"needed": 0, "lease": true}));
        test(vm);
    });
}

/// The control plane answers all reports that are under way.
fn answer_reports(vm: &Vm, answer: &Value) {
    for call in vm.callouts_to(REPORT_PATH) {
        vm.answer(&call, 200, &answer.to_string());
    }
}

/// A client searches.
fn search(vm: &Vm, query: &Value) -> Stream {
    post(vm, SEARCH, query)
}

/// A client posts JSON.
fn post(vm: &Vm, path: &str, body: &Value) -> Stream {
    let mut stream = vm.request("POST", path, &[KEY, JSON], true);
    vm.body(&mut stream, body.to_string().as_bytes(), true);
    stream
}

/// Documents that a node has found.
fn found(ids: &[u64]) -> String {
    let hits: Vec<Value> = ids.iter().map(|id| json!({"id": id, "_rankingScoreDetails": {}})).collect();
    json!({"hits": hits, "estimatedTotalHits": ids.len(), "limit": 20, "offset": 0}).to_string()
}

/// The ids that a client is shown, in ascending order.
fn shown(body: &str) -> Vec<u64> {
    let body: Value = serde_json::from_str(body).unwrap();
    let mut ids: Vec<u64> =
        body["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn body(call: &Callout) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

/// Status and code of an error that a client hears.
fn refused(vm: &Vm, stream: &Stream) -> Option<(u32, String)> {
    let reply = vm.reply(stream)?;
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    Some((reply.status, body["code"].as_str().unwrap_or_default().to_owned()))
}
