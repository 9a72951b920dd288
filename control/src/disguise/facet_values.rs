//! Room for facet values: nodes tell more values of a facet than clients have asked for (`faceting.maxValuesPerFacet`), so
//! that counts can be added up over nodes before the values are cut. Clients set and see their own number.

use serde_json::{Map, Value, json};

/// The setting's group.
pub const FACETING: &str = "faceting";

const LIMIT: &str = "maxValuesPerFacet";

/// Meilisearch's own limit, where none is set.
const DEFAULT: u64 = 100;

/// How many values more nodes tell. Added, not multiplied: what a client has set can be told from what a node has.
///
/// A node's time grows with the values that it tells of facets with as many, so this is no larger than facets commonly
/// are.
const ROOM: u64 = 1_000;

/// The setting of an index whose clients have set nothing.
#[must_use]
pub fn initial() -> Value {
    json!({ LIMIT: DEFAULT + ROOM })
}

/// Changes of settings as nodes get them. What is not as Meilisearch takes it is left for a node to refuse.
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

/// From here on nodes have the client's own number: they tell all values anyway, and larger numbers are none to them.
const ALL: u64 = u64::MAX / 2;

/// What nodes get where a client resets the group.
#[must_use]
pub fn reset() -> Value {
    json!({ LIMIT: DEFAULT + ROOM, "sortFacetValuesBy": null })
}

/// Whether a change of settings says how many values there are to be.
#[must_use]
pub fn sets_limit(change: &Value) -> bool {
    change.get(FACETING).is_some_and(|faceting| faceting.is_null() || faceting.get(LIMIT).is_some())
}

/// What clients are shown, for what a node tells.
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
