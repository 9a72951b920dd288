//! API keys of a node, and what they allow.

use super::{Node, NodeKey, NodeReply, NodeRequest, error, moment};
use miroir_control::{base::secrets::Secrets, domain::api_key::Key};
use serde_json::{Value, json};

impl Node {
    /// Adds a key, from the body that creates it.
    pub fn add_key(&mut self, body: &Value) -> Value {
        let uid = body["uid"].as_str().unwrap_or_default().to_owned();
        let secrets = Secrets {
            master_key: self.master_key.clone(),
            gateway_secret: String::new(),
            admin_token: String::new(),
        };
        let text = secrets.key_text(uuid::Uuid::parse_str(&uid).expect("a key has a uid"));
        let object = json!({
            "uid": uid, "key": text, "name": body["name"], "description": body["description"], "actions": body["actions"],
            "indexes": body["indexes"], "expiresAt": body["expiresAt"],
            "createdAt": moment(0), "updatedAt": moment(0),
        });
        let key = Key::read(&object).expect("a key can be read");
        self.keys.insert(0, NodeKey { uid, text, object: object.clone(), key });
        object
    }

    /// Whether it has a key of this name.
    pub fn has_key_named(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.object["name"] == name)
    }

    /// Judges a request by its head.
    pub fn judge(
        &self,
        request: &NodeRequest,
        action: Option<&str>,
        index: Option<&str>,
    ) -> Result<(), NodeReply> {
        let Some(action) = action else { return Ok(()) };
        let invalid = || error(403, "auth", "invalid_api_key", "The provided API key is invalid.");
        let token = request.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer "));
        let Some(token) = token else {
            let message = "The Authorization header is missing. It must use the bearer authorization method.";
            return Err(error(401, "auth", "missing_authorization_header", message));
        };
        if token == self.master_key {
            return Ok(());
        }
        let key = self.keys.iter().find(|key| key.text == token).ok_or_else(invalid)?;
        key.key.check(action, index, 0).map_err(|_| invalid())
    }

    pub(super) fn keys(&mut self, method: &str, rest: &[&str], body: &Value, now: u64) -> NodeReply {
        let not_found = |uid: &str| {
            error(404, "invalid_request", "api_key_not_found", &format!("API key `{uid}` not found."))
        };
        match (method, rest) {
            ("GET", []) => {
                let all: Vec<&Value> = self.keys.iter().map(|key| &key.object).collect();
                (200, json!({"results": all, "offset": 0, "limit": 1_000_000, "total": all.len()}))
            }
            ("POST", []) => {
                let uid = body["uid"].as_str().unwrap_or_default();
                if self.keys.iter().any(|key| key.uid == uid) {
                    let message = format!("`uid` field value `{uid}` is already an existing API key.");
                    return error(409, "invalid_request", "api_key_already_exists", &message);
                }
                (201, self.add_key(body))
            }
            ("GET", [uid]) => match self.keys.iter().find(|key| key.uid == *uid || key.text == *uid) {
                Some(key) => (200, key.object.clone()),
                None => not_found(uid),
            },
            ("PATCH", [uid]) => match self.keys.iter_mut().find(|key| key.uid == *uid || key.text == *uid) {
                Some(key) => {
                    key.object["description"] = body["description"].clone();
                    (200, key.object.clone())
                }
                None => not_found(uid),
            },
            ("DELETE", [uid]) => {
                let before = self.keys.len();
                self.keys.retain(|key| key.uid != *uid && key.text != *uid);
                if self.keys.len() == before {
                    return not_found(uid);
                }
                self.deleted_keys.insert((*uid).to_owned(), now);
                (204, Value::Null)
            }
            _ => self.not_known(method, &format!("/keys/{rest:?}")),
        }
    }
}
