//! Converts the query string of a `GET` request to the body of the same `POST`.

use crate::{
    http::RequestHead,
    query::{last_pairs, members},
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use std::collections::BTreeMap;

/// The parameters of a request: the members of its body, or for a `GET`, of the body that `body_of_query` makes of its query
/// string. `None` if a node would refuse the request.
pub(in crate::search) fn parameters(
    head: &RequestHead,
    body: &[u8],
    body_of_query: fn(&str) -> Option<Map<String, Value>>,
) -> Option<BTreeMap<String, Box<RawValue>>> {
    if head.method != "GET" {
        return serde_json::from_slice(body).ok();
    }
    let members = body_of_query(head.query())?.into_iter();
    members.map(|(name, value)| Some((name, to_raw_value(&value).ok()?))).collect()
}

/// The body that corresponds to the query of `GET /indexes/{uid}/search`; `None` if a parameter is unknown or has the wrong
/// type, in which case a node says what is wrong.
///
/// Source: Meilisearch 1.50, `meilisearch/src/routes/indexes/search.rs`, `SearchQueryGet`.
pub(in crate::search) fn body_of_query(query: &str) -> Option<Map<String, Value>> {
    let mut body = Map::new();
    let (mut embedder, mut ratio) = (None, None);
    for (name, text) in last_pairs(query) {
        let value = match name.as_str() {
            "q" | "cropMarker" | "highlightPreTag" | "highlightPostTag" | "matchingStrategy" | "distinct" => {
                Value::from(text)
            }
            "offset" | "limit" | "page" | "hitsPerPage" | "cropLength" => {
                Value::from(text.parse::<u64>().ok()?)
            }
            "showMatchesPosition"
            | "showRankingScore"
            | "showRankingScoreDetails"
            | "retrieveVectors"
            | "showPerformanceDetails" => Value::from(text.parse::<bool>().ok()?),
            "vector" => {
                let numbers = members(&text).map(|number| number.parse::<f64>());
                numbers.collect::<Result<Vec<_>, _>>().ok()?.into()
            }
            "hybridEmbedder" => {
                embedder = Some(text);
                continue;
            }
            "hybridSemanticRatio" => {
                ratio = Some(text.parse::<f64>().ok()?);
                continue;
            }
            "rankingScoreThreshold" => Value::from(text.parse::<f64>().ok()?),
            "attributesToRetrieve"
            | "attributesToCrop"
            | "attributesToHighlight"
            | "facets"
            | "attributesToSearchOn"
            | "locales" => members(&text).map(Value::from).collect(),
            "sort" => sort_parameters(&text).into_iter().map(Value::from).collect(),
            "filter" => serde_json::from_str(&text).unwrap_or(Value::from(text)),
            _ => return None,
        };
        body.insert(name, value);
    }
    match (embedder, ratio) {
        (Some(embedder), Some(ratio)) => {
            body.insert("hybrid".to_owned(), json!({ "embedder": embedder, "semanticRatio": ratio }));
        }
        (Some(embedder), None) => {
            body.insert("hybrid".to_owned(), json!({ "embedder": embedder }));
        }
        (None, Some(_)) => return None,
        (None, None) => {}
    }
    Some(body)
}

/// Splits at commas, except for those inside `_geoPoint(…)`.
pub(in crate::search) fn sort_parameters(text: &str) -> Vec<String> {
    let mut parameters: Vec<String> = Vec::new();
    let mut inside = false;
    for part in text.trim_matches('"').split(',').map(str::trim) {
        match parameters.last_mut() {
            Some(last) if inside => {
                last.push(',');
                last.push_str(part);
                inside = !(part.ends_with("):asc") || part.ends_with("):desc"));
            }
            _ => {
                inside = part.starts_with("_geoPoint(");
                parameters.push(part.to_owned());
            }
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn parameters_become_a_body() {
        let body = body_of_query("q=a%20b+c&limit=3&facets=x,y&sort=_geoPoint(1,2):asc,p:desc&filter=a%20%3D%201&showRankingScore=true").unwrap();
        assert_eq!(
            Value::Object(body),
            json!({"q":"a b c","limit":3,"facets":["x","y"],"sort":["_geoPoint(1,2):asc","p:desc"],
                   "filter":"a = 1","showRankingScore":true})
        );
        assert_eq!(
            Value::Object(body_of_query("vector=0.5,1&hybridSemanticRatio=0.3&hybridEmbedder=e").unwrap()),
            json!({"vector": [0.5, 1.0], "hybrid": {"embedder": "e", "semanticRatio": 0.3}})
        );
        assert_eq!(body_of_query("filter=[\"a=1\",[\"b=2\"]]").unwrap()["filter"], json!(["a=1", ["b=2"]]));
        assert_eq!(Value::Object(body_of_query("limit=x&limit=2").unwrap()), json!({"limit": 2}));
        assert_eq!(Value::Object(body_of_query("locales=,fra,").unwrap()), json!({"locales": ["fra"]}));
        for bad in ["limit=x", "unknown=1", "showRankingScore=1", "hybridSemanticRatio=1"] {
            assert!(body_of_query(bad).is_none(), "{bad}");
        }
    }
}
