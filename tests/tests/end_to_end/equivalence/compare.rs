//! Compares two answers, except for what no client can rely on.

use serde_json::{Map, Value};

/// How far two answers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// They agree in everything.
    Exact,
    /// They agree in everything except the order of facet values with the same count.
    Ties,
    /// They do not agree.
    No,
}

/// Compares two bodies.
pub fn compare(cluster: &Value, node: &Value) -> Agreement {
    let (mut cluster, mut node) = (without_times(cluster.clone()), without_times(node.clone()));
    if same(&cluster, &node) {
        return Agreement::Exact;
    }
    let is_multi = |answer: &Value| {
        answer["results"]
            .as_array()
            .is_some_and(|results| results.iter().any(|result| result["hits"].is_array()))
    };
    let ties = if is_multi(&cluster) && is_multi(&node) {
        let take =
            |answer: &mut Value| answer["results"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let (one, other) = (take(&mut cluster), take(&mut node));
        one.len() == other.len() && one.into_iter().zip(other).all(|(one, other)| ties(one, other))
    } else {
        ties(cluster, node)
    };
    if ties { Agreement::Ties } else { Agreement::No }
}

/// Whether values and order of members are the same. The order of members of documents is ignored: it is the order in which a
/// node first saw the fields.
fn same(one: &Value, other: &Value) -> bool {
    one == other && shape(one) == shape(other)
}

fn shape(value: &Value) -> Vec<&str> {
    let mut names = Vec::new();
    if let Value::Object(members) = value {
        for (name, value) in members {
            names.push(name.as_str());
            match value {
                Value::Array(results) if name == "results" => {
                    names.extend(results.iter().filter(|result| result["hits"].is_array()).flat_map(shape));
                }
                value => names.extend(shape(value)),
            }
        }
    }
    names
}

fn ties(mut cluster: Value, mut node: Value) -> bool {
    facets_tie(&mut cluster, &mut node) && same(&cluster, &node)
}

/// Removes the facets from both. Returns `false` if they differ in more than the order of values with the same count.
fn facets_tie(cluster: &mut Value, node: &mut Value) -> bool {
    let mut taken = |pointer: &str| {
        let take = |answer: &mut Value| answer.pointer_mut(pointer).map(Value::take).unwrap_or_default();
        (take(cluster), take(node))
    };
    let (one, other) = taken("/facetHits");
    let counted = |hits: &Value| -> Map<String, Value> {
        let hits = hits.as_array().into_iter().flatten();
        hits.map(|hit| (hit["value"].to_string(), hit["count"].clone())).collect()
    };
    let mut tie = counts_tie(&counted(&one), &counted(&other));
    let mut all = vec![taken("/facetDistribution")];
    for index in super::documents::ALL {
        all.push(taken(&format!("/facetsByIndex/{index}/distribution")));
    }
    for (one, other) in all {
        tie &= match (one, other) {
            (Value::Object(one), Value::Object(other)) => {
                one.keys().eq(other.keys())
                    && one.iter().all(|(facet, values)| match (values, &other[facet]) {
                        (Value::Object(one), Value::Object(other)) => counts_tie(one, other),
                        _ => false,
                    })
            }
            (one, other) => one == other,
        };
    }
    tie
}

/// Compares the values of one facet: numbers come first, then strings, each ordered by count. Among values with the lowest
/// shown count, the choice may differ.
fn counts_tie(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    if one.iter().eq(other.iter()) {
        return true;
    }
    let numbers = |values: &Map<String, Value>| {
        values.iter().take_while(|(value, _)| value.parse::<f64>().is_ok()).count()
    };
    let split = numbers(one);
    if split != numbers(other) || !one.values().eq(other.values()) {
        return false;
    }
    [(0, split), (split, one.len())].into_iter().all(|(start, end)| {
        let counts: Vec<u64> = one.values().take(end).skip(start).filter_map(Value::as_u64).collect();
        let Some(last) = counts.last() else { return true };
        counts.is_sorted_by(|one, other| one >= other)
            && one.iter().take(end).skip(start).all(|(value, count)| {
                other.get(value).map_or(count.as_u64() == Some(*last), |other| other == count)
            })
    })
}

/// Removes times and ids of requests, which differ from run to run.
fn without_times(mut answer: Value) -> Value {
    let mut clean = |answer: &mut Value| {
        if let Some(answer) = answer.as_object_mut() {
            answer.shift_remove("processingTimeMs");
            answer.shift_remove("requestUid");
        }
    };
    clean(&mut answer);
    if let Some(results) = answer.get_mut("results").and_then(Value::as_array_mut) {
        results.iter_mut().filter(|result| result["hits"].is_array()).for_each(&mut clean);
    }
    answer
}

/// A description of the first difference between two values.
pub fn difference(cluster: &Value, node: &Value) -> String {
    fn at(path: &str, one: &Value, other: &Value) -> Option<String> {
        match (one, other) {
            _ if one == other && shape(one) == shape(other) => None,
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                let mut members = one.iter().zip(other).enumerate();
                members.find_map(|(position, (one, other))| at(&format!("{path}[{position}]"), one, other))
            }
            (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
                one.iter().find_map(|(key, one)| at(&format!("{path}.{key}"), one, &other[key]))
            }
            _ => {
                let short = |value: &Value| value.to_string().chars().take(700).collect::<String>();
                Some(format!("{path}:\n  cluster: {}\n  node:    {}", short(one), short(other)))
            }
        }
    }
    at("", &without_times(cluster.clone()), &without_times(node.clone())).unwrap_or_default()
}
