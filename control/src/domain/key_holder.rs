//! Whose an API key on nodes is. Nodes keep it as the key's name and description; here it is read once, and whatever depends on it goes
//! by the type: which rights a key gets, who may see it, and what is deleted with whom.

use super::serving::Serving;
use miroir_core::node_name::NodeName;
use serde_json::{Value, json};
use std::fmt;
use uuid::Uuid;

/// Names of the cluster's own keys begin so; clients do not see these keys.
pub const INTERNAL: &str = "miroir:";
/// The name of the key of gateways' own reads.
const READ: &str = "miroir:read";
/// The name of every key that writes reach nodes under.
const EPOCH: &str = "miroir:epoch";
/// The description of such a key begins so, and ends with its holder as the last word.
const WRITES_OF: &str = "Writes of ";
/// How the control plane's own keys are told from gateways' in a description, and in the ledger.
const MOVER: &str = "mover/";

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    /// A client's: one has made it, or it is among those that nodes make themselves.
    Client,
    /// Gateways', for reads of their own.
    GatewayReads,
    /// One that writes.
    Writer(WriteKeyHolder),
    /// One of the cluster's own, but it does not tell whose: somebody has changed its name or its description.
    Unknown,
}

/// Who writes to nodes under a key of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteKeyHolder {
    /// A worker's VM of a gateway, by the random name that it gives itself.
    Gateway(String),
    /// The control plane itself: for copies, indexes and settings of one node.
    ControlPlane {
        /// The node's name.
        node: NodeName,
    },
}

impl KeyHolder {
    /// The holder of a key, from Meilisearch's key object.
    #[must_use]
    pub fn of(key: &Value) -> Self {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        match text("name") {
            Some(READ) => Self::GatewayReads,
            Some(EPOCH) => {
                let words = text("description").and_then(|description| description.strip_prefix(WRITES_OF));
                let last = words.and_then(|words| words.rsplit(' ').next());
                last.and_then(WriteKeyHolder::read).map_or(Self::Unknown, Self::Writer)
            }
            Some(name) if name.starts_with(INTERNAL) => Self::Unknown,
            _ => Self::Client,
        }
    }

    /// Whether the key is the cluster's own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        *self != Self::Client
    }
}

impl WriteKeyHolder {
    /// Reads what is written by [`fmt::Display`], out of the ledger or a key's description; `None` if it names nobody.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match text.strip_prefix(MOVER) {
            Some(node) => (!node.is_empty()).then(|| Self::ControlPlane { node: node.into() }),
            None => (!text.is_empty()).then(|| Self::Gateway(text.to_owned())),
        }
    }

    /// The body that creates its key.
    #[must_use]
    pub fn key(&self, uid: Uuid) -> Value {
        let actions: &[&str] = match self {
            Self::Gateway(_) => &["documents.add", "documents.delete", "documents.get", "indexes.create"],
            Self::ControlPlane { .. } => &["*"],
        };
        own(uid, EPOCH, &format!("{WRITES_OF}{self}"), actions)
    }
}

impl fmt::Display for WriteKeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(vm) => f.write_str(vm),
            Self::ControlPlane { node } => write!(f, "{MOVER}{node}"),
        }
    }
}

/// The body that creates the key of gateways' own reads. It also tells which control plane serves the cluster.
#[must_use]
pub fn read_key(uid: Uuid, serving: Serving) -> Value {
    own(uid, READ, &serving.to_string(), &["search", "documents.get"])
}

/// The body that creates a key of the cluster's own: for all indexes, and for ever.
fn own(uid: Uuid, name: &str, description: &str, actions: &[&str]) -> Value {
    json!({
        "uid": uid.hyphenated().to_string(),
        "name": name,
        "description": description,
        "actions": actions,
        "indexes": ["*"],
        "expiresAt": null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_read_as_they_are_written() {
        let gateway = WriteKeyHolder::Gateway("17".to_owned());
        let control_plane = WriteKeyHolder::ControlPlane { node: "n-1.a".into() };
        for (holder, text) in [(gateway, "17"), (control_plane, "mover/n-1.a")] {
            assert_eq!(
                (holder.to_string().as_str(), WriteKeyHolder::read(text).as_ref()),
                (text, Some(&holder))
            );
            assert_eq!(KeyHolder::of(&holder.key(Uuid::nil())), KeyHolder::Writer(holder));
        }
        assert_eq!(KeyHolder::of(&read_key(Uuid::nil(), Serving::by(Uuid::max()))), KeyHolder::GatewayReads);
        for clients in [json!({"name": "Default Search API Key"}), json!({"name": null}), json!({})] {
            assert!(!KeyHolder::of(&clients).is_internal());
        }
    }

    #[test]
    fn an_internal_key_that_does_not_tell_its_holder_is_nobodys() {
        let key = |name: &str, description: Value| json!({"name": name, "description": description});
        for unknown in [
            json!({"name": "miroir:epoch"}),
            key("miroir:epoch", Value::Null),
            key("miroir:epoch", json!("")),
            key("miroir:epoch", json!("Writes of ")),
            key("miroir:epoch", json!("Writes of mover/")),
            key("miroir:epoch", json!("Another description")),
            key("miroir:other", json!("Writes of 17")),
        ] {
            assert_eq!(KeyHolder::of(&unknown), KeyHolder::Unknown, "{unknown}");
            assert!(KeyHolder::of(&unknown).is_internal());
        }
        // As an older version has described them.
        let old = key("miroir:epoch", json!("Writes of the gateway 17"));
        assert_eq!(KeyHolder::of(&old), KeyHolder::Writer(WriteKeyHolder::Gateway("17".to_owned())));
    }

    #[test]
    fn no_name_of_a_gateway_gives_it_other_rights() {
        let actions = |holder: WriteKeyHolder| holder.key(Uuid::nil())["actions"].clone();
        let ordinary = actions(WriteKeyHolder::Gateway("17".to_owned()));
        assert_eq!(actions(WriteKeyHolder::Gateway("mover/n0".to_owned())), ordinary);
        assert_eq!(actions(WriteKeyHolder::ControlPlane { node: "n0".into() }), json!(["*"]));
    }
}
