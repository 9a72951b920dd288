//! The searched indexes: they have the same kind of documents and different settings.

use miroir_tests::Random;
use serde_json::{Value, json};

pub const WORDS: [&str; 40] = [
    "river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge", "harbour", "ancient",
    "crystal", "meadow", "thunder", "whisper", "lantern", "orchard", "village", "marble", "copper", "autumn",
    "winter", "journey", "captain", "shadow", "golden", "emerald", "falcon", "canyon", "desert", "island",
    "the", "of", "and", "sea", "sun", "ink", "école", "Straße", "naïve", "rivers",
];

pub const GENRES: [&str; 9] =
    ["Drama", "comedy", "Sci-Fi", "École", "horror", "éclair", "Zebra", "action", "10 stories"];

/// Indexes with explicit searchable attributes. The first one has rules for languages, and embedders whose vectors come from
/// the client. The second one has its own ranking rules, synonyms, stop words, fields that are not displayed, and facets
/// ordered by count.
pub const INDEXES: [&str; 2] = ["things", "others"];

/// An index that is written in random order of the ids, in many payloads with updates in between. As many settings as possible
/// have their defaults.
pub const SCATTERED: &str = "scattered";

/// An index with the setting `distinctAttribute`.
pub const UNIQUE: &str = "unique";

/// All indexes.
pub const ALL: [&str; 4] = ["things", "others", SCATTERED, UNIQUE];

/// The number of values of the facet `maker`: more than a facet shows.
pub const MAKERS: usize = 260;

fn words(random: &mut Random, count: usize) -> String {
    // The product of two random numbers makes some words common and some rare.
    let mut word = || WORDS[random.below(WORDS.len()) * random.below(WORDS.len()) / WORDS.len()];
    (0..count).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// The embedders of the first index, with their dimensions. If vectors have as many dimensions as the index has documents,
/// nodes find exactly the nearest; with fewer dimensions they may miss some.
pub const EMBEDDERS: [(&str, usize); 2] = [("mine", super::DOCUMENTS), ("few", 3)];

/// A vector with three numbers from a coarse grid, so that some documents are equally near, filled up with zeros.
pub fn vector(dimensions: usize, random: &mut Random) -> Value {
    let mut vector: Vec<f64> = (0..3).map(|_| random.below(9) as f64 / 4.0 - 1.0 + 0.01).collect();
    vector.resize(dimensions, 0.0);
    json!(vector)
}

fn document(index: &str, id: usize, random: &mut Random) -> Value {
    let length = 3 + random.below(4);
    let mut document = json!({
        "id": if index == SCATTERED { json!(format!("k-{id}")) } else { json!(id) },
        "title": words(random, length),
        "text": words(random, 12),
        "genre": random.of(&GENRES),
        "tags": random.some(&["new", "old", "Rare", "common", "classic", "b-side"], 3),
        // A unique value, so that the order of hits does not depend on ties.
        "rank": if index == "others" { id * 37 % 901 } else { random.below(200) },
        "group": random.below(60),
        "maker": format!("Maker {}", random.below(MAKERS) * random.below(MAKERS) / MAKERS),
        "nested": {"brand": format!("brand-{}", random.below(12)), "level": random.below(5)},
        "unlisted": random.below(10),
        "ratings": match id % 5 {
            0 => json!([]),
            1 => json!(["None yet", id % 7]),
            2 => json!(format!("Rated {}", id % 11)),
            _ => json!([id % 7, id % 13]),
        },
    });
    if random.one_in(2) {
        document["price"] = json!(random.below(400) as f64 / 4.0 - 5.0);
    } else if random.one_in(5) {
        document["price"] = json!("on request");
    }
    if !random.one_in(4) {
        document["_geo"] = json!({"lat": 40.0 + random.below(500) as f64 / 100.0,
                                  "lng": 2.0 + random.below(700) as f64 / 100.0});
    }
    if index == "things" {
        document["_vectors"] = match random.below(6) {
            0 => EMBEDDERS.iter().map(|(name, _)| ((*name).to_owned(), Value::Null)).collect(),
            _ => EMBEDDERS.iter().map(|(name, size)| ((*name).to_owned(), vector(*size, random))).collect(),
        };
    }
    document
}

/// The payloads that fill an index, each with its HTTP method.
pub fn payloads(index: &str, count: usize) -> Vec<(&'static str, Value)> {
    let mut random = Random(index.len() as u64 * 7919);
    let mut documents: Vec<Value> = (0..count).map(|id| document(index, id, &mut random)).collect();
    if index == "others" || index == SCATTERED {
        for position in (1..documents.len()).rev() {
            documents.swap(position, random.below(position + 1));
        }
    }
    let mut payloads: Vec<(&'static str, Value)> =
        documents.chunks(1 + count / 4).map(|batch| ("POST", json!(batch))).collect();
    if index == SCATTERED {
        let ids: Vec<usize> = (0..80).map(|_| random.below(count)).collect();
        let replaced: Vec<Value> = ids[..40].iter().map(|id| document(index, *id, &mut random)).collect();
        let changed: Vec<Value> =
            ids[40..].iter().map(|id| json!({"id": format!("k-{id}"), "group": 7})).collect();
        payloads.push(("POST", json!(replaced)));
        payloads.push(("PUT", json!(changed)));
    }
    payloads
}

pub fn settings(index: &str) -> Value {
    match index {
        "things" => json!({
            "searchableAttributes": ["title", "text"],
            "filterableAttributes": ["genre", "tags", "price", "rank", "group", "maker", "nested", "_geo"],
            "sortableAttributes": ["price", "rank", "title", "genre", "nested.level", "_geo"],
            "localizedAttributes": [{"attributePatterns": ["t*"], "locales": ["fra", "eng"]}],
            "embedders": EMBEDDERS.iter().map(|(name, size)| {
                ((*name).to_owned(), json!({"source": "userProvided", "dimensions": size}))
            }).collect::<Value>(),
        }),
        "others" => json!({
            "rankingRules": ["words", "typo", "sort", "proximity", "attribute", "exactness", "rank:desc"],
            "searchableAttributes": ["title", "text", "genre"],
            "filterableAttributes":
                ["genre", "tags", "price", "rank", "group", "maker", "nested.brand", "_geo", "unlisted"],
            "sortableAttributes": ["price", "rank", "genre", "unlisted", "ratings", "_geo"],
            "displayedAttributes":
                ["id", "title", "text", "genre", "tags", "rank", "price", "group", "maker", "nested", "_geo"],
            "synonyms": {"river": ["sea"], "castle": ["village harbour"]},
            "stopWords": ["of", "and"],
            "faceting": {"sortFacetValuesBy": {"*": "count", "genre": "alpha"}, "maxValuesPerFacet": 20},
            // More than the documents of one node, but fewer than all documents.
            "pagination": {"maxTotalHits": 500},
            "typoTolerance": {"minWordSizeForTypos": {"oneTypo": 4, "twoTypos": 7}},
        }),
        SCATTERED => json!({
            "filterableAttributes": ["genre", "tags", "price", "rank", "group", "maker", "nested.brand", "_geo"],
            "sortableAttributes": ["price", "rank", "genre", "_geo"],
        }),
        _ => json!({
            "searchableAttributes": ["title", "text"],
            "filterableAttributes": ["id", "genre", "tags", "price", "rank", "group", "maker", "nested.brand", "_geo"],
            "sortableAttributes": ["price", "rank", "genre", "_geo"],
            "distinctAttribute": "group",
        }),
    }
}
