//! Sends the same requests to a cluster and a single node, and measures their agreement by kind of request.
//!
//! `MIROIR_EQUIVALENCE_QUERIES` sets the number of requests (320), `MIROIR_EQUIVALENCE_SEED` the seed (1).

mod compare;
mod documents;
mod errors;
mod queries;

use compare::{Agreement, compare, difference};
use documents::SCATTERED;
use miroir_tests::{Client, Node, Options, Random, Sandbox, number, tell, trials::Fixture};
use queries::{KINDS, LATER, Request};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Mutex};

const DOCUMENTS: usize = 900;

/// The kind of estimated totals. A node's estimate depends on how many documents it has to look at to fill a page. With a
/// threshold or distinct values, this number changes with the distribution of documents. Requests for pages have exact totals.
const ESTIMATES: &str = "estimates";

/// The kinds that sharding cannot make exact, as `docs/compatibility.md` says, with the least expected agreement in percent.
const INEXACT: [(&str, u32); 7] = [
    (ESTIMATES, 10),
    ("distinct lists", 20),
    ("federated sorts", 80),
    ("near vectors", 70),
    // Among equally near hits, the vector index of a node may find any of them first.
    ("vector", 75),
    ("distinct facets", 0),
    ("frequency", 40),
];

/// The same for `miroir-devnode`, whose engine is that of Meilisearch 1.15.
const INEXACT_ON_DEVNODE: [(&str, u32); 7] = [
    // It merges the facets of indexes with different facet orders, which 1.50 refuses, and orders merged facets by name.
    ("errors", 98),
    // Among values with the same count, its engine shows others than that of 1.50.
    ("facets by count", 60),
    ("facets cut", 80),
    // Its engine includes hits below the threshold in a page's total, as far as it has looked at them.
    ("threshold", 70),
    // Its vector index finds fewer of the nearest vectors.
    ("near vectors", 5),
    ("deep vectors", 0),
    ("deep hybrid", 0),
];

/// The least expected agreement by kind; it is 100 for kinds that are not named.
fn floors() -> BTreeMap<&'static str, u32> {
    let mut floors = BTreeMap::from(INEXACT);
    if !miroir_tests::nodes_are_real() {
        floors.extend(INEXACT_ON_DEVNODE);
    }
    floors
}

/// By kind: the number of requests, of those that agree exactly, and of those that agree except for the order of facet values
/// with the same count.
type Tally = BTreeMap<&'static str, (u32, u32, u32)>;

/// A cluster or a node.
struct Asked {
    client: Client,
    /// Clients with tenant tokens.
    tenants: Vec<Client>,
    /// Clients with keys that do not allow the requests.
    strangers: Vec<Client>,
}

const KEY_UID: &str = "5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a11";

impl Asked {
    fn fill(client: &Client) -> Self {
        for index in documents::ALL {
            client.create(index, "id", &documents::settings(index));
            for (method, payload) in documents::payloads(index, DOCUMENTS) {
                client.succeeded(&client.json(method, &format!("/indexes/{index}/documents"), &payload));
            }
        }
        // An index without any settings.
        client.create("bare", "id", &json!({}));
        client.add("bare", &json!([{"id": 1, "a": 2}]));
        let key = |uid: &str, action: &str, index: &str| {
            let key = json!({"uid": uid, "actions": [action], "indexes": [index], "expiresAt": null});
            let key = client.json("POST", "/keys", &key);
            assert_eq!(key.status, 201, "{}", key.body);
            key.body["key"].as_str().unwrap().to_owned()
        };
        let writer = key("5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a12", "documents.add", "*");
        let elsewhere = key("5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a13", "search", "elsewhere");
        let key = &key(KEY_UID, "search", "*");
        let rules = [
            json!({"*": {"filter": "rank < 150"}}),
            json!({"things": {"filter": ["group < 40", "rank > 3"]}, SCATTERED: null}),
            json!(["others"]),
        ];
        let tokens = rules.iter().map(|rules| crate::token::tenant_token(KEY_UID, key, rules));
        let forged = crate::token::tenant_token(KEY_UID, "another key", &rules[0]);
        let bad_filter = crate::token::tenant_token(KEY_UID, key, &json!({"*": {"filter": "nope = 1"}}));
        let texts = ["wrong", &writer, &elsewhere, &forged, &bad_filter];
        let mut strangers = vec![client.under(None)];
        strangers.extend(texts.iter().map(|text| client.under(Some(text))));
        let tenants = tokens.map(|token| client.under(Some(&token))).collect();
        Self { client: client.clone(), tenants, strangers }
    }

    /// The same cluster or node, asked by the strangers.
    fn by_strangers(&self) -> impl Iterator<Item = Self> {
        let asked =
            |client: &Client| Self { client: client.clone(), tenants: Vec::new(), strangers: Vec::new() };
        self.strangers.iter().map(asked)
    }

    fn ask(&self, request: &Request) -> (u16, Value) {
        let client = if request.kind == "tenant tokens" {
            &self.tenants[request.body.to_string().len() % self.tenants.len()]
        } else {
            &self.client
        };
        let ask = |body: &Value| {
            let answer = match body {
                Value::Null => client.get(&request.path),
                body => client.json(request.method, &request.path, body),
            };
            (answer.status, answer.body)
        };
        let (status, mut answer) = ask(&request.body);
        if request.kind == "all pages" {
            // Combines ten pages into one answer.
            let mut body = request.body.clone();
            for page in 1..10 {
                body["offset"] = json!(page * body["limit"].as_u64().unwrap());
                let mut hits = ask(&body).1["hits"].take();
                if let (Value::Array(all), Value::Array(hits)) = (&mut answer["hits"], &mut hits) {
                    all.append(hits);
                }
            }
        }
        (status, answer)
    }
}

fn run(cluster: &Asked, node: &Asked, count: u64, seed: u64) -> Tally {
    let mut tally = Tally::new();
    let mut random = Random(seed);
    for position in 0..count {
        let kind = KINDS[position as usize % KINDS.len()];
        check(cluster, node, &queries::request(kind, &mut random), &mut tally);
    }
    for position in 0..(count as usize * LATER.len()).div_ceil(KINDS.len()) {
        let kind = LATER[position % LATER.len()];
        check(cluster, node, &queries::request(kind, &mut random), &mut tally);
    }
    tally
}

/// Compares refused requests, and the answers to clients without the right to ask.
fn refusals(cluster: &Asked, node: &Asked) -> Tally {
    let mut tally = Tally::new();
    for request in ["things", "others", SCATTERED].iter().flat_map(|index| errors::errors(index)) {
        check(cluster, node, &request, &mut tally);
    }
    for (cluster, node) in cluster.by_strangers().zip(node.by_strangers()) {
        for request in errors::every_route("things") {
            check(&cluster, &node, &request, &mut tally);
        }
    }
    tally
}

fn check(cluster: &Asked, node: &Asked, request: &Request, tally: &mut Tally) {
    let (mut one, mut other) = (cluster.ask(request), node.ask(request));
    let estimated = request.kind.contains("distinct") || request.kind == "threshold";
    // If no query has pages, the total of a federated search is an estimate too.
    let names: &[&str] = match request.kind {
        "federated distinct" => &["estimatedTotalHits", "totalHits", "totalPages"],
        _ => &["estimatedTotalHits"],
    };
    if estimated && names.iter().any(|name| one.1[*name].is_u64()) {
        let take = |answer: &mut Value| names.iter().map(|name| answer[*name].take()).collect::<Vec<_>>();
        let estimates = [take(&mut one.1), take(&mut other.1)];
        let entry = tally.entry(ESTIMATES).or_default();
        entry.0 += 1;
        entry.1 += u32::from(estimates[0] == estimates[1]);
    }
    let agreement = if one.0 == other.0 { compare(&one.1, &other.1) } else { Agreement::No };
    let entry = tally.entry(request.kind).or_default();
    entry.0 += 1;
    match agreement {
        Agreement::Exact => entry.1 += 1,
        Agreement::Ties => entry.2 += 1,
        Agreement::No => {
            tell!("{}: {} {} {}", request.kind, request.method, request.path, request.body);
            tell!("  {} {} {}", one.0, other.0, difference(&one.1, &other.1));
        }
    }
}

fn report(title: &str, tally: &Tally) {
    tell!("{title}\n{:<20} {:>8} {:>8} {:>8} {:>9}", "kind", "requests", "equal", "but ties", "agreement");
    for (kind, (all, equal, ties)) in tally {
        tell!("{kind:<20} {all:>8} {equal:>8} {ties:>8} {:>8.1}%", percent(*all, equal + ties));
    }
}

fn percent(all: u32, agreeing: u32) -> f64 {
    f64::from(agreeing) * 100.0 / f64::from(all.max(1))
}

/// The kinds that have to agree, and do not.
fn wanting(tally: &Tally) -> Vec<String> {
    let floors = floors();
    let exact = tally.iter().filter(|(kind, _)| !floors.contains_key(*kind));
    let wanting = exact.filter(|(_, (all, equal, ties))| equal + ties < *all);
    wanting.map(|(kind, (all, equal, ties))| format!("{kind} {:.1}%", percent(*all, equal + ties))).collect()
}

/// The kinds that cannot be exact, and agree less than is expected of them over all forms.
fn wanting_of_inexact(forms: &[Tally]) -> Vec<String> {
    let (mut wanting, mut inexact) = (Vec::new(), Tally::new());
    for (kind, (all, equal, ties)) in forms.iter().flatten() {
        let sum = inexact.entry(kind).or_default();
        *sum = (sum.0 + all, sum.1 + equal, sum.2 + ties);
    }
    for (kind, least) in floors() {
        let (all, equal, ties) = inexact.get(kind).copied().unwrap_or_default();
        if percent(all, equal + ties) < f64::from(least) {
            wanting.push(format!("{kind} {:.1}% of {all}, at least {least}%", percent(all, equal + ties)));
        }
    }
    wanting
}

/// Writes a copy of every document, with its shard tag, to every node without the gateway. So nodes have additional copies of
/// shards that they do not own, as during a move before the hand-over.
fn copy_everywhere(cluster: &Sandbox) {
    let nodes: Vec<Client> = (0..3).map(|node| cluster.node(node)).collect();
    for index in documents::ALL {
        let everything = json!({"limit": 10_000, "retrieveVectors": true});
        let fetch = format!("/indexes/{index}/documents/fetch");
        let copies: Vec<Value> =
            nodes.iter().map(|node| node.json("POST", &fetch, &everything).body["results"].take()).collect();
        for (position, node) in nodes.iter().enumerate() {
            let has = |document: &Value| {
                let own = copies[position].as_array().unwrap();
                own.iter().any(|own| own["id"] == document["id"])
            };
            let mut extra: Vec<Value> = copies[(position + 1) % 3].as_array().unwrap().clone();
            extra.retain(|document| !has(document));
            assert!(!extra.is_empty() && extra.iter().all(|document| document["_miroir_shard"].is_array()));
            node.add(index, &json!(extra));
            assert_eq!(node.count(index), DOCUMENTS as u64);
        }
    }
}

/// What a cluster is like while it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Healthy,
    /// Whole, and asked for what nodes refuse.
    Refusing,
    OneNodeKilled,
    ExtraCopies,
}

/// A cluster and one node that have the same documents, and what was found of them.
pub struct Twins {
    sandbox: Sandbox,
    _single: Node,
    cluster: Asked,
    node: Asked,
    tallies: Mutex<BTreeMap<Form, Tally>>,
}

impl Twins {
    pub fn start() -> Self {
        let (sandbox, single) = (Sandbox::start(Options::default()), Node::start());
        let (cluster, node) = (Asked::fill(&sandbox.client), Asked::fill(&single.client));
        Self { sandbox, _single: single, cluster, node, tallies: Mutex::default() }
    }

    /// What is found of a form. It is asked once.
    fn tally(&self, form: Form) -> Tally {
        let mut tallies = self.tallies.lock().unwrap();
        let tally = tallies.entry(form).or_insert_with(|| self.ask(form));
        report(&format!("{form:?}"), tally);
        tally.clone()
    }

    fn ask(&self, form: Form) -> Tally {
        let (count, seed) = (number("MIROIR_EQUIVALENCE_QUERIES", 320), number("MIROIR_EQUIVALENCE_SEED", 1));
        let (cluster, node) = (&self.cluster, &self.node);
        match form {
            Form::Healthy => run(cluster, node, count, seed),
            Form::Refusing => refusals(cluster, node),
            Form::OneNodeKilled => {
                self.sandbox.kill("meili-1");
                let tally = run(cluster, node, count / 2, seed + 1);
                self.sandbox.revive("meili-1");
                self.sandbox.wait_repaired();
                tally
            }
            Form::ExtraCopies => {
                copy_everywhere(&self.sandbox);
                run(cluster, node, count / 2, seed + 2)
            }
        }
    }

    fn agree(&self, form: Form) {
        let wanting = wanting(&self.tally(form));
        assert!(wanting.is_empty(), "{wanting:#?}");
    }
}

impl Fixture for Twins {
    fn logs(&self) -> String {
        self.sandbox.logs()
    }
}

pub fn a_cluster_cannot_be_told_from_one_node(twins: &Twins) {
    twins.agree(Form::Healthy);
}

pub fn refusals_cannot_be_told_from_those_of_one_node(twins: &Twins) {
    twins.agree(Form::Refusing);
}

pub fn a_cluster_without_one_node_cannot_be_told_from_one_node(twins: &Twins) {
    twins.agree(Form::OneNodeKilled);
}

pub fn a_cluster_with_extra_copies_cannot_be_told_from_one_node(twins: &Twins) {
    twins.agree(Form::ExtraCopies);
}

/// Over all forms, which are asked where they have not been yet.
pub fn what_sharding_cannot_make_exact_agrees_as_far_as_it_can(twins: &Twins) {
    let forms = [Form::Healthy, Form::Refusing, Form::OneNodeKilled, Form::ExtraCopies];
    let wanting = wanting_of_inexact(&forms.map(|form| twins.tally(form)));
    assert!(wanting.is_empty(), "{wanting:#?}");
}
