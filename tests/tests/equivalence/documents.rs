//! What is searched: two indexes with the same kind of documents and different settings.

use crate::random::Random;
use serde_json::{Value, json};

pub const WORDS: [&str; 40] = [
    "river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge", "harbour", "ancient",
    "crystal", "meadow", "thunder", "whisper", "lantern", "orchard", "village", "marble", "copper", "autumn",
    "winter", "journey", "captain", "shadow", "golden", "emerald", "falcon", "canyon", "desert", "island",
    "the", "of", "and", "sea", "sun", "ink", "école", "Straße", "naïve", "rivers",
];

pub const GENRES: [&str; 9] =
    ["Drama", "comedy", "Sci-Fi", "École", "horror", "éclair", "Zebra", "action", "10 stories"];

/// Both indexes.
pub const INDEXES: [&str; 2] = ["things", "others"];

fn words(random: &mut Random, count: usize) -> String {
    // Squared: some words are common, some rare.
    let mut word = || WORDS[random.below(WORDS.len()) * random.below(WORDS.len()) / WORDS.len()];
    (0..count).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// Documents in the order in which they are to be added.
pub fn documents(index: &str, count: usize) -> Vec<Value> {
    let mut random = Random(index.len() as u64 * 7919);
    let mut documents: Vec<Value> = (0..count)
        .map(|id| {
            let length = 3 + random.below(4);
            let mut document = json!({
                "id": id,
                "title": words(&mut random, length),
                "text": words(&mut random, 12),
                "genre": random.of(&GENRES),
                "tags": random.some(&["new", "old", "Rare", "common", "classic", "b-side"], 3),
                // A total order, so that the sequence of hits does not depend on ties.
                "rank": if index == "others" { id * 37 % 901 } else { random.below(200) },
                "group": random.below(60),
                "nested": {"brand": format!("brand-{}", random.below(12)), "level": random.below(5)},
                "unlisted": random.below(10),
            });
            if random.one_in(2) {
                document["price"] = json!(random.below(400) as f64 / 4.0);
            } else if random.one_in(5) {
                document["price"] = json!("on request");
            }
            if !random.one_in(4) {
                document["_geo"] = json!({"lat": 40.0 + random.below(500) as f64 / 100.0,
                                          "lng": 2.0 + random.below(700) as f64 / 100.0});
            }
            document
        })
        .collect();
    if index == "others" {
        for position in (1..documents.len()).rev() {
            documents.swap(position, random.below(position + 1));
        }
    }
    documents
}

pub fn settings(index: &str) -> Value {
    if index == "things" {
        json!({
            "searchableAttributes": ["title", "text"],
            "filterableAttributes": ["genre", "tags", "price", "rank", "group", "nested", "_geo"],
            "sortableAttributes": ["price", "rank", "title", "genre", "nested.level", "_geo"],
            "faceting": {"maxValuesPerFacet": 1000},
        })
    } else {
        json!({
            "rankingRules": ["words", "typo", "sort", "proximity", "attribute", "exactness", "rank:desc"],
            "filterableAttributes": ["genre", "tags", "price", "rank", "group", "nested.brand", "_geo"],
            "sortableAttributes": ["price", "rank", "genre", "unlisted", "_geo"],
            "displayedAttributes": ["id", "title", "text", "genre", "tags", "rank", "price", "group", "nested", "_geo"],
            "synonyms": {"river": ["sea"], "castle": ["village harbour"]},
            "stopWords": ["of", "and"],
            "faceting": {"sortFacetValuesBy": {"*": "count", "genre": "alpha"}, "maxValuesPerFacet": 1000},
            "typoTolerance": {"minWordSizeForTypos": {"oneTypo": 4, "twoTypos": 7}},
        })
    }
}
