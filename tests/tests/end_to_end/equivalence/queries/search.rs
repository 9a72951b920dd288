//! Searches.

use super::{
    super::documents::{EMBEDDERS, GENRES, WORDS, vector},
    Request,
};
use miroir_tests::Random;
use serde_json::{Map, Value, json};

pub fn text(random: &mut Random) -> String {
    random.some(&WORDS, 3).join(" ")
}

fn mistyped(random: &mut Random) -> String {
    let mut letters: Vec<char> = WORDS[random.below(30)].chars().collect();
    let position = 1 + random.below(letters.len() - 1);
    match random.below(3) {
        0 => letters[position] = 'z',
        1 => drop(letters.remove(position)),
        _ => letters.insert(position, 'x'),
    }
    letters.into_iter().collect()
}

pub fn filter(random: &mut Random) -> Value {
    let one = |random: &mut Random| match random.below(9) {
        0 => format!("genre = \"{}\"", random.of(&GENRES)),
        1 => format!("price > {}", random.below(100)),
        2 => format!("rank {} TO {}", random.below(80), 80 + random.below(120)),
        3 => "price EXISTS".to_owned(),
        4 => format!("tags IN [new, {}]", random.of(&["old", "rare", "none"])),
        5 => format!("NOT group = {}", random.below(60)),
        6 => format!("nested.brand = brand-{}", random.below(14)),
        7 => "_geoRadius(42.5, 5.0, 150000)".to_owned(),
        _ => format!("genre != {} OR rank < {}", random.of(&["Drama", "horror"]), random.below(100)),
    };
    match random.below(3) {
        0 => json!(one(random)),
        1 => json!([one(random), one(random)]),
        _ => json!([[one(random), one(random)], one(random)]),
    }
}

pub fn query(kind: &str, index: &str, random: &mut Random) -> Map<String, Value> {
    let mut query = Map::new();
    let without_words = [
        "filter",
        "sort",
        "hidden sorts",
        "facets",
        "facets by count",
        "facets cut",
        "geo",
        "distinct",
        "distinct setting",
        "hidden distinct",
        "distinct lists",
        "distinct facets",
        "tenant tokens",
        "vector",
        "deep vectors",
        "near vectors",
        "all pages",
    ];
    let empty = ["placeholder", "insertion order"].contains(&kind);
    if !(empty || without_words.contains(&kind) && random.one_in(2)) {
        query.insert("q".into(), json!(text(random)));
    }
    let mut put = |name: &str, value: Value| drop(query.insert(name.into(), value));
    let sorts: &[&str] = if index == "things" {
        &["price:asc", "price:desc", "rank:asc", "title:asc", "genre:desc", "nested.level:asc"]
    } else {
        &["price:asc", "price:desc", "rank:asc", "genre:asc", "genre:desc"]
    };
    match kind {
        "typo" => put("q", json!(mistyped(random))),
        "phrase" => {
            let words = random.some(&WORDS, 2).join(" ");
            put("q", json!(format!("\"{words}\" {}", random.of(&WORDS))));
        }
        "negative" => put("q", json!(format!("{} -{}", random.of(&WORDS), random.of(&WORDS)))),
        "frequency" => {
            put("q", json!(random.some(&WORDS, 3).join(" ")));
            put("matchingStrategy", json!("frequency"));
        }
        "strategy" => put("matchingStrategy", json!(random.of(&["all", "last"]))),
        "attributes" => put("attributesToSearchOn", json!([random.of(&["title", "text"])])),
        "filter" | "tenant tokens" => put("filter", filter(random)),
        "locales" => {
            put("q", json!(random.of(&["l'école", "ecole", "strasse", "rivers", "the sea"])));
            put("locales", json!(random.of(&[["fra", "eng"], ["deu", "eng"], ["fra", "fra"]])));
        }
        "vector" | "near vectors" => {
            let (embedder, dimensions) = EMBEDDERS[usize::from(kind != "vector")];
            put("vector", vector(dimensions, random));
            put("hybrid", json!({"embedder": embedder, "semanticRatio": 1.0}));
            if random.one_in(3) {
                put("filter", filter(random));
            }
            if random.one_in(3) {
                put("retrieveVectors", json!(true));
            }
            put("showRankingScore", json!(random.one_in(2)));
        }
        "deep vectors" | "deep hybrid" => {
            let ratio = if kind == "deep vectors" { 1.0 } else { *random.of(&[0.2, 0.5, 0.6, 0.8]) };
            let (embedder, dimensions) = EMBEDDERS[0];
            put("vector", vector(dimensions, random));
            put("hybrid", json!({"embedder": embedder, "semanticRatio": ratio}));
            put("showRankingScore", json!(true));
            put("retrieveVectors", json!(random.one_in(3)));
            if random.one_in(2) {
                put("attributesToRetrieve", json!(["id", "title"]));
            }
            if random.one_in(3) {
                put("page", json!(6 + random.below(4)));
                put("hitsPerPage", json!(100));
            } else {
                put("offset", json!(400 + random.below(500)));
            }
        }
        "scores" => {
            put("showRankingScore", json!(true));
            put("showRankingScoreDetails", json!(true));
        }
        "sort" => put("sort", json!(random.some(sorts, 2))),
        "hidden sorts" => {
            put("sort", hidden_sorts(random));
            put("showRankingScoreDetails", json!(random.one_in(2)));
            if random.one_in(3) {
                put("attributesToRetrieve", json!(["title"]));
            }
            if random.one_in(4) {
                put("offset", json!(500 + random.below(300)));
            }
        }
        "geo" => {
            let direction = random.of(&["asc", "desc"]);
            put("sort", json!([format!("_geoPoint(42.{}, 5.5):{direction}", random.below(99))]));
            if random.one_in(2) {
                put("filter", json!("_geoBoundingBox([44, 8], [41, 3])"));
            }
        }
        "facets" => {
            let facets = ["genre", "tags", "group", "nested.brand", "_geo"];
            put("facets", json!(random.some(&facets[..4], 3)));
            if random.one_in(3) {
                put("filter", filter(random));
            }
        }
        "facets by count" | "facets cut" => {
            let facets = ["price", "rank", "maker", "group", "tags"];
            let facets = if random.one_in(4) { vec!["*"] } else { random.some(&facets, 3) };
            put("facets", json!(facets));
            if random.one_in(3) {
                put("filter", filter(random));
            }
        }
        "pages" => {
            put("page", json!(random.below(6)));
            put("hitsPerPage", json!(random.below(30)));
        }
        "deep pages" => {
            put("offset", json!(random.below(900)));
            put("limit", json!(random.below(40)));
        }
        "formats" => {
            put("attributesToHighlight", json!([random.of(&["*", "title", "text"])]));
            put("attributesToCrop", json!(["text:4"]));
            put("showMatchesPosition", json!(true));
            put("showRankingScore", json!(random.one_in(2)));
        }
        "fields" => {
            let fields = ["title", "genre", "nested.brand", "price", "id"];
            put("attributesToRetrieve", json!(random.some(&fields, 2)));
            if random.one_in(2) {
                put("attributesToHighlight", json!(["title"]));
            }
        }
        "distinct" => {
            put("distinct", json!(random.of(&["group", "genre", "nested.brand", "rank", "maker", "price"])));
            put("attributesToRetrieve", json!(random.of(&[vec!["*"], vec!["title"], vec!["group", "id"]])));
            if random.one_in(2) {
                put("page", json!(1 + random.below(3)));
            }
        }
        "hidden distinct" => {
            put("distinct", json!("unlisted"));
            put("attributesToRetrieve", json!(random.of(&[vec!["*"], vec!["title"]])));
            if random.one_in(2) {
                put("page", json!(1 + random.below(2)));
                put("hitsPerPage", json!(1 + random.below(8)));
            }
        }
        "distinct setting" if random.one_in(2) => {
            put("attributesToRetrieve", json!(["title"]));
            put("page", json!(1 + random.below(3)));
        }
        // Each node counts only the documents that it keeps itself.
        "distinct facets" => {
            put("distinct", json!(random.of(&["group", "genre", "nested.brand", "rank", "maker", "price"])));
            put("facets", json!(random.some(&["genre", "tags", "group", "rank"], 2)));
            if random.one_in(2) {
                put("page", json!(1 + random.below(3)));
            }
        }
        // Documents have several values of this attribute: which documents are dropped depends on the order of ties.
        "distinct lists" => put("distinct", json!("tags")),
        "threshold" => {
            put("rankingScoreThreshold", json!(random.below(10) as f64 / 10.0));
            if random.one_in(2) {
                put("page", json!(1 + random.below(3)));
            }
        }
        _ => {}
    }
    if kind == "all pages" {
        // The first of ten pages; the test requests the others after it.
        query.insert("limit".into(), json!(2 + random.below(20)));
    } else if kind != "pages"
        && !kind.starts_with("deep ")
        && random.one_in(2)
        && !query.contains_key("offset")
        && !query.contains_key("page")
    {
        query.insert("limit".into(), json!(random.below(60)));
        query.insert("offset".into(), json!(random.below(20)));
    }
    query
}

/// Sorts by attributes that are not displayed, including numbers and lists.
pub fn hidden_sorts(random: &mut Random) -> Value {
    let sorts = ["unlisted:asc", "unlisted:desc", "ratings:asc", "ratings:desc", "rank:asc", "price:desc"];
    let mut sorts = random.some(&sorts, 2);
    sorts.insert(random.below(sorts.len() + 1), *random.of(&["unlisted:desc", "ratings:asc"]));
    json!(sorts)
}

pub fn get(index: &str, random: &mut Random) -> Request {
    let mut path = format!("/indexes/{index}/search?q={}", random.of(&WORDS));
    for extra in [
        "&limit=7",
        "&sort=rank:asc",
        "&facets=genre,tags",
        "&filter=rank%20%3E%2050",
        "&page=2",
        "&attributesToRetrieve=id,title",
        "&showRankingScore=true",
    ] {
        if random.one_in(3) {
            path.push_str(extra);
        }
    }
    Request { kind: "get", method: "GET", path, body: Value::Null }
}
