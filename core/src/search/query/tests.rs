use super::*;
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn query(body: &Value) -> IndexQuery {
    let config = IndexConfig {
        distinct_attribute: Some("group".into()),
        primary_key: Some("id".into()),
        ..IndexConfig::default()
    };
    IndexQuery::new("i".into(), config, SearchRequest::from_body(body.to_string().as_bytes()).unwrap())
}

#[test]
fn totals_are_without_what_the_hits_of_the_page_leave_out() {
    let body = json!({"limit": 2});
    let query = query(&body);
    let asked = query.for_shards(&[Shard(0)]);
    assert_eq!(asked.len(), 2);
    let counting: Value = serde_json::from_slice(&asked[1]).unwrap();
    assert_eq!((&counting["limit"], &counting["facets"]), (&json!(0), &json!(["group"])));
    assert!(serde_json::from_slice::<Value>(&asked[0]).unwrap().get("facets").is_none());
    let hits = |ids: &[(u64, &str)]| {
        let hits =
            ids.iter().map(|(id, group)| json!({"id": id, "group": group, "_rankingScoreDetails": {}}));
        json!({"hits": hits.collect::<Vec<_>>(), "limit": 2, "offset": 0, "estimatedTotalHits": 9})
            .to_string()
    };
    let counts = |total: u64, groups: Value| {
        json!({"hits": [], "limit": 0, "offset": 0, "estimatedTotalHits": total, "facetDistribution": {"group": groups},
            "facetStats": {}})
        .to_string()
    };
    let own = [hits(&[(1, "A"), (4, "b")]), hits(&[(2, "a"), (3, "c")])];
    let told = [counts(7, json!({"A": 4, "b": 3})), counts(5, json!({"a": 2, "c": 3}))];
    let bytes = |list: &[String; 2]| list.each_ref().map(|it| it.as_bytes().to_vec());
    let (own, told) = (bytes(&own), bytes(&told));
    fn refs(list: &[Vec<u8>; 2]) -> Vec<&[u8]> {
        list.iter().map(Vec::as_slice).collect()
    }
    let Merged::Body(merged) = query.merge(&refs(&own), &[], &refs(&told)).unwrap() else { panic!("once") };
    let merged: Value = serde_json::from_slice(&merged).unwrap();
    // Six documents have the first hit's group, and three the second's.
    assert_eq!((&merged["hits"][1]["id"], &merged["estimatedTotalHits"]), (&json!(3), &json!(12 - 5 - 2)));
}

#[test]
fn only_placeholders_are_counted_so() {
    for body in [
        json!({"q": "a"}),
        json!({"sort": ["x:asc"]}),
        json!({"page": 1}),
        json!({"hybrid": {"embedder": "e"}, "vector": [1.0]}),
    ] {
        assert_eq!(
            query(&body)
                .for_shards(&[Shard(0)])
                .iter()
                .filter(|it| it.windows(9).any(|w| w == br#""limit":0"#))
                .count(),
            0,
            "{body}"
        );
    }
    assert!(query(&json!({"q": " "})).counts());
}
