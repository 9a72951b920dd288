//! The whole API: checks that what `docs/compatibility.md` says about every route is true, also about requests that it refuses.

mod authority;
mod keys;
mod manners;
mod refused;
mod table;

use miroir_tests::{Answer, Client, Node, Sandbox, nodes_are_real, tell, wait_until};
use serde_json::{Value, json};
use table::Route;

/// The index that most requests use.
const INDEX: &str = "films";

/// Members whose values differ between any two servers.
const VOLATILE: [&str; 26] = [
    "processingTimeMs",
    "requestUid",
    "enqueuedAt",
    "startedAt",
    "finishedAt",
    "duration",
    "createdAt",
    "updatedAt",
    "uid",
    "taskUid",
    "batchUid",
    "batchStrategy",
    "stats",
    "progress",
    "lastUpdate",
    "databaseSize",
    "usedDatabaseSize",
    "rawDocumentDbSize",
    "avgDocumentSize",
    "dumpUid",
    "preCompactionSize",
    "postCompactionSize",
    "commitSha",
    "commitDate",
    // Members of a search rule, and of the network.
    "lastUpdatedAt",
    "version",
];

/// A cluster and a single node that get the same requests.
struct Pair<'p> {
    sandbox: &'p Sandbox,
    node: &'p Node,
    /// Whether nodes are real Meilisearch.
    is_real: bool,
    wrong: Vec<String>,
    compared: usize,
}

impl<'p> Pair<'p> {
    fn new(sandbox: &'p Sandbox, node: &'p Node) -> Self {
        let is_real = nodes_are_real();
        let pair = Self { sandbox, node, is_real, wrong: Vec::new(), compared: 0 };
        for client in pair.clients() {
            fill(client);
        }
        // Routes are asked for it.
        keys::made_once(
            &pair,
            &json!({"uid": keys::UID, "actions": ["version"], "indexes": ["*"], "expiresAt": null}),
        );
        pair
    }

    /// Nothing differed, in so many comparisons at least.
    fn end(self, at_least: usize) {
        let Self { wrong, compared, .. } = self;
        tell!("{compared} comparisons");
        assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(compared >= at_least, "{compared}");
    }

    fn clients(&self) -> [&Client; 2] {
        [&self.sandbox.client, &self.node.client]
    }

    /// Sends the same request to both, with a key.
    fn ask(
        &self,
        key: Option<&str>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> [Answer; 2] {
        self.clients().map(|client| {
            // The progress of tasks may differ, so wait until all have ended.
            if path.starts_with("/tasks") {
                let unfinished = "/tasks?statuses=enqueued,processing&limit=1";
                wait_until("tasks have ended", || client.get(unfinished).body["total"] == 0);
            }
            let (body, mut headers) =
                (if body.is_null() { String::new() } else { body.to_string() }, headers.to_vec());
            if !body.is_empty() {
                headers.push(("content-type", "application/json"));
            }
            client.under(key).ask(method, path, &headers, body)
        })
    }

    fn check(&mut self, what: &str, cluster: impl PartialEq<Value> + std::fmt::Display, node: Value) {
        self.compared += 1;
        if cluster != node {
            self.wrong.push(format!("{what}\n  cluster: {cluster:.600}\n  node:    {node:.600}"));
        }
    }

    /// Whether the development node lacks this route of Meilisearch, so that there is nothing to compare with.
    fn lacks(&self, answer: &Answer) -> bool {
        !self.is_real && [404, 405].contains(&answer.status) && answer.bytes.is_empty()
    }
}

fn fill(client: &Client) {
    let settings = json!({
        "filterableAttributes": ["genre", "year"], "sortableAttributes": ["year"],
        "embedders": {"mine": {"source": "userProvided", "dimensions": 2}},
    });
    client.create(INDEX, "id", &settings);
    let genres = ["drama", "comedy", "crime"];
    let films = (1..=30).map(|id| {
        let vector = json!({"mine": [id, 1]});
        json!({"id": id, "title": format!("film number {id}"), "genre": genres[id % 3], "year": 1990 + id, "_vectors": vector})
    });
    client.add(INDEX, &films.collect());
    client.create("bare", "id", &json!({"stopWords": ["a"]}));
    for index in ["spare", "emptied"] {
        client.add(index, &json!([{"id": 1}, {"id": 2}]));
    }
}

/// An answer without volatile members.
fn comparable(answer: &Answer) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
                members.values_mut().for_each(clean);
            }
            Value::Array(members) => members.iter_mut().for_each(clean),
            _ => {}
        }
    }
    let mut body = answer.body.clone();
    clean(&mut body);
    json!({ "status": answer.status, "body": body })
}

fn changes_nothing(route: &Route) -> bool {
    let is_read = ["/search", "/facet-search", "/similar", "/multi-search", "/fetch", "/fields"];
    route.method == "GET" || (route.method == "POST" && is_read.iter().any(|end| route.path.ends_with(end)))
}

/// A typical request of a route.
fn example(route: &Route) -> (String, Value) {
    let index = match (&*route.method, &*route.path) {
        ("DELETE", "/indexes/{uid}") => "spare",
        ("DELETE", "/indexes/{uid}/documents") => "emptied",
        // Settings of an index without documents are applied quickly.
        (_, path) if path.contains("/settings") => "bare",
        _ => INDEX,
    };
    let uid =
        if route.path.starts_with("/tasks") || route.path.starts_with("/batches") { "0" } else { index };
    let mut path = route.path.replace("{uid}", uid).replace("{id}", "1").replace("{key}", keys::UID);
    path = path.replace("{uuid}", keys::UID).replace("{workspace}", "w").replace("{rule}", "r");
    let name = route.path.strip_prefix("/indexes/{uid}/settings/");
    let body = match (&*route.method, &*route.path) {
        ("GET" | "DELETE", _) => Value::Null,
        (_, "/indexes") => json!({"uid": "fresh", "primaryKey": "id"}),
        ("PATCH", "/indexes/{uid}") => json!({"primaryKey": "id"}),
        (_, "/indexes/{uid}/search") => json!({"q": "film", "facets": ["genre"], "sort": ["year:desc"]}),
        (_, "/indexes/{uid}/facet-search") => json!({"facetName": "genre", "facetQuery": "c"}),
        (_, "/indexes/{uid}/similar") => json!({"id": 1, "embedder": "mine"}),
        (_, "/multi-search") => {
            json!({"queries": [{"indexUid": INDEX, "q": "number"}, {"indexUid": "emptied"}]})
        }
        (_, "/indexes/{uid}/documents/fetch") => json!({"filter": "year > 2010", "limit": 5}),
        (_, "/indexes/{uid}/documents/delete-batch") => json!([28, 29]),
        (_, "/indexes/{uid}/documents/delete") => json!({"filter": "year = 2020"}),
        (_, "/indexes/{uid}/documents/edit") => json!({"function": "doc.x = 1"}),
        (_, "/indexes/{uid}/documents") => {
            json!([{"id": 31, "title": "one more", "_vectors": {"mine": [1, 1]}}])
        }
        (_, "/indexes/{uid}/settings") => json!({"stopWords": ["of"], "rankingRules": ["words", "typo"]}),
        (_, "/indexes/{uid}/fields" | "/experimental-features") => json!({}),
        (_, "/swap-indexes") => json!([{"indexes": [INDEX, "emptied"]}]),
        ("POST", "/keys") => {
            json!({"uid": keys::OTHER_UID, "actions": ["search"], "indexes": ["*"], "expiresAt": null})
        }
        ("PATCH", "/keys/{key}") => json!({"name": "told"}),
        ("POST", "/webhooks") => json!({"url": "no address"}),
        ("PATCH", "/webhooks/{uuid}") => json!({"url": "http://example.org"}),
        (_, "/render-template") => json!({
            "template": {"kind": "inlineDocumentTemplate", "inline": "{{ doc.title }}"},
            "input": {"kind": "indexDocument", "indexUid": INDEX, "id": "3"},
        }),
        (_, "/export") => json!({"url": "http://127.0.0.1:9", "indexes": {"of-no-index": {}}}),
        (_, "/network") => json!({"self": "here", "remotes": {"there": {"url": "http://127.0.0.1:9"}}}),
        (_, "/network/control") => {
            json!({"origin": {"remoteName": "x", "taskUid": 1, "networkVersion": keys::UID}})
        }
        (_, "/chats/{workspace}/settings") => {
            json!({"apiKey": "a key of a model", "prompts": {"system": "Be kind."}})
        }
        (_, "/dynamic-search-rules/{rule}") => {
            json!({"actions": [{"selector": {"id": "9"}, "action": {"type": "pin", "position": 1}}]})
        }
        (_, "/dynamic-search-rules") => json!({"limit": 3}),
        (_, "/logs/stderr" | "/logs/stream") => json!({"target": "info"}),
        _ => name.map_or(Value::Null, setting),
    };
    match (&*route.method, &*route.path) {
        ("GET", "/indexes/{uid}/search") => path += "?q=film&facets=genre",
        ("GET", "/indexes/{uid}/similar") => path += "?id=1&embedder=mine",
        ("DELETE", "/tasks") | ("POST", "/tasks/cancel") => path += "?uids=9999",
        _ => {}
    }
    (path, body)
}

fn setting(name: &str) -> Value {
    match name {
        "filterable-attributes" | "displayed-attributes" => json!(["id", "title", "genre", "year"]),
        "sortable-attributes" | "searchable-attributes" => json!(["title", "year"]),
        "typo-tolerance" => json!({"enabled": false}),
        "stop-words" => json!(["of", "the"]),
        "non-separator-tokens" => json!(["#"]),
        "separator-tokens" => json!(["|"]),
        "dictionary" => json!(["J. R. R."]),
        "synonyms" => json!({"film": ["movie"]}),
        "distinct-attribute" => json!("year"),
        "proximity-precision" => json!("byAttribute"),
        "localized-attributes" => json!([{"attributePatterns": ["title"], "locales": ["eng"]}]),
        "ranking-rules" => json!(["words", "year:desc"]),
        "faceting" => json!({"maxValuesPerFacet": 7}),
        "pagination" => json!({"maxTotalHits": 50}),
        "embedders" => json!({"mine": {"source": "userProvided", "dimensions": 2}}),
        "search-cutoff-ms" => json!(900),
        "facet-search" => json!(false),
        "prefix-search" => json!("disabled"),
        "foreign-keys" => json!([]),
        _ => json!({}),
    }
}

// First the checks of refused requests: they show that nothing was changed.

pub fn keys_that_lack_a_right_are_told_what_one_node_tells(sandbox: &Sandbox, node: &Node) {
    let mut pair = Pair::new(sandbox, node);
    keys::check(&mut pair, &table::routes());
    pair.end(350);
}

pub fn small_keys_get_no_further_however_a_path_is_spelt(sandbox: &Sandbox, node: &Node) {
    let mut pair = Pair::new(sandbox, node);
    authority::check(&mut pair, &table::routes());
    pair.end(100);
}

pub fn http_is_spoken_as_by_one_node(sandbox: &Sandbox, node: &Node) {
    let mut pair = Pair::new(sandbox, node);
    manners::check(&mut pair, &table::routes());
    pair.end(250);
}

pub fn what_makes_no_sense_is_refused_as_by_one_node(sandbox: &Sandbox, node: &Node) {
    let mut pair = Pair::new(sandbox, node);
    refused::check(&mut pair, &table::routes());
    pair.end(250);
}

pub fn every_route_is_what_the_table_says(sandbox: &Sandbox, node: &Node) {
    let mut pair = Pair::new(sandbox, node);
    table::check(&mut pair, &table::routes());
    pair.end(100);
}
