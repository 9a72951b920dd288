//! Documents with vectors are moved byte for byte, with the vectors of clients and of embedders. Nothing is embedded again.

use miroir_tests::{Sandbox, nodes_are_real, serve};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const INDEX: &str = "embedded";
const DOCUMENTS: u64 = 60;

/// Each document as a client sees it: the bytes of its fields and its vectors, by id.
type Shown = BTreeMap<u64, BTreeMap<String, String>>;

/// An index whose documents have vectors, and its state before the move.
pub struct Embedded {
    /// The number of texts that the embedder was asked to embed.
    asked: Arc<AtomicU64>,
    before: u64,
    shown: Shown,
    nearest: Value,
}

fn document(id: u64) -> String {
    let mine = format!("[0.{id}1, 0.333333333, -{id}e-2]");
    let vectors = match id % 6 {
        0 => format!(r#"{{"mine": {mine}}}"#),
        1 => format!(
            r#"{{"mine": {{"embeddings": [{mine}, [1, 0, 0]], "regenerate": false}}, "made": {mine}}}"#
        ),
        2 => format!(
            r#"{{"mine": {mine}, "made": {{"embeddings": [0.5, 0.25, 0.{id}], "regenerate": true}}}}"#
        ),
        3 => r#"{"mine": null, "made": {"regenerate": false, "embeddings": []}}"#.to_owned(),
        4 => format!(r#"{{"mine": {mine}, "made": {{"regenerate": true}}}}"#),
        _ => format!(r#"{{"mine": {mine}, "gone": [1, 2]}}"#),
    };
    format!(
        r#"{{"id": {id}, "title": "number {id} \u00e9", "price": {id}.50, "huge": 12345678901234567890123, "_vectors": {vectors}}}"#
    )
}

impl Embedded {
    /// Creates the index, with an embedder that counts its requests.
    pub fn new(cluster: &Sandbox) -> Self {
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let url = serve(move |_, text| {
            count.fetch_add(1, Ordering::Relaxed);
            json!({"embedding": [1, text.len() % 7, text.iter().map(|byte| u64::from(*byte)).sum::<u64>() % 11]})
                .to_string()
        });
        let client = &cluster.client;
        let settings = json!({"embedders": {
            "mine": {"source": "userProvided", "dimensions": 3},
            "made": {"source": "rest", "url": url, "dimensions": 3, "documentTemplate": "{{doc.title}}",
                     "request": "{{text}}", "response": {"embedding": "{{embedding}}"}}
        }});
        client.create(INDEX, "id", &settings);
        let documents = format!("[{}]", (0..DOCUMENTS).map(document).collect::<Vec<_>>().join(","));
        let path = format!("/indexes/{INDEX}/documents");
        client.succeeded(&client.send("POST", &path, Some("application/json"), documents));
        let before = asked.load(Ordering::Relaxed);
        assert!(before > 0, "the embedder was not used at all");
        let mut embedded = Self { asked, before, shown: Shown::new(), nearest: Value::Null };
        embedded.shown = embedded.shown_by(cluster);
        embedded.nearest = nearest(cluster);
        assert_eq!(embedded.shown.len() as u64, DOCUMENTS);
        let regenerated = |id: u64| embedded.shown[&id]["_vectors"].contains("true");
        assert!(regenerated(0) && regenerated(2) && !regenerated(1) && !regenerated(3));
        embedded
    }

    /// Checks that nothing has changed, although every document has moved.
    pub fn is_as_it_was(&self, cluster: &Sandbox) {
        assert_eq!(self.shown_by(cluster), self.shown);
        // `miroir-devnode` does not always find the nearest vectors.
        if nodes_are_real() {
            assert_eq!(nearest(cluster), self.nearest);
        }
        assert_eq!(self.asked.load(Ordering::Relaxed), self.before, "something was embedded again");
    }

    fn shown_by(&self, cluster: &Sandbox) -> Shown {
        let path = format!("/indexes/{INDEX}/documents?limit=1000&retrieveVectors=true");
        let answer = cluster.client.get(&path);
        assert_eq!(answer.header("x-miroir-missing-shards"), None);
        let page: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&answer.bytes).unwrap();
        let documents: Vec<BTreeMap<String, Box<RawValue>>> =
            serde_json::from_str(page["results"].get()).unwrap();
        let shown = documents.into_iter().map(|document| {
            let text = |(name, value): (&String, &RawValue)| {
                // Embedders have no fixed order.
                let sorted = (name == "_vectors").then(|| value.get().parse::<Value>().unwrap().to_string());
                (name.clone(), sorted.unwrap_or_else(|| value.get().to_owned()))
            };
            let fields = document.iter().map(|(name, value)| (name, &**value));
            (document["id"].get().parse().unwrap(), fields.map(text).collect())
        });
        shown.collect()
    }
}

/// The documents nearest to a vector, with their scores.
fn nearest(cluster: &Sandbox) -> Value {
    let query = json!({"vector": [0.3, 0.4, -0.2], "hybrid": {"embedder": "mine", "semanticRatio": 1},
                       "limit": 20, "showRankingScore": true, "attributesToRetrieve": ["id"]});
    cluster.client.search(INDEX, &query)["hits"].take()
}
