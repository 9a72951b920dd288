//! Many queries, with an answer for each or one for all.

use super::{
    super::documents::{INDEXES, WORDS},
    search::{filter, hidden_sorts, query},
};
use miroir_tests::Random;
use serde_json::{Value, json};

/// The same with several queries, with an answer for each query, or one federated answer.
pub fn many_hidden_sorts(random: &mut Random) -> Value {
    let sort = hidden_sorts(random);
    let federated = random.one_in(2);
    let mut queries = Vec::new();
    for _ in 0..1 + random.below(3) {
        // In federated searches the scores of words before a sort are compared only approximately, so such queries have no
        // words.
        let mut query = json!({"indexUid": "others", "sort": sort, "filter": filter(random)});
        if !federated {
            query["q"] = json!(random.of(&WORDS));
        }
        queries.push(query);
    }
    match federated {
        true => json!({"federation": {"limit": random.below(60)}, "queries": queries}),
        false => json!({ "queries": queries }),
    }
}

pub fn federated(kind: &str, random: &mut Random) -> Value {
    let mut queries = Vec::new();
    for _ in 0..1 + random.below(4) {
        let of_query = match kind {
            "federated sorts" => "sort",
            _ => *random.of(&["plain", "typo", "filter", "formats"]),
        };
        let index = *random.of(&INDEXES);
        let mut query = query(of_query, index, random);
        for paging in ["limit", "offset", "page", "hitsPerPage"] {
            query.remove(paging);
        }
        if kind == "federated sorts" {
            // All queries sort in the same directions, because hits of different queries are compared by their values.
            query.insert("sort".into(), json!(["price:asc", "rank:desc"]));
        }
        query.insert("indexUid".into(), index.into());
        if random.one_in(2) {
            query.insert("federationOptions".into(), json!({"weight": (1 + random.below(20)) as f64 / 10.0}));
        }
        queries.push(Value::Object(query));
    }
    let mut federation = json!({});
    match random.below(3) {
        0 => federation["limit"] = json!(random.below(50)),
        1 => {
            federation["page"] = json!(random.below(4));
            federation["hitsPerPage"] = json!(random.below(20));
        }
        _ => federation["offset"] = json!(random.below(10)),
    }
    if kind == "federated distinct" {
        federation["distinct"] = json!(random.of(&["group", "genre", "rank"]));
    } else if random.one_in(2) {
        federation["facetsByIndex"] = json!({"things": ["tags", "group", "maker"], "others": ["genre"]});
        match random.below(3) {
            0 => federation["mergeFacets"] = json!({"maxValuesPerFacet": 5 + random.below(30)}),
            1 => federation["facetsByIndex"] = json!({"things": ["rank"], "others": ["rank", "maker"]}),
            _ => {}
        }
    }
    json!({ "federation": federation, "queries": queries })
}
