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

    /// Reads the object of the key; `None` if its description is none that a control plane has written.
    #[must_use]
    pub fn of(key: &Value) -> Option<Self> {
        let mut rest = key.get("description")?.as_str()?.strip_prefix(READS)?;
        let mut next = |word| {
            let Some(after) = rest.strip_prefix(word) else { return Some(None) };
            let (id, others) = after.split_at(after.find(';').unwrap_or(after.len()));
            rest = others;
            Uuid::parse_str(id).ok().map(Some)
        };
        let (instance, challenger) = (next(SERVED)?, next(CHALLENGED)?);
        rest.is_empty().then_some(Self { instance, challenger })
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
            assert_eq!(Serving::of(&json!({"description": text})), Some(serving));
        }
        let id = Uuid::from_u128(1);
        for other in [
            json!({}),
            json!({"description": null}),
            json!({"description": "x"}),
            json!({"description": "Reads of gateways themselves; served by y"}),
            json!({"description": format!("Reads of gateways themselves; served by {id} and more")}),
            json!({"description": format!("Reads of gateways themselves; challenged by {id}; served by {id}")}),
        ] {
            assert_eq!(Serving::of(&other), None, "{other}");
        }
    }
}
