//! `_rankingScoreDetails`: any details can be compared, and the order of one query's hits is total.

use crate::Input;
use miroir_core::search::hit_order::rank::{Rank, Weighted};
use serde_json::{Map, Value, json, value::to_raw_value};
use std::cmp::Ordering;

/// Compares three hits of one query.
///
/// # Panics
/// Their order is not a total order.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    if input.one_in(4) {
        // Details that no query could produce.
        let (one, two) = (input.value(3), input.value(3));
        let (one, two) = (read(&one), read(&two));
        assert_eq!(one.compare(&one), Ordering::Equal);
        assert_eq!(one.compare(&two), two.compare(&one).reverse());
        return;
    }
    let rules: Vec<usize> = (0..input.below(5) + 1).map(|_| input.below(RULES.len())).collect();
    let hits: Vec<Value> = (0..3).map(|_| details(&mut input, &rules)).collect();
    let ranks: Vec<Rank> = hits.iter().map(read).collect();
    for one in &ranks {
        assert_eq!(one.compare(one), Ordering::Equal, "{hits:#?}");
        for two in &ranks {
            assert_eq!(one.compare(two), two.compare(one).reverse(), "{hits:#?}");
            for three in &ranks {
                if one.compare(two).is_le() && two.compare(three).is_le() {
                    assert!(one.compare(three).is_le(), "{hits:#?}");
                }
            }
        }
    }
    let weighted: Vec<Vec<Weighted>> =
        hits.iter().map(|hit| Weighted::of(&to_raw_value(hit).expect("JSON"), 0.5, 0.25, None)).collect();
    for (one, two) in weighted.iter().flat_map(|one| weighted.iter().map(move |two| (one, two))) {
        let other = Weighted::compare(two, one).map(Ordering::reverse);
        assert_eq!(Weighted::compare(one, two), other, "{hits:#?}");
    }
}

fn read(details: &Value) -> Rank {
    Rank::read(&to_raw_value(details).expect("JSON"), None)
}

const RULES: [&str; 12] = [
    "words",
    "typo",
    "proximity",
    "attribute",
    "exactness",
    "price:asc",
    "price:desc",
    "_geoPoint(48.8, 2.3):asc",
    "_geoPoint(48.8, 2.3):desc",
    "vectorSort",
    "<hidden-rule-0>",
    "aRuleToCome",
];

fn details(input: &mut Input<'_>, rules: &[usize]) -> Value {
    let mut details = Map::new();
    for (order, rule) in rules.iter().enumerate() {
        let name = RULES[*rule];
        let score = input.below(5) as f64 / 4.0;
        let mut detail = match name {
            "words" => json!({"matchingWords": input.below(3), "maxMatchingWords": 3}),
            "typo" => json!({"typoCount": input.below(3), "maxTypoCount": 3}),
            "attribute" => json!({
                "attributeRankingOrderScore": input.below(3), "queryWordDistanceScore": input.below(3)
            }),
            "exactness" => json!({"matchType": input.of(&["exactMatch", "matchesStart", "noExactMatch"])}),
            "vectorSort" => match input.below(3) {
                0 => json!({}),
                _ => json!({"similarity": input.below(4) as f64 / 3.0}),
            },
            // Meilisearch treats distances that differ by at most one metre as equal, which is not transitive; so all distances
            // here differ by more.
            name if name.starts_with("_geo") => match input.below(4) {
                0 => json!({"value": null, "distance": null}),
                1 => json!({"value": null, "distance": input.below(9) * 3}),
                _ => json!({"value": {"lat": input.below(180) as f64 - 90.0, "lng": input.below(360)},
                            "distance": input.below(9) * 3}),
            },
            name if name.contains("sc") || name.starts_with('<') => {
                let value = match input.below(4) {
                    0 => Value::Null,
                    1 => input.text().into(),
                    _ => input.number(),
                };
                json!({ "value": value })
            }
            _ => json!({}),
        };
        detail["order"] = json!(order);
        // A sort has no score.
        if !name.contains(':') {
            detail["score"] = json!(score);
        }
        details.insert(name.to_owned(), detail);
    }
    details.into()
}
