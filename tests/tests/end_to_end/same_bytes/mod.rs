//! Requests whose answers must be those of a single node, byte for byte.

mod bodies;
mod documents;
mod edges;
mod facets;
mod ties;

pub use bodies::types_and_compressions_of_bodies_are_those_of_one_node;
pub use documents::{
    fields_of_meilisearchs_own_names_come_back_and_sort, order_never_depends_on_what_is_shown,
};
pub use edges::edges_of_requests_are_those_of_one_node;
pub use facets::facets_are_those_of_one_node;
pub use ties::what_nothing_tells_apart_comes_in_the_order_of_one_node;

use miroir_tests::{Answer, Client, Node, Sandbox, nodes_are_real, tell};
use serde_json::Value;

/// Members whose values differ between any two requests.
const VOLATILE: [&str; 9] = [
    "processingTimeMs",
    "requestUid",
    "enqueuedAt",
    "startedAt",
    "finishedAt",
    "duration",
    "taskUid",
    "createdAt",
    "updatedAt",
];

/// A cluster and one node that have the same documents.
struct Pair<'p> {
    clients: [&'p Client; 2],
    is_real: bool,
    wrong: Vec<String>,
    compared: usize,
}

impl<'p> Pair<'p> {
    fn new(cluster: &'p Sandbox, node: &'p Node) -> Self {
        let is_real = nodes_are_real();
        Self { clients: [&cluster.client, &node.client], is_real, wrong: Vec::new(), compared: 0 }
    }

    fn create(&self, index: &str, key: &str, settings: &Value, documents: &Value) {
        for client in self.clients {
            client.create(index, key, settings);
            client.add(index, documents);
        }
    }

    fn check(&mut self, what: &str, ask: impl Fn(&Client) -> Answer) {
        let answers = self.clients.map(|client| told(&ask(client)));
        self.compared += 1;
        if answers[0] != answers[1] {
            let [cluster, node] = answers;
            self.wrong.push(format!("{what}\n  cluster: {cluster:.900}\n  node:    {node:.900}"));
        }
    }

    fn get(&mut self, path: &str) {
        self.check(path, |client| client.get(path));
    }

    fn post(&mut self, path: &str, body: &Value) {
        self.check(&format!("{path} {body}"), |client| client.json("POST", path, body));
    }

    fn search(&mut self, index: &str, body: &Value) {
        self.post(&format!("/indexes/{index}/search"), body);
    }

    fn end(self) {
        tell!("{} comparisons", self.compared);
        assert!(
            self.wrong.is_empty(),
            "{} of {}:\n{}",
            self.wrong.len(),
            self.compared,
            self.wrong.join("\n")
        );
    }
}

/// Status and body, without volatile members.
fn told(answer: &Answer) -> String {
    let mut text = String::from_utf8_lossy(&answer.bytes).into_owned();
    for name in VOLATILE {
        let member = format!("\"{name}\":");
        let mut parts = text.split(&member);
        let mut masked = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = match part.strip_prefix('"') {
                Some(rest) => rest.find('"').map_or(part.len(), |end| end + 2),
                None => part.find([',', '}']).unwrap_or(part.len()),
            };
            masked.push_str(&format!("{member}?{}", &part[end..]));
        }
        text = masked;
    }
    format!("{} {text}", answer.status)
}
