//! The filter's configuration: each input is accepted or refused, and an accepted one keeps its content.

use crate::Input;
use miroir_core::topology::Topology;
use serde_json::{Map, Value, json};

/// Parses one configuration.
///
/// # Panics
/// An accepted configuration changes when it is written and parsed again.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    if input.one_in(8) {
        let _ = Topology::from_json(input.rest());
        return;
    }
    let mut config = config(&mut input);
    for _ in 0..input.below(3) {
        change(&mut input, &mut config);
    }
    let mut text = config.to_string().into_bytes();
    input.broken(&mut text);
    match Topology::from_json(&text) {
        Ok(topology) => {
            let written = serde_json::to_vec(topology.config()).expect("a topology is JSON");
            assert_eq!(Topology::from_json(&written).as_ref(), Ok(&topology));
            let shards = topology.config().placement.len();
            assert!((1..=512).contains(&shards) && topology.shards().count() == shards);
            let nodes = topology.config().nodes.len();
            let positions = topology.config().placement.iter().flatten();
            assert!(positions.copied().all(|node| usize::from(node) < nodes));
            for path in ["/", "/indexes", "/ms/indexes?q=%", "", "é"] {
                let own = topology.own_path(path);
                assert!(own.is_none_or(|own| own.starts_with('/') && path.ends_with(own)));
            }
            let _ = topology.index("a");
        }
        Err(invalid) => assert!(!invalid.0.is_empty() && invalid.0.iter().all(|error| !error.is_empty())),
    }
}

fn config(input: &mut Input<'_>) -> Value {
    let nodes = input.below(4) + 1;
    let name = |number: usize| json!({"name": format!("n{number}"), "cluster": format!("c{number}")});
    let placement: Vec<Vec<usize>> = (0..input.below(6) + 1)
        .map(|_| (0..input.below(3)).map(|replica| (replica + input.below(nodes)) % nodes).collect())
        .collect();
    json!({
        "schema": 1, "version": input.below(9),
        "nodes": (0..nodes).map(name).collect::<Vec<_>>(),
        "placement": placement,
        "indexes": {"a": {"primaryKey": "id", "rankingRules": ["words", "price:asc"],
                          "sortFacetValuesBy": {"*": "alpha"}, "pins": [{"id": "1", "position": 0}]}},
        "control": {"cluster": "control", "secret": "s"},
        "pathPrefix": input.of(&[None, Some("/ms"), Some("/ms/"), Some("ms"), Some("/")]),
        "limits": {"searchTimeoutMs": 5000, "maxPayloadBytes": 1000, "maxBufferedBytes": 1000},
        "tracing": {"cluster": "otlp", "sampling": 0.5}
    })
}

/// Changes a member somewhere in the value.
fn change(input: &mut Input<'_>, value: &mut Value) {
    let members: Vec<&mut Value> = match value {
        Value::Object(object) => {
            if input.one_in(6) {
                let another: Map<String, Value> = input.object(1);
                object.extend(another);
            }
            if input.one_in(6) && !object.is_empty() {
                let at = input.below(object.len());
                let name = object.keys().nth(at).cloned().unwrap_or_default();
                object.shift_remove(&name);
            }
            object.values_mut().collect()
        }
        Value::Array(elements) => elements.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = members.len();
    if count == 0 || input.one_in(4) {
        *value = input.value(2);
    } else {
        let at = input.below(count);
        if let Some(member) = members.into_iter().nth(at) {
            change(input, member);
        }
    }
}
