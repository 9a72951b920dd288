//! Bodies of every type and compression.

use super::Pair;
use miroir_tests::{Node, Sandbox};
use serde_json::{Value, json};
use std::io::Write;

/// Bodies of every type and compression, on routes of every kind.
pub fn types_and_compressions_of_bodies_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let documents: Vec<Value> = (0..9).map(|id| json!({"id": id, "a": id % 3, "title": "river"})).collect();
    pair.create("typed", "id", &json!({"filterableAttributes": ["a"]}), &json!(documents));
    let json = json!({"q": "river"}).to_string();
    let routes: [(&str, &str, String); 17] = [
        ("POST", "/indexes/typed/search", json.clone()),
        ("POST", "/multi-search", json!({"queries": [{"indexUid": "typed"}]}).to_string()),
        ("POST", "/multi-search", json!({"federation": {}, "queries": [{"indexUid": "typed"}]}).to_string()),
        ("POST", "/indexes/typed/facet-search", json!({"facetName": "a"}).to_string()),
        ("POST", "/indexes/typed/documents/fetch", json!({"limit": 2}).to_string()),
        ("POST", "/indexes/typed/documents", json!([{"id": 1, "a": 1, "title": "river"}]).to_string()),
        ("PUT", "/indexes/typed/documents", json!([{"id": 1, "a": 1}]).to_string()),
        ("POST", "/indexes/typed/documents/delete-batch", json!([77]).to_string()),
        ("POST", "/indexes/typed/documents/delete", json!({"filter": "a = 77"}).to_string()),
        ("PATCH", "/indexes/typed/settings", json!({"stopWords": ["the"]}).to_string()),
        ("PUT", "/indexes/typed/settings/stop-words", json!(["of"]).to_string()),
        ("PATCH", "/indexes/typed/settings/pagination", json!({"maxTotalHits": 500}).to_string()),
        ("PATCH", "/indexes/typed", json!({"primaryKey": "id"}).to_string()),
        ("POST", "/indexes", json!({"uid": "typed", "primaryKey": "id"}).to_string()),
        ("PATCH", "/experimental-features", json!({"metrics": false}).to_string()),
        ("POST", "/keys", json!({"actions": ["nope"], "indexes": [], "expiresAt": null}).to_string()),
        ("POST", "/swap-indexes", json!([]).to_string()),
    ];
    let types = [
        None,
        Some("application/json; charset=utf-8"),
        Some("application/json;charset=latin1"),
        Some("application/vnd.api+json"),
        Some("text/json"),
        Some("application/json+zip"),
        Some("text/plain"),
        Some("application/json, text/plain"),
        Some("application/json ; charset=utf-8"),
        Some("application/"),
        Some(""),
    ];
    for (method, path, body) in &routes {
        for kind in types {
            pair.check(&format!("{method} {path} as {kind:?}"), |client| {
                let answer = client.send(method, path, kind, body.clone());
                if answer.status == 202 {
                    drop(client.ended(&answer));
                }
                answer
            });
        }
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zlib = {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let plain = body.clone().into_bytes();
        let cut = gzip[..gzip.len() - 9].to_vec();
        let streams = [("gzip", gzip.clone()), ("deflate", zlib), ("br", brotli(body.as_bytes()))];
        let others = [
            ("GZIP", gzip.clone()),
            ("identity", plain.clone()),
            ("gzip", plain),
            ("br", gzip),
            ("gzip", cut),
        ];
        // If the body is not a valid stream of its encoding, the development node's error has other words.
        let others = others.into_iter().filter(|_| pair.is_real).collect::<Vec<_>>();
        for (encoding, bytes) in streams.into_iter().chain(others) {
            let whole = bytes.len();
            pair.check(&format!("{method} {path} in {encoding}, {whole} bytes"), |client| {
                let answer =
                    client.encoded(method, path, Some("application/json"), Some(encoding), bytes.clone());
                if answer.status == 202 {
                    drop(client.ended(&answer));
                }
                answer
            });
        }
    }
    pair.end();
}

/// A Brotli stream that stores these bytes uncompressed. Source: RFC 7932, 9.2.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // WBITS 16 (one bit, 0); not the last block; four nibbles with the length minus one; uncompressed.
    let bits = u64::from(length) << 4 | 1 << 20;
    let mut stream = bits.to_le_bytes()[..3].to_vec();
    stream.extend_from_slice(bytes);
    // The empty last block.
    stream.push(3);
    stream
}
