//! Requests that one node can answer for all: they are sent with the client's own key, and the shard tag is removed from the
//! answer. Also refuses requests that no node may get, because the node would answer, or change, only for itself.

use super::{Sent, Shared};
use crate::{
    auth,
    base::error::Result,
    cluster::Cluster,
    node::{Authority, Request},
    sync::features,
};
use axum::response::Response;
use miroir_core::{
    error::{ApiError, Code},
    path::ApiPath,
};

/// Lets a node answer.
///
/// # Errors
/// No node answers.
pub async fn read(cluster: Shared, sent: Sent) -> Result<Response> {
    sent.natively(&cluster).await
}

/// A route that a cluster does not serve.
struct UnsupportedRoute {
    methods: &'static [&'static str],
    /// `*` matches any segment.
    path: &'static str,
    /// The action that a key must allow before the client gets the reason, if [`super::authority`] has not checked it: tenant
    /// tokens may chat.
    action: Option<&'static str>,
    /// The experimental feature of the route. If it is disabled, nodes refuse the request themselves.
    feature: Option<&'static str>,
    /// The reason, for the client.
    why: &'static str,
}

const LOGS: &str = "each node has its own logs.";
const CHATS: &str = "a chat's searches are made inside one node, over its own documents only.";

/// Routes that a cluster does not serve: `docs/compatibility.md` lists them too.
const CLOSED: [UnsupportedRoute; 4] = [
    UnsupportedRoute {
        methods: &["POST", "DELETE"],
        path: "/logs/stream",
        action: None,
        feature: Some("logsRoute"),
        why: LOGS,
    },
    UnsupportedRoute {
        methods: &["POST"],
        path: "/logs/stderr",
        action: None,
        feature: Some("logsRoute"),
        why: LOGS,
    },
    UnsupportedRoute {
        methods: &["POST"],
        path: "/tasks/compact",
        action: None,
        feature: Some("taskQueueCompactionRoute"),
        why: "a node that has compacted its tasks accepts no write until it is restarted: do it node by node.",
    },
    UnsupportedRoute {
        methods: &["POST"],
        path: "/chats/*/chat/completions",
        action: Some("chatCompletions"),
        feature: Some("chatCompletions"),
        why: CHATS,
    },
];

/// Routes without a handler of their own that change nothing, and that any node can answer for all.
const HARMLESS: [(&str, &str); 4] = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/chats"),
    // Meilisearch Community Edition refuses this route.
    ("POST", "/network/control"),
];

/// All other requests: a node answers, unless it would change, or answer for, only itself.
///
/// # Errors
/// A cluster does not serve the route; or no node answers.
pub async fn other(cluster: Shared, sent: Sent) -> Result<Response> {
    let (method, path) = (sent.request.method.as_str(), &sent.request.path);
    if let Some(closed) = CLOSED.iter().find(|c| c.methods.contains(&method) && matches(c.path, path)) {
        return closed.refuse(&cluster, &sent).await;
    }
    if HARMLESS.iter().any(|(known, pattern)| *known == method && matches(pattern, path)) {
        return read(cluster, sent).await;
    }
    // A route that nodes have but Miroir does not know might concern only the node that answers.
    if is_there(&cluster, method, path).await? {
        return Err(not_served(method, path, "Miroir does not know this route.").into());
    }
    read(cluster, sent).await
}

impl UnsupportedRoute {
    async fn refuse(&self, cluster: &Shared, sent: &Sent) -> Result<Response> {
        if let Some(feature) = self.feature
            && features::is_on(cluster, feature).await? != Some(true)
        {
            return sent.natively(cluster).await;
        }
        if let Some(action) = self.action {
            auth::authorize(cluster, sent.authorization.as_deref(), action, None).await?;
        }
        Err(not_served(&sent.request.method, &sent.request.path, self.why).into())
    }
}

fn not_served(method: &str, path: &ApiPath, why: &str) -> ApiError {
    ApiError::new(Code::BAD_REQUEST, format!("A cluster does not serve `{method} {}`: {why}", path.route()))
}

fn matches(pattern: &'static str, path: &ApiPath) -> bool {
    let (pattern, segments) = (ApiPath::from(pattern), path.segments());
    let pattern = pattern.segments();
    pattern.len() == segments.len()
        && pattern.iter().zip(&segments).all(|(wanted, segment)| *wanted == "*" || wanted == segment)
}

/// Whether nodes have a route, found out by an `OPTIONS` request, whose answer lists the methods.
pub(super) async fn is_there(cluster: &Cluster, method: &str, path: &ApiPath) -> Result<bool> {
    if path.has_dots() {
        return Ok(false);
    }
    let route = ApiPath::new(path.segments());
    let request = Request { authority: Authority::Nobody, ..Request::own("OPTIONS", route, None) };
    let answer = cluster.ask_any(&request).await?;
    Ok(match (answer.status, answer.allow) {
        (404, _) => false,
        (_, Some(methods)) => methods.split(',').any(|allowed| allowed.trim() == method),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment() {
        assert!(matches("/chats/*/settings", &"/chats/a/settings".into()));
        assert!(!matches("/chats/*", &"/chats/a/settings".into()));
        assert!(!matches("/chats/*", &"/chats".into()));
        assert!(matches("/", &"/".into()));
    }
}
