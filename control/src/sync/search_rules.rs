//! Dynamic search rules. Each node applies them to its own documents. Gateways place the pinned documents again in the merged
//! list, and therefore need the order of the rules.

use crate::{
    base::error::Result,
    cluster::Cluster,
    domain::search_rules::SearchRule,
    fencing::in_flight,
    node::{Node, Request},
    sync::features,
};
use miroir_core::path::ApiPath;
use serde_json::{Value, json};

/// The route.
pub const PATH: &str = "/dynamic-search-rules";

/// The experimental feature without which nodes neither apply nor list rules.
pub const FEATURE: &str = "dynamicSearchRules";

/// The members of a rule that a request can set; `null` means the default.
const MEMBERS: [&str; 5] = ["description", "precedence", "active", "conditions", "actions"];

/// A node's rules, the one that was changed last at the end; `None` if the node does not support rules. Leaves the experimental
/// feature enabled on the node.
///
/// # Errors
/// The node did not answer, or refused, or told something else than rules.
pub async fn of_node(node: &Node) -> Result<Option<Vec<SearchRule>>> {
    let all = json!({"limit": 1_000_000});
    let Some(answer) = features::ask(node, FEATURE, "POST", PATH, Some(&all)).await? else {
        return Ok(None);
    };
    let request = format!("POST {PATH}");
    // The node lists the rule that was changed last first.
    let listed = node.results(&request, &answer)?.iter().rev().enumerate();
    let rules = listed.map(|(place, told)| {
        let uid = node.text(&request, told, "uid")?.to_owned();
        let body = told.as_object().ok_or_else(|| node.unreadable(&request, told))?.iter();
        let body = body.filter(|(name, _)| MEMBERS.contains(&name.as_str()));
        Ok(SearchRule { uid, place, body: body.map(|(name, value)| (name.clone(), value.clone())).collect() })
    });
    rules.collect::<Result<_>>().map(Some)
}

/// Makes a node's rules those of the cluster. Returns the node's tasks to wait for, oldest first. Leaves the experimental feature enabled
/// on the node.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn sync(cluster: &Cluster, node: &Node) -> Result<Vec<u64>> {
    let rules = &cluster.cluster_state().rules;
    let Some(there) = of_node(node).await? else { return Ok(Vec::new()) };
    let mut tasks = Vec::new();
    for rule in there.iter().filter(|rule| rules.iter().all(|wanted| wanted.uid != rule.uid)) {
        let deletion = Request::own("DELETE", ApiPath::new(["dynamic-search-rules", &rule.uid]), None);
        tasks.push(in_flight::enqueue(cluster, node, deletion).await?);
    }
    for rule in rules {
        let whole = |rule: &SearchRule| {
            let member = |name: &str| (name.to_owned(), rule.body.get(name).cloned().unwrap_or(Value::Null));
            Value::Object(MEMBERS.into_iter().map(member).collect())
        };
        if there.iter().any(|own| own.uid == rule.uid && whole(own) == whole(rule)) {
            continue;
        }
        let update =
            Request::own("PATCH", ApiPath::new(["dynamic-search-rules", &rule.uid]), Some(&whole(rule)));
        tasks.push(in_flight::enqueue(cluster, node, update).await?);
    }
    Ok(tasks)
}
