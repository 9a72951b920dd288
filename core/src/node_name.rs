//! The name of a node in the cluster.

use serde::{Deserialize, Serialize, Serializer};
use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

/// A node's name in the cluster. It is cheap to clone: clones share one text.
///
/// A name from a user's description of the cluster comes in through [`FromStr`], which checks it. [`From`] takes a name that the cluster
/// has already stored or sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct NodeName(Arc<str>);

/// A text that cannot be a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` must be letters, digits, `-`, `_`, `.`")]
pub struct InvalidNodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    /// A name consists of ASCII letters, digits, `-`, `_` and `.`: the ledger, paths and metrics show it as it is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if text.is_empty() || !text.chars().all(is_allowed) {
            return Err(InvalidNodeName(text.to_owned()));
        }
        Ok(text.into())
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&NodeName> for NodeName {
    fn from(name: &NodeName) -> Self {
        name.clone()
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl Deref for NodeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for NodeName {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for NodeName {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<NodeName> for str {
    fn eq(&self, other: &NodeName) -> bool {
        *self == **other
    }
}

impl PartialEq<NodeName> for &str {
    fn eq(&self, other: &NodeName) -> bool {
        **self == **other
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_users_name_is_checked() {
        for name in ["a", "meili-0", "Node_7.example"] {
            assert_eq!(name.parse::<NodeName>().unwrap(), name);
        }
        for text in ["", "b c", "a/b", "é", "a\n", "a:1"] {
            let error = text.parse::<NodeName>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` must be letters, digits, `-`, `_`, `.`"));
        }
    }

    #[test]
    fn json_shows_a_name_as_text_in_values_and_in_keys() {
        let map = BTreeMap::from([(NodeName::from("a"), NodeName::from("b c"))]);
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":"b c"}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<NodeName, NodeName>>(r#"{"a":"b c"}"#).unwrap(), map);
        assert!(serde_json::from_str::<NodeName>("7").is_err());
    }

    #[test]
    fn a_name_is_found_by_its_text_and_ordered_like_it() {
        let names: HashSet<NodeName> = ["a", "b"].map(NodeName::from).into();
        assert!(names.contains("a") && !names.contains("c"));
        let mut names = ["n10", "N2", "n1"].map(NodeName::from);
        names.sort();
        assert_eq!(names, ["N2", "n1", "n10"]);
        assert_eq!(format!("{:>4} {:?}", names[1], names[0]), "  n1 \"N2\"");
    }
}
