//! One node's answer to its part of a search.

use super::fields::{DETAILS, pinned_position};
use crate::{
    json::{RawObject, Text},
    search::{
        hit_order::{
            insertion::Insertion,
            rank::{HIDDEN, Rank, Sorted},
        },
        values::{FacetValue, document_id::DocumentId, values_at},
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{cell::OnceCell, fmt};

/// A hit, with the values that determine its rank.
#[derive(Debug)]
pub struct Hit<'a> {
    /// The hit's members, as the node wrote them.
    pub fields: RawObject<'a>,
    /// Parsed only when the hit is compared, which most hits of a node never are.
    rank: OnceCell<Rank>,
    id: OnceCell<Option<DocumentId>>,
    insertion: OnceCell<Insertion>,
    /// The values of the distinct attribute, if the hit does not show them.
    distinct: OnceCell<Vec<FacetValue>>,
}

impl<'a> Hit<'a> {
    /// A hit with these members.
    #[must_use]
    pub fn new(fields: RawObject<'a>) -> Self {
        Self {
            fields,
            rank: OnceCell::new(),
            id: OnceCell::new(),
            insertion: OnceCell::new(),
            distinct: OnceCell::new(),
        }
    }

    /// The hit's scores by the ranking rules.
    #[must_use]
    pub fn rank(&self) -> &Rank {
        self.rank.get_or_init(|| self.details().map(|it| Rank::read(it, None)).unwrap_or_default())
    }

    /// The node's score details.
    #[must_use]
    pub fn details(&self) -> Option<&'a RawValue> {
        self.fields.last(DETAILS)
    }

    /// Whether a dynamic search rule has placed the hit.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.details().is_some_and(|details| pinned_position(details).is_some())
    }

    /// Whether the details hide a value that the hit is sorted by.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.details().is_some_and(|details| details.get().contains(HIDDEN))
    }

    /// Supplies the values that the details hide; call this before ranks are compared.
    pub fn reveal(&self, sorted: Sorted<'_>) {
        if let Some(details) = self.details() {
            // A rank that is already set stays.
            let _ = self.rank.set(Rank::read(details, Some(sorted)));
        }
    }

    /// Supplies the values of the distinct attribute, if the hit does not show them.
    pub fn reveal_distinct(&self, values: &[FacetValue]) {
        // Values that are already set stay.
        let _ = self.distinct.set(values.to_vec());
    }

    /// The values of the distinct attribute.
    #[must_use]
    pub fn distinct(&self, attribute: &str) -> Vec<FacetValue> {
        self.distinct.get().cloned().unwrap_or_else(|| values_at(&self.fields, attribute))
    }

    /// When the document arrived: the order of hits that no ranking rule tells apart.
    #[must_use]
    pub fn insertion(&self, primary_key: Option<&str>) -> &Insertion {
        self.insertion.get_or_init(|| Insertion::of(&self.fields, primary_key))
    }

    /// The document's id, if it is shown.
    #[must_use]
    pub fn id(&self, primary_key: &str) -> Option<&DocumentId> {
        self.id.get_or_init(|| DocumentId::of(&self.fields, primary_key)).as_ref()
    }
}

/// A node's answer, with its hits parsed one level deep.
#[derive(Debug)]
pub struct NodeAnswer<'a> {
    /// All members in the node's order, with `hits` as null.
    pub members: RawObject<'a>,
    /// The hits, in the node's order.
    pub hits: Vec<Hit<'a>>,
}

/// The node's answer is not the answer to a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnswer;

impl<'a> NodeAnswer<'a> {
    /// Parses the body of a 200.
    ///
    /// # Errors
    /// The body is not the answer to a search.
    pub fn read(body: &'a [u8]) -> Result<Self, NotAnAnswer> {
        let Members { members, hits } = serde_json::from_slice(body).map_err(|_| NotAnAnswer)?;
        let hits = hits
            .ok_or(NotAnAnswer)?
            .into_iter()
            .map(|fields| {
                let details = fields.last(DETAILS).filter(|details| details.get().starts_with('{'));
                details.map(|_| Hit::new(fields)).ok_or(NotAnAnswer)
            })
            .collect::<Result<_, NotAnAnswer>>()?;
        Ok(Self { members, hits })
    }

    /// The value of a numeric member; 0 if it is missing.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.members.read(name).unwrap_or(0)
    }

    /// The raw text of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name)
    }
}

/// An answer's members and hits, parsed in one pass.
struct Members<'a> {
    members: RawObject<'a>,
    hits: Option<Vec<RawObject<'a>>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a search's answer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut answer = Members { members: RawObject::default(), hits: None };
                while let Some(Text(name)) = map.next_key()? {
                    let value = if name == "hits" {
                        answer.hits = Some(map.next_value()?);
                        RawValue::NULL
                    } else {
                        map.next_value()?
                    };
                    answer.members.0.push((name, value));
                }
                Ok(answer)
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
