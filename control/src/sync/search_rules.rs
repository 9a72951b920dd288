//! Dynamic search rules: nodes apply them, each to the documents that it has; gateways place what they pin anew, and need
//! to know which rule goes before which.

use crate::{
    base::error::Result,
    cluster::Cluster,
    domain::search_rules::Rule,
    fencing::fenced,
    node::{Node, Request},
    sync::features,
};
use miroir_core::path::ApiPath;
use serde_json::{Value, json};

/// The route.
pub const PATH: &str = "/dynamic-search-rules";

/// The experimental feature without which nodes neither apply them nor tell of them.
pub const FEATURE: &str = "dynamicSearchRules";

/// What a request sets; `null` is the default.
const MEMBERS: [&str; 5] = ["description", "precedence", "active", "conditions", "actions"];

/// A node's rules, in the order in which they were changed last; `None` where it does not know of rules. It leaves the
/// experimental feature on.
///
/// # Errors
/// The node did not answer, or refused, or told something else than rules.
pub async fn of_node(node: &Node) -> Result<Option<Vec<Rule>>> {
    let all = json!({"limit": 1_000_000});
    let Some(answer) = features::told(node, FEATURE, "POST", PATH, Some(&all)).await? else {
        return Ok(None);
    };
    let request = format!("POST {PATH}");
    // The last one comes first.
    let listed = node.results(&request, &answer)?.iter().rev().enumerate();
    let rules = listed.map(|(place, told)| {
        let uid = node.text(&request, told, "uid")?.to_owned();
        let body = told.as_object().ok_or_else(|| node.unreadable(&request, told))?.iter();
        let body = body.filter(|(name, _)| MEMBERS.contains(&name.as_str()));
        Ok(Rule { uid, place, body: body.map(|(name, value)| (name.clone(), value.clone())).collect() })
    });
    rules.collect::<Result<_>>().map(Some)
}

/// Makes a node's rules those of the cluster; returns the last task to wait for. It leaves the experimental feature on.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn sync(cluster: &Cluster, node: &Node) -> Result<Option<u64>> {
    let rules = &cluster.view().rules;
    let Some(there) = of_node(node).await? else { return Ok(None) };
    let mut last = None;
    for rule in there.iter().filter(|rule| rules.iter().all(|wanted| wanted.uid != rule.uid)) {
        let deletion = Request::own("DELETE", ApiPath::new(["dynamic-search-rules", &rule.uid]), None);
        last = Some(fenced::enqueue(cluster, node, deletion).await?);
    }
    for rule in rules {
        let whole = |rule: &Rule| {
            let member = |name: &str| (name.to_owned(), rule.body.get(name).cloned().unwrap_or(Value::Null));
            Value::Object(MEMBERS.into_iter().map(member).collect())
        };
        if there.iter().any(|own| own.uid == rule.uid && whole(own) == whole(rule)) {
            continue;
        }
        let update =
            Request::own("PATCH", ApiPath::new(["dynamic-search-rules", &rule.uid]), Some(&whole(rule)));
        last = Some(fenced::enqueue(cluster, node, update).await?);
    }
    Ok(last)
}
