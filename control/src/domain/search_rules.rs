//! Dynamic search rules: which documents they pin, and in which order the rules apply.

use miroir_core::topology::Pin;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The internal index in which nodes store the rules. Tasks name it.
pub const INDEX: &str = ".meili_dsr";

/// A search rule as clients have set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRule {
    /// Its name.
    pub uid: String,
    /// Its slot on a node: a new rule takes the lowest free slot.
    pub place: usize,
    /// Its members, without those that have their default value.
    pub body: Map<String, Value>,
}

/// A change of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// A rule is created or changed.
    Update {
        /// Its name.
        uid: String,
        /// What is set.
        body: Value,
    },
    /// A rule is deleted.
    Delete {
        /// Its name.
        uid: String,
    },
    /// All rules are deleted.
    Clear,
}

impl Change {
    /// Applies the change to `rules`, which are sorted by `place`.
    pub fn apply(&self, rules: &mut Vec<SearchRule>) {
        match self {
            Self::Update { uid, body } => {
                let position = rules.iter().position(|rule| rule.uid == *uid).unwrap_or_else(|| {
                    let taken = rules.iter().enumerate().take_while(|(place, rule)| rule.place == *place);
                    let place = taken.count();
                    rules.insert(place, SearchRule { uid: uid.clone(), place, body: Map::new() });
                    place
                });
                let Some(rule) = rules.get_mut(position) else { return };
                for (name, value) in body.as_object().into_iter().flatten() {
                    match value {
                        Value::Null => drop(rule.body.remove(name)),
                        value => drop(rule.body.insert(name.clone(), value.clone())),
                    }
                }
            }
            Self::Delete { uid } => rules.retain(|rule| rule.uid != *uid),
            Self::Clear => rules.clear(),
        }
    }
}

/// The pins of all rules in an index, in the order in which the rules apply: by `precedence`, then by `place`, lowest first.
#[must_use]
pub fn pins(rules: &[SearchRule], index: &str) -> Vec<Pin> {
    let precedence =
        |rule: &&SearchRule| rule.body.get("precedence").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let mut rules: Vec<&SearchRule> = rules.iter().collect();
    rules.sort_by_key(precedence);
    let actions = rules.iter().flat_map(|rule| rule.body.get("actions").and_then(Value::as_array));
    actions.flatten().filter_map(|action| pin(action, index)).collect()
}

fn pin(action: &Value, index: &str) -> Option<Pin> {
    let selector = action.get("selector")?;
    let of = selector.get("indexUid").and_then(Value::as_str);
    of.is_none_or(|of| of == index).then_some(())?;
    let position = action.pointer("/action/position")?.as_u64()?;
    let id = selector.get("id")?.as_str()?.to_owned();
    Some(Pin { id, position: u32::try_from(position).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(uid: &str, body: Value) -> Change {
        Change::Update { uid: uid.to_owned(), body }
    }

    #[test]
    fn pins_go_by_precedence_and_then_by_place() {
        let action = |index: Option<&str>, id: &str, position: u32| json!({"selector": {"indexUid": index, "id": id}, "action": {"type": "pin", "position": position}});
        let mut rules = Vec::new();
        for change in [
            update("b", json!({"actions": [action(None, "1", 4), action(Some("other"), "9", 0)]})),
            update("a", json!({"actions": [action(Some("movies"), "2", 0)], "active": false})),
            update("c", json!({"precedence": 3, "actions": [action(None, "3", 7)]})),
            update("b", json!({"description": "x"})),
        ] {
            change.apply(&mut rules);
        }
        let ids = |rules: &[SearchRule]| {
            pins(rules, "movies").into_iter().map(|pin| (pin.id, pin.position)).collect::<Vec<_>>()
        };
        let expected = |pins: &[(&str, u32)]| {
            pins.iter().map(|(id, position)| ((*id).to_owned(), *position)).collect::<Vec<_>>()
        };
        assert_eq!(ids(&rules), expected(&[("3", 7), ("1", 4), ("2", 0)]));
        update("c", json!({"precedence": null})).apply(&mut rules);
        assert_eq!(ids(&rules), expected(&[("1", 4), ("2", 0), ("3", 7)]));
        Change::Delete { uid: "b".into() }.apply(&mut rules);
        assert_eq!(ids(&rules), expected(&[("2", 0), ("3", 7)]));
        update("d", json!({"actions": [action(None, "4", 1)]})).apply(&mut rules);
        update("e", json!({"actions": [action(None, "5", 1)]})).apply(&mut rules);
        assert_eq!(ids(&rules), expected(&[("4", 1), ("2", 0), ("3", 7), ("5", 1)]));
        Change::Clear.apply(&mut rules);
        assert!(rules.is_empty());
    }
}
