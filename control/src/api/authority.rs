//! The rights that each route requires of a key, in one table. A request is authorized before its body is read, before it waits
//! for a lock, and before anything of it is stored.

use super::proxy;
use crate::{
    auth::{self, Grant},
    base::error::Result,
    cluster::Cluster,
};
use miroir_core::path::ApiPath;

/// A route that requires a key.
#[derive(Debug)]
pub struct SearchRule {
    /// The methods, each with the actions that a key must allow, all of them.
    methods: &'static [(&'static str, &'static [&'static str])],
    /// The path's segments; `*` matches any segment.
    path: &'static [&'static str],
    /// How much of the body the route reads.
    body: BodySize,
}

/// How large a body a route reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// Reads no body.
    None,
    /// Reads a small JSON object.
    Small,
    /// Reads as much as the cluster accepts at all: settings may contain long lists of words.
    Large,
}

const fn rule(
    path: &'static [&'static str],
    body: BodySize,
    methods: &'static [(&'static str, &'static [&'static str])],
) -> SearchRule {
    SearchRule { methods, path, body }
}

use BodySize::{Large, None as Nothing, Small};

/// The routes of Meilisearch that require a key. `GET /health`, `GET /`, and paths that are no route need none.
///
/// Source: Meilisearch 1.50, the `ActionPolicy` of each handler in `meilisearch/src/routes`.
pub const RULES: &[SearchRule] = &[
    rule(&["version"], Nothing, &[("GET", &["version"])]),
    rule(&["stats"], Nothing, &[("GET", &["stats.get"])]),
    rule(&["metrics"], Nothing, &[("GET", &["metrics.get"])]),
    rule(&["indexes"], Small, &[("GET", &["indexes.get"]), ("POST", &["indexes.create"])]),
    rule(
        &["indexes", "*"],
        Small,
        &[("GET", &["indexes.get"]), ("PATCH", &["indexes.update"]), ("DELETE", &["indexes.delete"])],
    ),
    rule(&["indexes", "*", "stats"], Nothing, &[("GET", &["stats.get"])]),
    rule(&["indexes", "*", "settings"], Large, SETTINGS),
    rule(&["indexes", "*", "settings", "*"], Large, SETTINGS),
    rule(&["indexes", "*", "fields"], Small, &[("POST", &["fields.post"])]),
    rule(&["indexes", "*", "compact"], Small, &[("POST", &["indexes.compact"])]),
    rule(&["indexes", "*", "search"], Nothing, &[("GET", &["search"]), ("POST", &["search"])]),
    rule(&["indexes", "*", "similar"], Nothing, &[("GET", &["search"]), ("POST", &["search"])]),
    rule(&["indexes", "*", "facet-search"], Nothing, &[("POST", &["search"])]),
    rule(
        &["indexes", "*", "documents"],
        Nothing,
        &[
            ("GET", &["documents.get"]),
            ("POST", &["documents.add"]),
            ("PUT", &["documents.add"]),
            ("DELETE", &["documents.delete"]),
        ],
    ),
    rule(&["indexes", "*", "documents", "fetch"], Nothing, &[("POST", &["documents.get"])]),
    rule(&["indexes", "*", "documents", "delete"], Nothing, &[("POST", &["documents.delete"])]),
    rule(&["indexes", "*", "documents", "delete-batch"], Nothing, &[("POST", &["documents.delete"])]),
    rule(&["indexes", "*", "documents", "edit"], Nothing, &[("POST", &[auth::EVERYTHING])]),
    rule(
        &["indexes", "*", "documents", "*"],
        Nothing,
        &[("GET", &["documents.get"]), ("DELETE", &["documents.delete"])],
    ),
    rule(&["multi-search"], Nothing, &[("POST", &["search"])]),
    rule(&["swap-indexes"], Small, &[("POST", &["indexes.swap"])]),
    rule(&["dumps"], Nothing, &[("POST", &["dumps.create"])]),
    rule(&["snapshots"], Nothing, &[("POST", &["snapshots.create"])]),
    rule(&["export"], Small, &[("POST", &["export"])]),
    rule(&["render-template"], Small, &[("POST", &["settings.get", "documents.get"])]),
    rule(&["tasks"], Nothing, &[("GET", &["tasks.get"]), ("DELETE", &["tasks.delete"])]),
    rule(&["tasks", "cancel"], Nothing, &[("POST", &["tasks.cancel"])]),
    rule(&["tasks", "compact"], Nothing, &[("POST", &["tasks.compact"])]),
    rule(&["tasks", "*"], Nothing, &[("GET", &["tasks.get"])]),
    rule(&["tasks", "*", "documents"], Nothing, &[("GET", &["tasks.get"])]),
    rule(&["batches"], Nothing, &[("GET", &["tasks.get"])]),
    rule(&["batches", "*"], Nothing, &[("GET", &["tasks.get"])]),
    rule(&["keys"], Small, &[("GET", &["keys.get"]), ("POST", &["keys.create"])]),
    rule(
        &["keys", "*"],
        Small,
        &[("GET", &["keys.get"]), ("PATCH", &["keys.update"]), ("DELETE", &["keys.delete"])],
    ),
    rule(
        &["experimental-features"],
        Small,
        &[("GET", &["experimental.get"]), ("PATCH", &["experimental.update"])],
    ),
    rule(&["network"], Small, &[("GET", &["network.get"]), ("PATCH", &["network.update"])]),
    rule(&["webhooks"], Small, &[("GET", &["webhooks.get"]), ("POST", &["webhooks.create"])]),
    rule(
        &["webhooks", "*"],
        Small,
        &[("GET", &["webhooks.get"]), ("PATCH", &["webhooks.update"]), ("DELETE", &["webhooks.delete"])],
    ),
    rule(
        &["dynamic-search-rules"],
        Small,
        &[("POST", &["dynamicSearchRules.get"]), ("DELETE", &["dynamicSearchRules.delete"])],
    ),
    rule(
        &["dynamic-search-rules", "*"],
        Small,
        &[
            ("GET", &["dynamicSearchRules.get"]),
            ("PATCH", &["dynamicSearchRules.update"]),
            ("DELETE", &["dynamicSearchRules.delete"]),
        ],
    ),
    rule(&["chats"], Nothing, &[("GET", &["chats.get"])]),
    rule(&["chats", "*"], Nothing, &[("GET", &["chats.get"]), ("DELETE", &["chats.delete"])]),
    rule(
        &["chats", "*", "settings"],
        Small,
        &[
            ("GET", &["chatsSettings.get"]),
            ("PATCH", &["chatsSettings.update"]),
            ("DELETE", &["chatsSettings.update"]),
        ],
    ),
    rule(&["network", "control"], Small, &[("POST", &["network.update"])]),
    rule(&["logs", "stream"], Small, &[("POST", &["metrics.get"]), ("DELETE", &["metrics.get"])]),
    rule(&["logs", "stderr"], Small, &[("POST", &["metrics.get"])]),
];

/// The methods of the routes for all settings, and for one setting.
const SETTINGS: &[(&str, &[&str])] = &[
    ("GET", &["settings.get"]),
    ("PUT", &["settings.update"]),
    ("PATCH", &["settings.update"]),
    ("DELETE", &["settings.update"]),
];

/// The rule of a path, for any method.
#[must_use]
pub fn rule_of(path: &ApiPath) -> Option<&'static SearchRule> {
    let segments = path.segments();
    let fits = |rule: &&SearchRule| {
        rule.path.len() == segments.len()
            && rule.path.iter().zip(&segments).all(|(wanted, segment)| *wanted == "*" || wanted == segment)
    };
    RULES.iter().find(fits)
}

impl SearchRule {
    /// The actions that a key must allow for a method; `None` if the route does not have the method.
    #[must_use]
    pub fn actions(&self, method: &str) -> Option<&'static [&'static str]> {
        self.methods.iter().find(|(known, _)| *known == method).map(|(_, actions)| *actions)
    }

    /// Whether this is the route of one setting. Nodes know which settings exist.
    #[must_use]
    pub fn is_of_setting(&self) -> bool {
        matches!(self.path, [.., "settings", "*"])
    }
}

/// The result of the authorization of a request.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What the key allows; `None` if the route needs no key.
    pub grant: Option<Grant>,
    /// How much of the body is read.
    pub body: BodySize,
}

impl Judged {
    /// The result for a request that needs no key, and whose body is not read.
    pub const FREE: Self = Self { grant: None, body: BodySize::None };

    /// Authorizes a request.
    ///
    /// # Errors
    /// 401 or 403, as Meilisearch words them; or no node can be asked for the key.
    pub async fn of(
        cluster: &Cluster,
        method: &str,
        path: &ApiPath,
        authorization: Option<&str>,
    ) -> Result<Self> {
        let Some(rule) = rule_of(path) else { return Ok(Self::FREE) };
        let Some(actions) = rule.actions(method) else { return Ok(Self::FREE) };
        if rule.is_of_setting() {
            let segments = path.segments();
            let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            if segments.last().is_none_or(|name| !is_name(name))
                || !proxy::is_there(cluster, method, path).await?
            {
                return Ok(Self::FREE);
            }
        }
        let mut grant = None;
        for action in actions {
            grant = Some(auth::authorize(cluster, authorization, action, path.index()).await?);
        }
        let body = if method == "GET" { BodySize::None } else { rule.body };
        Ok(Self { grant, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_their_segments() {
        let actions =
            |method: &str, path: &'static str| rule_of(&path.into()).and_then(|rule| rule.actions(method));
        assert_eq!(actions("GET", "/indexes/x/documents/1"), Some(&["documents.get"][..]));
        assert_eq!(actions("GET", "/indexes/x/documents/edit"), None);
        assert_eq!(actions("POST", "/indexes/x/documents/edit"), Some(&["*"][..]));
        assert_eq!(actions("DELETE", r"/indexes/x/documents/..\..\y"), Some(&["documents.delete"][..]));
        assert_eq!(actions("POST", r"/indexes/x\documents"), None);
        assert_eq!(actions("POST", "/%69ndexes"), Some(&["indexes.create"][..]));
        assert_eq!(actions("POST", "/tasks/cancel"), Some(&["tasks.cancel"][..]));
        assert_eq!(actions("GET", "/health"), None);
        assert!(rule_of(&"/indexes/x/settings/synonyms".into()).is_some_and(SearchRule::is_of_setting));
    }
}
