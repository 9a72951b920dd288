//! Authorization: the master key, API keys and tenant tokens.

pub mod actions;
pub mod key;
mod tenant;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use uuid::Uuid;

pub use self::actions::Action;
use self::key::{Key, key_text};
pub use self::tenant::SearchRules;
use crate::error::{ApiError, Code, Result};
use crate::store::{Changes, Store};
use crate::uid::IndexPattern;

const SECTION: &str = "keys";

/// The node's keys.
pub struct Keys {
    master_key: Option<String>,
    keys: RwLock<Arc<BTreeMap<Uuid, Key>>>,
}

/// A snapshot of the keys at the time when a request's head arrived. The request is authorized by these keys, however long its
/// body takes.
#[derive(Debug, Clone)]
pub struct Known {
    master_key: Option<String>,
    keys: Arc<BTreeMap<Uuid, Key>>,
}

/// The restrictions of an authorized caller.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// The indexes of the caller's key; `None` is every index.
    key_indexes: Option<Vec<IndexPattern>>,
    /// The rules of the caller's tenant token.
    rules: Option<SearchRules>,
    no_index_creation: bool,
}

impl Rights {
    /// Whether the caller may use this index.
    pub fn covers(&self, index: &str) -> bool {
        self.key_covers(index) && self.rules.as_ref().is_none_or(|rules| rules.covers(index))
    }

    fn key_covers(&self, index: &str) -> bool {
        self.key_indexes.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(index)))
    }

    /// Whether the caller may use every index.
    pub fn covers_all(&self) -> bool {
        self.key_indexes.as_ref().is_none_or(|patterns| patterns.iter().any(IndexPattern::is_all))
            && self.rules.as_ref().is_none_or(SearchRules::covers_all)
    }

    /// Whether a write of the caller may create this index.
    pub fn may_create(&self, index: &str) -> bool {
        !self.no_index_creation && self.covers(index)
    }

    /// The filter that the caller's tenant token adds to searches in this index.
    pub fn filter(&self, index: &str) -> Option<serde_json::Value> {
        self.rules.as_ref().and_then(|rules| rules.filter(index))
    }
}

impl Keys {
    /// Loads the keys. A new database gets the default keys.
    pub fn load(store: &Store, master_key: Option<String>) -> Result<Self> {
        let master_key = master_key.filter(|key| !key.is_empty());
        let mut keys: BTreeMap<Uuid, Key> =
            store.section::<Key>(SECTION)?.into_iter().map(|(_, key)| (key.uid, key)).collect();
        if keys.is_empty() && master_key.is_some() {
            let mut changes = Changes::default();
            for key in Key::defaults() {
                changes.put(SECTION, &key.uid.to_string(), &key)?;
                keys.insert(key.uid, key);
            }
            store.commit(changes)?;
        }
        Ok(Self { master_key, keys: RwLock::new(Arc::new(keys)) })
    }

    /// The master key, if the node has one.
    pub fn master_key(&self) -> Option<&str> {
        self.master_key.as_deref()
    }

    /// All keys, the newest first.
    pub fn list(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.read().values().cloned().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        keys
    }

    /// The key with this uid or text.
    pub fn find(&self, uid_or_text: &str) -> Result<Key> {
        let found = match Uuid::parse_str(uid_or_text) {
            Ok(uid) => self.read().get(&uid).cloned(),
            Err(_) => self.known().by_text(uid_or_text),
        };
        found
            .ok_or_else(|| ApiError::new(Code::ApiKeyNotFound, format!("API key `{uid_or_text}` not found.")))
    }

    /// Adds a new key.
    pub fn add(&self, store: &Store, key: Key) -> Result<Key> {
        if self.read().contains_key(&key.uid) {
            let message = format!("`uid` field value `{}` is already an existing API key.", key.uid);
            return Err(ApiError::new(Code::ApiKeyAlreadyExists, message));
        }
        self.put(store, key)
    }

    /// Stores a key.
    pub fn put(&self, store: &Store, key: Key) -> Result<Key> {
        let mut changes = Changes::default();
        changes.put(SECTION, &key.uid.to_string(), &key)?;
        store.commit(changes)?;
        Arc::make_mut(&mut self.write()).insert(key.uid, key.clone());
        Ok(key)
    }

    /// Removes a key.
    pub fn remove(&self, store: &Store, uid: Uuid) -> Result<()> {
        let mut changes = Changes::default();
        changes.remove(SECTION, &uid.to_string());
        store.commit(changes)?;
        Arc::make_mut(&mut self.write()).remove(&uid);
        Ok(())
    }

    /// A snapshot of the current keys.
    pub fn known(&self) -> Known {
        Known { master_key: self.master_key.clone(), keys: self.read().clone() }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Arc<BTreeMap<Uuid, Key>>> {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Arc<BTreeMap<Uuid, Key>>> {
        self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Known {
    /// Whether this token does not allow anything at all. Then the request's body is not read.
    pub fn is_nobody(&self, token: Option<&str>) -> bool {
        let Some(master_key) = self.master_key.as_deref() else { return false };
        let is_tenant = |token: &str| {
            let outcome = tenant::read(token, Action::Search, |uid| key_text(uid, master_key));
            !matches!(outcome, tenant::Outcome::NotAToken)
        };
        token.is_none_or(|token| token != master_key && self.by_text(token).is_none() && !is_tenant(token))
    }

    /// Decides whether the bearer of `token` may do `action`, on `index` if the route names one.
    pub fn authorize(&self, token: Option<&str>, action: Action, index: Option<&str>) -> Result<Rights> {
        let needs_master_key =
            matches!(action, Action::KeysGet | Action::KeysAdd | Action::KeysUpdate | Action::KeysDelete);
        let Some(master_key) = self.master_key.as_deref() else {
            return if needs_master_key {
                Err(ApiError::new(
                    Code::MissingMasterKey,
                    "Meilisearch is running without a master key. To access this API endpoint, you must have set a \
                     master key at launch.",
                ))
            } else {
                Ok(Rights::default())
            };
        };
        let Some(token) = token else {
            return Err(ApiError::new(
                Code::MissingAuthorizationHeader,
                "The Authorization header is missing. It must use the bearer authorization method.",
            ));
        };
        if token == master_key {
            return Ok(Rights::default());
        }
        let refuse = |message: String| ApiError::new(Code::InvalidApiKey, message);
        let invalid = || refuse("The provided API key is invalid.".into());
        let (key, rules) = match tenant::read(token, action, |uid| key_text(uid, master_key)) {
            tenant::Outcome::Valid(uid, rules) => {
                (self.keys.get(&uid).cloned().ok_or_else(invalid)?, Some(rules))
            }
            tenant::Outcome::NotAToken => (self.by_text(token).ok_or_else(invalid)?, None),
            tenant::Outcome::Refused(message) => return Err(refuse(message)),
        };
        let rights = Rights {
            key_indexes: (!key.all_indexes()).then(|| key.indexes.clone()),
            no_index_creation: !key.allows(Action::IndexesAdd, None),
            rules,
        };
        if let Some(index) = index {
            check_index(&rights, &key, index).map_err(refuse)?;
        }
        if key.allows(action, index) { Ok(rights) } else { Err(invalid()) }
    }

    fn by_text(&self, text: &str) -> Option<Key> {
        let master_key = self.master_key.as_deref()?;
        self.keys.values().find(|key| key_text(key.uid, master_key) == text).cloned()
    }
}

/// Returns the reason why the caller may not use the index, as far as the caller may know it.
fn check_index(rights: &Rights, key: &Key, index: &str) -> std::result::Result<(), String> {
    // Messages show the index as the router matched it: with `%` and `/` still escaped.
    let name = index.replace('%', "%25").replace('/', "%2F");
    if let Some(rules) = rights.rules.as_ref().filter(|rules| !rules.covers(index)) {
        let allowed = rules.indexes();
        return Err(format!(
            "The provided tenant token cannot acces the index `{name}`, allowed indexes are {allowed:?}."
        ));
    }
    if rights.key_covers(index) {
        Ok(())
    } else if rights.rules.is_some() {
        Err(format!("The API key used to generate this tenant token cannot acces the index `{name}`."))
    } else {
        let mut allowed: Vec<_> = key.indexes.iter().map(IndexPattern::as_str).collect();
        allowed.sort_unstable();
        Err(format!("The API key cannot acces the index `{name}`, authorized indexes are {allowed:?}."))
    }
}
