//! Whether two answers are the same, but for what no client can rely on.

use serde_json::Value;

/// How two answers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// In everything.
    Exact,
    /// In everything but the order of hits that the ranking rules do not tell apart.
    Ties,
    /// Not.
    No,
}

/// Compares two bodies. `key` tells of a hit what the ranking rules say.
pub fn compare(cluster: &Value, node: &Value, key: &dyn Fn(&Value) -> Option<String>) -> Agreement {
    let (cluster, node) = (without_times(cluster.clone()), without_times(node.clone()));
    if cluster == node {
        return Agreement::Exact;
    }
    let pairs = match (&cluster["results"], &node["results"]) {
        (Value::Array(one), Value::Array(other)) if one.iter().any(|result| result["hits"].is_array()) => {
            if one.len() != other.len() {
                return Agreement::No;
            }
            one.iter().cloned().zip(other.iter().cloned()).collect()
        }
        _ => vec![(cluster, node)],
    };
    if pairs.into_iter().all(|(cluster, node)| ties(cluster, node, key)) {
        Agreement::Ties
    } else {
        Agreement::No
    }
}

fn ties(mut cluster: Value, mut node: Value, key: &dyn Fn(&Value) -> Option<String>) -> bool {
    let name = if cluster["hits"].is_array() { "hits" } else { "results" };
    let (one, other) = (cluster[name].take(), node[name].take());
    let (Value::Array(one), Value::Array(other)) = (one, other) else { return cluster == node };
    if cluster != node || one.len() != other.len() {
        return false;
    }
    let keys = |hits: &[Value]| hits.iter().map(key).collect::<Option<Vec<_>>>();
    let twice = one
        .iter()
        .enumerate()
        .any(|(position, hit)| one[..position].contains(hit) && !other[..].contains(hit));
    match (keys(&one), keys(&other)) {
        (Some(one), Some(other)) => one == other && !twice,
        _ => false,
    }
}

/// Times and ids of requests differ from run to run.
fn without_times(mut answer: Value) -> Value {
    let mut clean = |answer: &mut Value| {
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("processingTimeMs");
            answer.remove("requestUid");
        }
    };
    clean(&mut answer);
    if let Some(results) = answer.get_mut("results").and_then(Value::as_array_mut) {
        results.iter_mut().filter(|result| result["hits"].is_array()).for_each(&mut clean);
    }
    answer
}

/// Where two values differ first.
pub fn difference(cluster: &Value, node: &Value) -> String {
    fn at(path: &str, one: &Value, other: &Value) -> Option<String> {
        match (one, other) {
            _ if one == other => None,
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                let mut members = one.iter().zip(other).enumerate();
                members.find_map(|(position, (one, other))| at(&format!("{path}[{position}]"), one, other))
            }
            (Value::Object(one), Value::Object(other)) if one.keys().all(|key| other.contains_key(key)) => {
                let extra = other.keys().find(|key| !one.contains_key(*key));
                let mut members = one.iter();
                let found = members.find_map(|(key, one)| at(&format!("{path}.{key}"), one, &other[key]));
                found.or_else(|| extra.map(|key| format!("{path}.{key} is missing")))
            }
            _ => {
                let short = |value: &Value| value.to_string().chars().take(700).collect::<String>();
                Some(format!("{path}:\n  cluster: {}\n  node:    {}", short(one), short(other)))
            }
        }
    }
    at("", &without_times(cluster.clone()), &without_times(node.clone())).unwrap_or_default()
}
