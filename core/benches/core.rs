//! Measures the hot paths on one core of the host: splitting a payload, merging a search, hashing, planning.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use miroir_core::{
    documents::{DocumentReader, Format, PrimaryKey},
    fan_out,
    http::RequestHead,
    intake::Intake,
    search::{hits::answer::NodeAnswer, merge::merge, request::SearchRequest},
    shard::Shard,
    topology::{IndexConfig, Topology},
};
use serde_json::json;
use std::{collections::BTreeSet, hint::black_box, sync::Arc};

const SHARDS: u16 = 64;

/// About 16 MB of documents of 1 KB.
fn payload() -> Vec<u8> {
    let text = "several words of text, such as a product's description has them ".repeat(14);
    let documents: Vec<_> = (0..16_000)
        .map(|id| json!({"id": id, "title": format!("title {id}"), "text": text, "price": id}))
        .collect();
    serde_json::to_vec(&documents).unwrap_or_default()
}

fn split(criterion: &mut Criterion) {
    let payload = payload();
    let key = PrimaryKey::new("id");
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Bytes(payload.len() as u64)).sample_size(20);
    group.bench_function("json, 1 KB documents, 16 KiB chunks, one node's two thirds", |bencher| {
        bencher.iter(|| {
            let mut reader = DocumentReader::new(Format::Json, Some(&key), u64::MAX);
            for chunk in payload.chunks(16 << 10) {
                let _ = reader.push(chunk);
            }
            let mut documents = reader.finish().unwrap_or_default();
            let _ = documents.assign(&key, SHARDS);
            black_box(documents.tagged(1, |shard| shard.0 % 3 < 2))
        });
    });
    group.finish();
}

/// A node's answer with 20 hits of 1 KB each.
fn answer(node: u32) -> String {
    let text = "x".repeat(900);
    let hits: Vec<_> = (0..20)
        .map(|hit| {
            json!({"id": node * 100 + hit, "text": text, "_miroir_shard": ",,,", "_rankingScoreDetails": {
                "words": {"order": 0, "matchingWords": 2, "maxMatchingWords": 2, "score": 1.0},
                "typo": {"order": 1, "typoCount": hit / 5, "maxTypoCount": 4, "score": 1.0},
                "proximity": {"order": 2, "score": 0.9}}})
        })
        .collect();
    json!({"hits": hits, "query": "x", "processingTimeMs": 1, "limit": 20, "offset": 0, "estimatedTotalHits": 900})
        .to_string()
}

fn search(criterion: &mut Criterion) {
    let answers: Vec<String> = (0..3).map(answer).collect();
    let index = IndexConfig::default();
    criterion.bench_function("merge 3 nodes x 20 hits of 1 KB", |bencher| {
        bencher.iter_batched(
            || SearchRequest::from_body(br#"{"q":"x"}"#),
            |request| {
                let parts: Vec<_> =
                    answers.iter().filter_map(|body| NodeAnswer::read(body.as_bytes()).ok()).collect();
                request.map(|request| merge(&request, &index, &parts))
            },
            BatchSize::SmallInput,
        );
    });
    let config = json!({"schema": 1, "version": 1,
        "nodes": (0..8).map(|node| json!({"name": node.to_string(), "cluster": node.to_string()})).collect::<Vec<_>>(),
        "placement": (0..SHARDS).map(|shard| [shard % 8, (shard * 3 + 1) % 8]).collect::<Vec<_>>()});
    let topology = Topology::from_json(config.to_string().as_bytes()).ok();
    criterion.bench_function("plan 64 shards on 8 nodes, 2 replicas", |bencher| {
        let mut seed = 0;
        bencher.iter(|| {
            seed += 1;
            topology
                .as_ref()
                .map(|topology| fan_out::plan(topology, &[], topology.shards(), &BTreeSet::new(), seed))
        });
    });
    criterion.bench_function("shard of an id", |bencher| {
        bencher.iter(|| Shard::of_document(black_box("1234567890"), SHARDS));
    });
}

/// Measures the way from a search's head and body to its callouts.
fn begin(criterion: &mut Criterion) {
    let config = json!({"schema": 1, "version": 1,
        "nodes": (0..8).map(|node| json!({"name": node.to_string(), "cluster": node.to_string()})).collect::<Vec<_>>(),
        "placement": (0..SHARDS).map(|shard| [shard % 4, 4 + shard % 4]).collect::<Vec<_>>()});
    let Ok(topology) = Topology::from_json(config.to_string().as_bytes()) else { return };
    let topology = Arc::new(topology);
    let query = json!({"indexUid": "movies", "q": "red shoes", "filter": "price < 10 AND brand = x",
        "facets": ["brand", "price"], "sort": ["price:asc"], "attributesToHighlight": ["title"]});
    let mut search = query.clone();
    search.as_object_mut().map(|search| search.remove("indexUid"));
    for (name, path, body) in [
        ("begin a search", "/indexes/movies/search", search.to_string()),
        ("begin a multi-search of 10", "/multi-search", json!({"queries": vec![&query; 10]}).to_string()),
    ] {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let head = RequestHead {
            method: "POST".to_owned(),
            path: path.into(),
            headers: vec![header("content-type", "application/json"), header("authorization", "Bearer key")],
        };
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| match Intake::of(Arc::clone(&topology), "vm", head.clone()) {
                Intake::Collect(mut collector) => {
                    let _ = collector.push(body.as_bytes());
                    Some(collector.finish(|_| Ok(())))
                }
                _ => None,
            });
        });
    }
}

criterion_group!(benches, split, search, begin);
criterion_main!(benches);
