//! Fields of nested documents by dotted names: `a.b` is the field `b` of every object in `a`, or a field named `a.b`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The part of `name` below the field `parent`.
fn below<'n>(name: &'n str, parent: &str) -> Option<&'n str> {
    name.strip_prefix(parent)?.strip_prefix('.')
}

/// The document with only the named fields. Objects and arrays that lead to a name stay, even if they become empty.
pub fn select(document: &Map<String, Value>, names: &BTreeSet<&str>) -> Map<String, Value> {
    let mut kept = Map::new();
    for (key, value) in document {
        if names.contains(key.as_str()) {
            kept.insert(key.clone(), value.clone());
            continue;
        }
        let inner: BTreeSet<&str> = names.iter().filter_map(|name| below(name, key)).collect();
        if inner.is_empty() {
            continue;
        }
        match value {
            Value::Array(items) => {
                drop(kept.insert(key.clone(), Value::Array(select_in_array(items, &inner))))
            }
            Value::Object(object) => drop(kept.insert(key.clone(), Value::Object(select(object, &inner)))),
            _ => {}
        }
    }
    kept
}

fn select_in_array(items: &[Value], names: &BTreeSet<&str>) -> Vec<Value> {
    let mut kept = Vec::new();
    for item in items {
        match item {
            Value::Object(object) => {
                let object = select(object, names);
                if !object.is_empty() {
                    kept.push(Value::Object(object));
                }
            }
            Value::Array(items) => {
                let items = select_in_array(items, names);
                if !items.is_empty() {
                    kept.push(Value::Array(items));
                }
            }
            _ => {}
        }
    }
    kept
}

/// Calls `change` on every leaf at or below the named fields, with its dotted name and its place in arrays.
pub fn for_each_leaf(
    document: &mut Map<String, Value>,
    names: &[&str],
    change: &mut impl FnMut(&str, &[usize], &mut Value),
) {
    walk_object(document, "", &mut Vec::new(), names, change);
}

fn walk_object(
    object: &mut Map<String, Value>,
    base: &str,
    indices: &mut Vec<usize>,
    names: &[&str],
    change: &mut impl FnMut(&str, &[usize], &mut Value),
) {
    for (key, value) in object {
        let name = if base.is_empty() { key.clone() } else { format!("{base}.{key}") };
        // The field may lead to a named field, or be below one: everything below a named field is included.
        let wanted = names.iter().any(|wanted| {
            *wanted == name || below(wanted, &name).is_some() || below(&name, wanted).is_some()
        });
        if wanted {
            walk_value(value, &name, indices, names, change);
        }
    }
}

fn walk_value(
    value: &mut Value,
    name: &str,
    indices: &mut Vec<usize>,
    names: &[&str],
    change: &mut impl FnMut(&str, &[usize], &mut Value),
) {
    match value {
        Value::Object(object) => walk_object(object, name, indices, names, change),
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                indices.push(i);
                walk_value(item, name, indices, names, change);
                indices.pop();
            }
        }
        leaf => {
            let meant = names.iter().any(|wanted| *wanted == name || below(name, wanted).is_some());
            if meant {
                change(name, indices, leaf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn selects_through_objects_arrays_and_dotted_keys() {
        let document =
            object(json!({ "a": { "b": 1, "c": 2 }, "d": [{ "b": 1 }, { "c": 2 }, 3], "a.b": 4, "e": 5 }));
        let selected = select(&document, &["a.b", "d.b"].into());
        assert_eq!(Value::Object(selected), json!({ "a": { "b": 1 }, "d": [{ "b": 1 }], "a.b": 4 }));
    }

    #[test]
    fn visits_leaves_with_their_places() {
        let mut document = object(json!({ "a": { "b": ["x", ["y"]] }, "c": 1 }));
        let mut seen = Vec::new();
        for_each_leaf(&mut document, &["a"], &mut |name, at, value| {
            seen.push((name.to_string(), at.to_vec(), value.clone()))
        });
        assert_eq!(seen, [("a.b".into(), vec![0], json!("x")), ("a.b".into(), vec![1, 0], json!("y"))]);
    }
}
