use super::*;
use serde_json::json;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn asked(body: &str) -> Value {
    let request = SearchRequest::from_body(body.as_bytes()).unwrap();
    serde_json::from_slice(&request.for_shards(&[Shard(0)], Additions::default())).unwrap()
}

#[test]
fn pages_of_a_query_have_one_seed_whatever_route_they_take() {
    let request = |body: &str| SearchRequest::from_body(body.as_bytes()).unwrap();
    let near = request(r#"{"q":"a","limit":20}"#);
    let mut far = request(r#"{"q":"a","limit":20,"offset":900,"attributesToRetrieve":["id"]}"#);
    far.name_index("i");
    assert_eq!(near.seed("i"), far.seed("i"));
    assert_ne!(near.seed("i"), near.seed("j"));
    assert_ne!(near.seed("i"), request(r#"{"q":"b"}"#).seed("i"));
}

#[test]
fn a_node_is_asked_from_the_first_hit_on() {
    assert_eq!(
        asked(r#"{"q":"a","offset":40,"limit":10,"unknown":{"x":1}}"#),
        json!({"q":"a","limit":50,"unknown":{"x":1},"showRankingScoreDetails":true,
               "filter":["_miroir_shard IN [\",,,\"]"]})
    );
    assert_eq!(asked(r#"{"page":3,"hitsPerPage":5}"#)["hitsPerPage"], 15);
    assert_eq!(asked(r#"{"page":0}"#)["hitsPerPage"], 0);
    assert_eq!(asked(r#"{"limit":0,"offset":3}"#)["limit"], 0);
    assert_eq!(asked(r#"{"q":"a","limit":0,"offset":3,"hybrid":{"embedder":"e"}}"#)["limit"], 3);
    assert_eq!(asked("{}")["limit"], 20);
    assert_eq!(asked(r#"{"page":null,"hitsPerPage":null,"attributesToRetrieve":null}"#)["limit"], 20);
    assert_eq!(asked(r#"{"limit":18446744073709551615}"#)["limit"], MOST_HITS);
    assert_eq!(asked(r#"{"limit":18446744073709551615,"offset":20}"#)["limit"], 0, "as a node counts");
}

#[test]
fn the_clients_filter_is_kept() {
    let tag = "_miroir_shard IN [\",,,\"]";
    assert_eq!(asked(r#"{"filter":"a = 1 OR b = 2"}"#)["filter"], json!(["a = 1 OR b = 2", tag]));
    assert_eq!(asked(r#"{"filter":["a = 1",["b = 2"]]}"#)["filter"], json!(["a = 1", ["b = 2"], tag]));
    assert_eq!(asked(r#"{"filter":null}"#)["filter"], json!([tag]));
}

#[test]
fn the_seed_does_not_depend_on_the_page() {
    let seed = |body: &str| SearchRequest::from_body(body.as_bytes()).unwrap().seed("movies");
    assert_eq!(seed(r#"{"q":"a","offset":20}"#), seed(r#"{"limit":5,"q":"a"}"#));
    assert_ne!(seed(r#"{"q":"a"}"#), seed(r#"{"q":"b"}"#));
    let shown = r#"{"q":"a","attributesToRetrieve":["t"],"attributesToHighlight":["*"],"showRankingScore":true,"facets":["x"]}"#;
    assert_eq!(seed(r#"{"q":"a"}"#), seed(shown));
}

#[test]
fn what_a_node_would_refuse_is_unreadable() {
    for body in [
        "",
        r#"{"limit":"x"}"#,
        r#"{"limit":null}"#,
        r#"{"showRankingScoreDetails":null}"#,
        r#"{"limit":-1}"#,
        "[]",
        "{",
        r#"{"page":1.5}"#,
    ] {
        assert!(SearchRequest::from_body(body.as_bytes()).is_err(), "{body}");
    }
}
