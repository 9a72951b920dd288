//! API keys: their content, how clients see them, how they are created and changed.

use deserr::{Deserr, ValuePointerRef};
use hmac::{Hmac, Mac};
use milli_core::update::Setting;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};
use uuid::Uuid;

use super::actions::{Action, Scope};
use crate::error::marker::{
    BadRequest, InvalidApiKeyActions, InvalidApiKeyDescription, InvalidApiKeyExpiresAt, InvalidApiKeyIndexes,
    InvalidApiKeyName, InvalidApiKeyUid, MissingApiKeyActions, MissingApiKeyExpiresAt, MissingApiKeyIndexes,
};
use crate::error::{ApiError, Code, Result};
use crate::uid::IndexPattern;
use crate::validate::{Invalid, InvalidJson, Unparsable};

/// An API key as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// A description for humans.
    pub description: Option<String>,
    /// A name for humans.
    pub name: Option<String>,
    /// The identifier of the key. The key's text is derived from it and the master key.
    pub uid: Uuid,
    /// The actions that the key allows.
    pub actions: Vec<Action>,
    /// The indexes that the key covers.
    pub indexes: Vec<IndexPattern>,
    /// When the key expires; `None` if never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When the key was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its name or description last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A key as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    name: Option<String>,
    description: Option<String>,
    key: String,
    uid: Uuid,
    actions: Vec<Action>,
    indexes: Vec<IndexPattern>,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// The text of the key with this uid: `hex(HMAC-SHA256(master key, hyphenated uid))`.
pub fn key_text(uid: Uuid, master_key: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(master_key.as_bytes()) else {
        return String::new();
    };
    mac.update(uid.hyphenated().to_string().as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

impl Key {
    fn default_key(name: &str, description: &str, actions: Vec<Action>) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            description: Some(description.into()),
            name: Some(name.into()),
            uid: Uuid::new_v4(),
            actions,
            indexes: vec![IndexPattern::all()],
            expires_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// The default keys of a new database, in the order in which they are created.
    pub fn defaults() -> Vec<Self> {
        let caution = "Caution! Do not expose";
        vec![
            Self::default_key(
                "Default Chat API Key",
                "Use it to chat and search from the frontend",
                vec![Action::ChatCompletions, Action::Search],
            ),
            Self::default_key(
                "Default Read-Only Admin API Key",
                &format!(
                    "Use it to read information across the whole database. {caution} this key on a public frontend"
                ),
                vec![Action::AllGet, Action::KeysGet],
            ),
            Self::default_key(
                "Default Admin API Key",
                &format!(
                    "Use it for anything that is not a search operation. {caution} it on a public frontend"
                ),
                vec![Action::All],
            ),
            Self::default_key(
                "Default Search API Key",
                "Use it to search from the frontend",
                vec![Action::Search],
            ),
        ]
    }

    /// Whether the key covers every index.
    pub fn all_indexes(&self) -> bool {
        self.indexes.is_empty() || self.indexes.iter().any(IndexPattern::is_all)
    }

    /// Whether the key allows the action now: on this index, or on any index if there is none.
    pub fn allows(&self, action: Action, index: Option<&str>) -> bool {
        let granted = self.actions.iter().any(|own| own.grants(action));
        let covered = self.all_indexes()
            || match index {
                Some(index) => self.indexes.iter().any(|pattern| pattern.matches(index)),
                None => action.scope() == Scope::ByHandler,
            };
        granted && covered && self.expires_at.is_none_or(|end| OffsetDateTime::now_utc() < end)
    }

    /// The key as clients see it.
    pub fn view(&self, master_key: &str) -> KeyView {
        KeyView {
            name: self.name.clone(),
            description: self.description.clone(),
            key: key_text(self.uid, master_key),
            uid: self.uid,
            actions: self.actions.clone(),
            indexes: self.indexes.clone(),
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// The body of `POST /keys`.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
pub struct NewKey {
    #[deserr(default, error = InvalidJson<InvalidApiKeyDescription>)]
    description: Option<String>,
    #[deserr(default, error = InvalidJson<InvalidApiKeyName>)]
    name: Option<String>,
    #[deserr(default = Uuid::new_v4(), error = InvalidJson<InvalidApiKeyUid>, try_from(&String) = parse_uuid -> uuid::Error)]
    uid: Uuid,
    #[deserr(error = InvalidJson<InvalidApiKeyActions>, missing_field_error = InvalidJson::<MissingApiKeyActions>::missing)]
    actions: Vec<Action>,
    #[deserr(error = InvalidJson<InvalidApiKeyIndexes>, missing_field_error = InvalidJson::<MissingApiKeyIndexes>::missing)]
    indexes: Vec<IndexPattern>,
    #[deserr(error = InvalidJson<InvalidApiKeyExpiresAt>, try_from(Option<String>) = parse_expiration -> Unparsable, missing_field_error = InvalidJson::<MissingApiKeyExpiresAt>::missing)]
    expires_at: Option<OffsetDateTime>,
}

// `deserr` requires exactly this type.
#[allow(clippy::ptr_arg)]
fn parse_uuid(text: &String) -> std::result::Result<Uuid, uuid::Error> {
    text.parse()
}

impl NewKey {
    /// Checks the body, and creates the key with the current date.
    pub fn into_key(self) -> Result<Key> {
        let now = OffsetDateTime::now_utc();
        let key = Key {
            description: self.description,
            name: self.name,
            uid: self.uid,
            actions: self.actions,
            indexes: self.indexes,
            expires_at: self.expires_at,
            created_at: now,
            updated_at: now,
        };
        let global = key.actions.iter().find(|action| action.scope() == Scope::Global);
        match global {
            Some(action) if !key.all_indexes() => {
                let action = format!("\"{}\"", action.name());
                Err(ApiError::new(
                    Code::IndexScopedApiKeyWithGlobalAction,
                    format!(
                        "cannot create index-scoped API key with global action `{action}`\n  - Hint: remove action \
                         `{action}` from the action list, or remove `indexes` to make the key global"
                    ),
                ))
            }
            _ => Ok(key),
        }
    }
}

/// The body of `PATCH /keys/{key}`.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields = deny_immutable)]
pub struct KeyPatch {
    #[deserr(default, error = InvalidJson<InvalidApiKeyDescription>)]
    description: Setting<String>,
    #[deserr(default, error = InvalidJson<InvalidApiKeyName>)]
    name: Setting<String>,
}

impl KeyPatch {
    /// Changes the key.
    pub fn apply(self, key: &mut Key) {
        if !self.description.is_not_set() {
            key.description = self.description.set();
        }
        if !self.name.is_not_set() {
            key.name = self.name.set();
        }
        key.updated_at = OffsetDateTime::now_utc();
    }
}

fn deny_immutable(field: &str, accepted: &[&str], at: ValuePointerRef<'_>) -> InvalidJson<BadRequest> {
    let code = match field {
        "uid" => Code::ImmutableApiKeyUid,
        "actions" => Code::ImmutableApiKeyActions,
        "indexes" => Code::ImmutableApiKeyIndexes,
        "expiresAt" => Code::ImmutableApiKeyExpiresAt,
        "createdAt" => Code::ImmutableApiKeyCreatedAt,
        "updatedAt" => Code::ImmutableApiKeyUpdatedAt,
        _ => return crate::validate::unknown_field(field, accepted, at),
    };
    Invalid::new(crate::validate::immutable_field(field, accepted), code)
}

/// Parses the expiration of a key: a date or date-time in the future.
fn parse_expiration(text: Option<String>) -> std::result::Result<Option<OffsetDateTime>, Unparsable> {
    let Some(text) = text else { return Ok(None) };
    let with_t = format_description!(
        "[year repr:full base:calendar]-[month repr:numerical]-[day]T[hour]:[minute]:[second]"
    );
    let with_space = format_description!(
        "[year repr:full base:calendar]-[month repr:numerical]-[day] [hour]:[minute]:[second]"
    );
    let day = format_description!("[year repr:full base:calendar]-[month repr:numerical]-[day]");
    let end = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(&text, with_t).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| PrimitiveDateTime::parse(&text, with_space).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| {
            Date::parse(&text, day).map(|date| PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc())
        });
    match end {
        Ok(end) if end > OffsetDateTime::now_utc() => Ok(Some(end)),
        _ => Err(Unparsable(format!(
            "`{text}` is not a valid date. It should follow the RFC 3339 format to represents a date or datetime in the \
             future or specified as a null value. e.g. 'YYYY-MM-DD' or 'YYYY-MM-DD HH:MM:SS'.\n"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_text_is_the_hmac_of_the_hyphenated_uid() {
        // Golden value: clients derive tenant tokens from this text, so it may never change.
        let uid = Uuid::parse_str("6062abda-a5aa-4414-ac91-ecd7944c0f8d").unwrap();
        let text = key_text(uid, "masterKey");
        assert_eq!(text.len(), 64);
        assert_eq!(text, key_text(uid, "masterKey"));
        assert_ne!(text, key_text(uid, "other"));
    }

    #[test]
    fn a_key_limited_to_indexes_cannot_be_global() {
        let body = br#"{"actions":["version"],"indexes":["a"],"expiresAt":null}"#;
        let error = crate::validate::json::<NewKey>(body).unwrap().into_key().unwrap_err();
        assert_eq!(error.code, "index_scoped_api_key_with_global_action");
        let error = crate::validate::json::<NewKey>(br#"{"indexes":["a"],"expiresAt":null}"#).unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("missing_api_key_actions", "Missing field `actions`")
        );
    }
}
