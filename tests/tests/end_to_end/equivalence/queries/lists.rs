//! Lists of documents, and of facet values.

use super::{
    super::documents::{MAKERS, SCATTERED},
    Request,
    search::{filter, text},
};
use miroir_tests::Random;
use serde_json::{Value, json};

pub fn list(kind: &'static str, index: &str, random: &mut Random) -> Request {
    let sorted = kind == "list sorted";
    if random.one_in(3) {
        let mut path =
            format!("/indexes/{index}/documents?limit={}&offset={}", random.below(50), random.below(700));
        if sorted {
            path.push_str("&sort=price:asc,_geoPoint(42,%205):asc,rank:asc");
        }
        path.push_str(random.of::<&str>(&[
            "",
            "&fields=*",
            "&fields=title,rank",
            "&filter=rank%20%3E%20100",
        ]));
        return Request { kind, method: "GET", path, body: Value::Null };
    }
    let mut body = json!({});
    if random.one_in(2) {
        body["limit"] = json!(random.below(100));
        body["offset"] = json!(random.below(500));
    }
    if random.one_in(2) {
        body["filter"] = filter(random);
    }
    if random.one_in(2) {
        body["fields"] = json!(random.some(&["title", "nested.level", "id", "genre"], 2));
    }
    if random.one_in(4) {
        body["ids"] = json!(
            (0..30)
                .map(|_| {
                    let id = random.below(900).to_string();
                    if index == SCATTERED { format!("k-{id}") } else { id }
                })
                .collect::<Vec<_>>()
        );
    }
    if sorted {
        let sorts = ["price:asc", "price:desc", "genre:asc", "_geoPoint(41.5, 4.1):desc"];
        let mut sorts = random.some(&sorts, 2);
        sorts.push("rank:desc");
        body["sort"] = json!(sorts);
    }
    Request { kind, method: "POST", path: format!("/indexes/{index}/documents/fetch"), body }
}

pub fn facet_search(kind: &str, random: &mut Random) -> Value {
    let mut body = json!({"facetName": random.of(&["genre", "tags", "nested.brand"])});
    if !random.one_in(3) {
        body["facetQuery"] = json!(random.of(&["d", "eco", "com", "brand", "rare", "x", "brand-1", "horor"]));
    }
    if kind == "facet search cut" {
        body = json!({"facetName": "maker"});
        if !random.one_in(3) {
            body["facetQuery"] =
                json!(format!("{} {}", random.of(&["m", "maker", "Makre"]), random.below(MAKERS)));
        }
        if random.one_in(2) {
            body["facetQuery"] = json!(random.of(&["m", "ma", "maker"]));
        }
    }
    if random.one_in(3) {
        body["q"] = json!(text(random));
    }
    if random.one_in(3) {
        body["filter"] = filter(random);
    }
    body
}
