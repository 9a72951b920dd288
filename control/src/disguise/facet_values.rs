//! Room for facet values: nodes return more values of a facet than clients have asked for (`faceting.maxValuesPerFacet`), so
//! that gateways can add up the counts of all nodes before they cut the list. Clients set and see their own number.

use serde_json::{Map, Value, json};

/// The settings group that holds the limit.
pub const FACETING: &str = "faceting";

const LIMIT: &str = "maxValuesPerFacet";

/// Meilisearch's default limit.
const DEFAULT: u64 = 100;

/// How many more values nodes return. It is added, not multiplied, so that the client's limit can be computed from a node's.
///
/// A node takes longer the more values it returns, so this is no larger than the usual number of values of a facet.
const ROOM: u64 = 1_000;

/// The group that nodes get for an index whose clients have not set it.
#[must_use]
pub fn initial() -> Value {
    json!({ LIMIT: DEFAULT + ROOM })
}

/// Rewrites a change of settings for nodes. Invalid values stay as they are: a node refuses them.
pub fn with_room(settings: &mut Map<String, Value>) {
    match settings.get_mut(FACETING) {
        Some(faceting @ Value::Null) => *faceting = reset(),
        Some(Value::Object(faceting)) => match faceting.get_mut(LIMIT) {
            Some(limit @ Value::Null) => *limit = json!(DEFAULT + ROOM),
            Some(limit) => {
                if let Some(number) = limit.as_u64().filter(|number| *number < ALL) {
                    *limit = json!(number + ROOM);
                }
            }
            None => {}
        },
        _ => {}
    }
}

/// From this limit on, nodes get the client's own number: they return all values anyway, and a larger number could overflow.
const ALL: u64 = u64::MAX / 2;

/// The group that nodes get if a client resets it.
#[must_use]
pub fn reset() -> Value {
    json!({ LIMIT: DEFAULT + ROOM, "sortFacetValuesBy": null })
}

/// Whether a change of settings sets or resets the limit.
#[must_use]
pub fn sets_limit(change: &Value) -> bool {
    change.get(FACETING).is_some_and(|faceting| faceting.is_null() || faceting.get(LIMIT).is_some())
}

/// Rewrites a node's limit to the one that the client has set.
pub fn without_room(object: &mut Map<String, Value>) {
    if let Some(limit) = object.get_mut(LIMIT)
        && let Some(number) = limit.as_u64().filter(|number| (ROOM..ALL + ROOM).contains(number))
    {
        *limit = json!(number - ROOM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_tell_more_and_clients_see_their_own() {
        for (client, node) in [
            (json!({"faceting": {"maxValuesPerFacet": 7}}), json!({"faceting": {"maxValuesPerFacet": 1007}})),
            (
                json!({"faceting": {"maxValuesPerFacet": null}}),
                json!({"faceting": {"maxValuesPerFacet": 1100}}),
            ),
            (
                json!({"faceting": null}),
                json!({"faceting": {"maxValuesPerFacet": 1100, "sortFacetValuesBy": null}}),
            ),
            (json!({"faceting": {"sortFacetValuesBy": {}}}), json!({"faceting": {"sortFacetValuesBy": {}}})),
            (json!({"faceting": {"maxValuesPerFacet": -1}}), json!({"faceting": {"maxValuesPerFacet": -1}})),
            (json!({"faceting": 3}), json!({"faceting": 3})),
            (
                json!({"faceting": {"maxValuesPerFacet": u64::MAX}}),
                json!({"faceting": {"maxValuesPerFacet": u64::MAX}}),
            ),
            (json!({"stopWords": []}), json!({"stopWords": []})),
        ] {
            let mut settings = client.as_object().unwrap().clone();
            with_room(&mut settings);
            assert_eq!(Value::Object(settings), node);
        }
        let mut told = json!({"maxValuesPerFacet": 1007, "sortFacetValuesBy": {"*": "alpha"}});
        without_room(told.as_object_mut().unwrap());
        assert_eq!(told, json!({"maxValuesPerFacet": 7, "sortFacetValuesBy": {"*": "alpha"}}));
        let mut largest = json!({"maxValuesPerFacet": u64::MAX});
        without_room(largest.as_object_mut().unwrap());
        assert_eq!(largest["maxValuesPerFacet"], u64::MAX);
        assert!(sets_limit(&json!({"faceting": null})) && !sets_limit(&json!({"faceting": {}})));
    }
}
