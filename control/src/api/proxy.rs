//! Requests that one node can answer for all: the client's own key goes along, and the tag is taken out. And those that no
//! node may be sent, since it would answer, or change, for itself alone.

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

/// Asks a node.
///
/// # Errors
/// No node answers.
pub async fn read(cluster: Shared, sent: Sent) -> Result<Response> {
    sent.natively(&cluster).await
}

/// A route that a cluster does not serve.
struct Closed {
    methods: &'static [&'static str],
    /// A star stands for any segment.
    path: &'static str,
    /// What a key must allow to be told so, where that has not been judged: tenant tokens may chat.
    action: Option<&'static str>,
    /// The experimental feature without which nodes refuse it themselves.
    feature: Option<&'static str>,
    /// Why not.
    why: &'static str,
}

const LOGS: &str = "each node has logs of its own.";
const CHATS: &str = "a chat's searches are made inside one node, over its own documents only.";

/// Routes that a cluster does not serve: `docs/compatibility.md` lists them too.
const CLOSED: [Closed; 4] = [
    Closed {
        methods: &["POST", "DELETE"],
        path: "/logs/stream",
        action: None,
        feature: Some("logsRoute"),
        why: LOGS,
    },
    Closed { methods: &["POST"], path: "/logs/stderr", action: None, feature: Some("logsRoute"), why: LOGS },
    Closed {
        methods: &["POST"],
        path: "/tasks/compact",
        action: None,
        feature: Some("taskQueueCompactionRoute"),
        why: "a node that has compacted its tasks takes no write until it is started again: do it node by node.",
    },
    Closed {
        methods: &["POST"],
        path: "/chats/*/chat/completions",
        action: Some("chatCompletions"),
        feature: Some("chatCompletions"),
        why: CHATS,
    },
];

/// Routes without one of the handlers above that change nothing, and that any node answers for all.
const HARMLESS: [(&str, &str); 4] = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/chats"),
    // The Community Edition refuses it.
    ("POST", "/network/control"),
];

/// Everything else: a node's own words, unless it would change, or answer for, that node only.
///
/// # Errors
/// The route is not for a cluster; or no node answers.
pub async fn other(cluster: Shared, sent: Sent) -> Result<Response> {
    let (method, path) = (sent.request.method.as_str(), &sent.request.path);
    if let Some(closed) = CLOSED.iter().find(|c| c.methods.contains(&method) && matches(c.path, path)) {
        return closed.refuse(&cluster, &sent).await;
    }
    if HARMLESS.iter().any(|(known, pattern)| *known == method && matches(pattern, path)) {
        return read(cluster, sent).await;
    }
    // Whatever a node has that is not known here might be for that node only.
    if is_there(&cluster, method, path).await? {
        return Err(not_served(method, path, "it is not known to Miroir.").into());
    }
    read(cluster, sent).await
}

impl Closed {
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

/// Whether nodes have a route: they tell its methods to whoever asks for its `OPTIONS`.
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
