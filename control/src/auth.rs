//! Authorization of clients: the rules of Meilisearch's API keys, for requests that the control plane answers without a node.
//!
//! Tenant tokens permit searches only, so here they count as unknown keys.

use crate::{
    base::{
        error::{Error, Result, api_error},
        secrets,
    },
    cluster::{Cluster, key_cache::KeyCache},
    domain::api_key::{Key, invalid},
    node::Request,
};
use miroir_core::{error::ApiError, path::ApiPath};
use serde_json::Value;
use std::sync::{Arc, atomic::Ordering};

/// The action that only keys with all actions permit, such as edits by function: `documents.*` is not enough.
///
/// Source: Meilisearch 1.50, `meilisearch-auth/src/store.rs`.
pub const EVERYTHING: &str = "*";

/// What a request may do. Only [`authorize`] creates it, so code that needs it cannot run before a key was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Granted);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Granted {
    /// Everything: the master key, or a cluster without a master key for clients.
    All,
    /// What an API key permits.
    Key(Arc<Key>),
}

impl Grant {
    /// Patterns of the indexes that it may see; `None` for all.
    #[must_use]
    pub fn visible(&self) -> Option<Vec<String>> {
        match &self.0 {
            Granted::Key(key) if !key.indexes.iter().any(|pattern| pattern == "*") => {
                Some(key.indexes.clone())
            }
            _ => None,
        }
    }

    /// Whether a write may create this index.
    #[must_use]
    pub fn may_create(&self, index: &str) -> bool {
        match &self.0 {
            Granted::All => true,
            Granted::Key(key) => key.allows_index(index) && key.allows_action("indexes.create"),
        }
    }

    /// Checks an index that a request's body names.
    ///
    /// # Errors
    /// 403 in Meilisearch's words.
    pub fn check_index(&self, index: &str) -> Result<(), ApiError> {
        match &self.0 {
            Granted::Key(key) if !key.allows_index(index) => Err(invalid("The provided API key is invalid.")),
            _ => Ok(()),
        }
    }
}

fn missing() -> ApiError {
    api_error(
        401,
        "auth",
        "missing_authorization_header",
        "The Authorization header is missing. It must use the bearer authorization method.",
    )
}

/// The token of an `Authorization` header.
fn bearer(header: Option<&str>) -> Result<&str, ApiError> {
    let header = header.ok_or_else(missing)?;
    match header.split_once(' ') {
        Some(("Bearer", token)) => Ok(token),
        None if header == "Bearer" => Err(invalid("The provided API key is invalid.")),
        _ => Err(missing()),
    }
}

impl KeyCache {
    /// The API key for a token; `None` if there is none.
    async fn find(&self, cluster: &Cluster, token: &str) -> Result<Option<Arc<Key>>> {
        if !is_key_text(token) {
            return Ok(None);
        }
        if let Some(key) = self.get(token) {
            return Ok(key);
        }
        let Ok(_permit) = self.look_ups.acquire().await else { return Ok(None) };
        // Another request may have looked the key up in between.
        if let Some(key) = self.get(token) {
            return Ok(key);
        }
        let changes = self.changes.load(Ordering::Acquire);
        let key = look_up(cluster, token).await?.map(Arc::new);
        self.put(token, key.clone(), changes);
        Ok(key)
    }
}

/// Whether a text has the form of an API key: HMAC-SHA256 in lower-case hexadecimal.
fn is_key_text(token: &str) -> bool {
    token.len() == 64 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks whether a client's `Authorization` permits an action, on an index if the route names one.
///
/// # Errors
/// 401 or 403 in Meilisearch's words; or no node is reachable.
pub async fn authorize(
    cluster: &Cluster,
    header: Option<&str>,
    action: &str,
    index: Option<&str>,
) -> Result<Grant> {
    if !cluster.options.user_master_key {
        return Ok(Grant(Granted::All));
    }
    let token = bearer(header)?;
    if secrets::same(token, &cluster.secrets.master_key) {
        return Ok(Grant(Granted::All));
    }
    let key = cluster.keys.find(cluster, token).await?;
    let key = key.ok_or_else(|| invalid("The provided API key is invalid."))?;
    key.check(action, index.map(as_matched).as_deref(), cluster.clock.wall())?;
    Ok(Grant(Granted::Key(key)))
}

/// An index's name as nodes match it against key patterns: taken from a path in which `%` and `/` are still escaped.
///
/// Source: `actix-router` 0.5, the protected characters of its `Quoter`.
fn as_matched(index: &str) -> String {
    index.replace('%', "%25").replace('/', "%2F")
}

async fn look_up(cluster: &Cluster, token: &str) -> Result<Option<Key>> {
    let request = Request::own("GET", ApiPath::new(["keys", token]), None);
    let answer = cluster.ask_any(&request).await?;
    match answer.status {
        200 => {
            let object = answer.json();
            // The route also accepts uids, which are not secret.
            let is_key = object.get("key").and_then(Value::as_str) == Some(token);
            let read = || {
                Key::read(&object)
                    .ok_or_else(|| Error::Other("a node tells a key that cannot be read".to_owned()))
            };
            is_key.then(read).transpose()
        }
        400..500 => Ok(None),
        status => Err(Error::Other(format!("a node answered {status} to the look-up of an API key"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::time,
        node::Call,
        testing::{ClusterBuilder, ManualClock, Reply, Script},
    };
    use serde_json::json;
    use std::time::Duration;

    fn key(actions: &[&str], indexes: &[&str], expires_at: Value) -> Key {
        Key::read(&json!({"actions": actions, "indexes": indexes, "expiresAt": expires_at})).unwrap()
    }

    #[test]
    fn a_key_whose_end_cannot_be_read_is_none() {
        let read = |end: Value| Key::read(&json!({"actions": ["*"], "indexes": ["*"], "expiresAt": end}));
        assert!(read(json!(null)).is_some() && read(json!("2024-01-01T00:00:00Z")).is_some());
        assert!(read(json!("soon")).is_none() && read(json!(7)).is_none());
        assert!(Key::read(&json!({"actions": ["*"], "indexes": ["*"]})).is_none());
        assert!(Key::read(&json!({"actions": "*", "indexes": ["*"], "expiresAt": null})).is_none());
    }

    #[tokio::test]
    async fn a_key_expires_by_the_clusters_clock() {
        let data = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        // As long as the text of a key is.
        let token = "0".repeat(64);
        let path = format!("/keys/{token}");
        let key = json!({
            "key": token, "actions": ["*"], "indexes": ["*"], "expiresAt": "2024-01-01T00:01:00Z",
        });
        let is_look_up = move |call: &Call| call.url.path() == path;
        let is_asked = is_look_up.clone();
        let transport = Script::new(move |call| {
            Reply::Answer(200, if is_asked(call) { key.clone() } else { json!({"pkgVersion": "1.50.0"}) })
        });
        let cluster =
            ClusterBuilder::new(data.path()).transport(transport.clone()).clock(clock.clone()).build();
        for node in &*cluster.nodes() {
            node.check().await;
        }
        let header = format!("Bearer {token}");
        let authorize = async || authorize(&cluster, Some(&header), "search", None).await;
        authorize().await.unwrap();
        authorize().await.unwrap();
        let look_ups = || transport.calls().iter().filter(|call| is_look_up(call)).count();
        assert_eq!(look_ups(), 1, "it is remembered");
        clock.advance(Duration::from_secs(60));
        assert!(authorize().await.is_err());
        assert_eq!(look_ups(), 2, "for a moment only");
    }

    #[test]
    fn actions_and_their_groups() {
        let allows = |actions: &[&str], action: &str| key(actions, &["*"], json!(null)).allows_action(action);
        assert!(allows(&["*"], "documents.add"));
        assert!(allows(&["documents.*"], "documents.delete"));
        assert!(allows(&["documents.add"], "documents.add"));
        assert!(allows(&["*.get"], "tasks.get"));
        assert!(!allows(&["*.get"], "keys.get"));
        assert!(allows(&["*.get"], "export"));
        assert!(!allows(&["*.get", "search"], "documents.add"));
        assert!(!allows(&["documents.get"], "documents.add"));
        assert!(allows(&["*"], EVERYTHING));
        assert!(!allows(&["documents.*", "*.get"], EVERYTHING));
    }

    #[test]
    fn index_patterns_and_expiry() {
        let check = |indexes: &[&str], index: &str| {
            key(&["*"], indexes, json!(null)).check("documents.add", Some(index), 0)
        };
        assert!(check(&["*"], "movies").is_ok());
        assert!(check(&["mov*"], "movies").is_ok());
        assert!(check(&["movies"], "movies").is_ok());
        let refused = check(&["b", "a*"], "movies").unwrap_err();
        assert_eq!(
            refused.body.message,
            "The API key cannot acces the index `movies`, authorized indexes are [\"a*\", \"b\"]."
        );
        let of_some = key(&["*"], &["a*"], json!(null));
        assert!(of_some.check("tasks.get", None, 0).is_ok());
        assert_eq!(of_some.check("webhooks.get", None, 0).unwrap_err().status, 403);
        assert!(key(&["*"], &["a", "*"], json!(null)).check("webhooks.get", None, 0).is_ok());
        let key = key(&["*"], &["*"], json!("2024-01-01T00:00:00Z"));
        let end = time::parse("2024-01-01T00:00:00Z").unwrap();
        assert!(key.check("documents.add", None, end - 1).is_ok());
        assert_eq!(key.check("documents.add", None, end).unwrap_err().status, 403);
    }

    #[test]
    fn headers_as_meilisearch_reads_them() {
        assert_eq!(bearer(None).unwrap_err().body.code, "missing_authorization_header");
        assert_eq!(bearer(Some("Basic x")).unwrap_err().status, 401);
        assert_eq!(bearer(Some("Bearer")).unwrap_err().body.code, "invalid_api_key");
        assert_eq!(bearer(Some("Bearer abc")).unwrap(), "abc");
    }

    #[test]
    fn only_keys_of_all_indexes_see_all() {
        assert_eq!(Grant(Granted::All).visible(), None);
        assert_eq!(
            Grant(Granted::Key(Arc::new(key(&["*"], &["a*"], json!(null))))).visible(),
            Some(vec!["a*".to_owned()])
        );
        assert!(!Grant(Granted::Key(Arc::new(key(&["documents.add"], &["*"], json!(null))))).may_create("x"));
    }
}
