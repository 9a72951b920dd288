//! Which control plane serves a cluster: nodes keep it in the description of the key that gateways read under.

use serde_json::Value;
use std::fmt;
use uuid::Uuid;

/// How the description begins.
const READS: &str = "Reads of gateways themselves";
/// Before the instance that serves the cluster.
const SERVED: &str = "; served by ";
/// Before the instance that asks whether that one lives.
const CHALLENGED: &str = "; challenged by ";

/// What a node tells of the control planes of its cluster. Each start of a control plane is an instance, with a random id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// The instance that serves the cluster; `None` where none has told its id.
    pub instance: Option<Uuid>,
    /// Another one, which asks whether that one lives.
    pub challenger: Option<Uuid>,
}

impl Serving {
    /// This instance serves, and nobody asks.
    #[must_use]
    pub fn by(instance: Uuid) -> Self {
        Self { instance: Some(instance), challenger: None }
    }

    /// Reads the object of the key. What a description does not tell is `None`.
    #[must_use]
    pub fn of(key: &Value) -> Self {
        let description = key.get("description").and_then(Value::as_str).unwrap_or_default();
        let after = |word| {
            let (_, rest) = description.split_once(word)?;
            Uuid::parse_str(rest.split(';').next()?).ok()
        };
        Self { instance: after(SERVED), challenger: after(CHALLENGED) }
    }
}

impl fmt::Display for Serving {
    /// The description.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(READS)?;
        for (word, id) in [(SERVED, self.instance), (CHALLENGED, self.challenger)] {
            if let Some(id) = id {
                write!(f, "{word}{}", id.hyphenated())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        for (serving, text) in [
            (Serving::default(), "Reads of gateways themselves"),
            (
                Serving::by(one),
                "Reads of gateways themselves; served by 00000000-0000-0000-0000-000000000001",
            ),
            (
                Serving { challenger: Some(other), ..Serving::by(one) },
                "Reads of gateways themselves; served by 00000000-0000-0000-0000-000000000001; challenged by \
                 00000000-0000-0000-0000-000000000002",
            ),
        ] {
            assert_eq!(serving.to_string(), text);
            assert_eq!(Serving::of(&json!({"description": text})), serving);
        }
        for other in [json!({}), json!({"description": null}), json!({"description": "x; served by y"})] {
            assert_eq!(Serving::of(&other), Serving::default(), "{other}");
        }
    }
}
