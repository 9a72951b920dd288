//! One node's answer to its part of a search.

use super::rank::Rank;
use crate::json::RawObject;
use serde_json::{Map, Value, value::RawValue};

/// A hit, with what says its place.
#[derive(Debug)]
pub struct Hit<'a> {
    /// The hit's members, as the node wrote them.
    pub fields: RawObject<'a>,
    /// What the ranking rules say of it.
    pub rank: Rank,
}

/// An answer whose hits are read one level deep.
#[derive(Debug)]
pub struct NodeAnswer<'a> {
    /// All members but `hits`, in the node's order.
    pub members: RawObject<'a>,
    /// In the node's order.
    pub hits: Vec<Hit<'a>>,
}

/// The node answered with something that is not a search's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnswer;

impl<'a> NodeAnswer<'a> {
    /// Reads the body of a 200.
    ///
    /// # Errors
    /// Anything that is not the answer to a search.
    pub fn read(body: &'a [u8]) -> Result<Self, NotAnAnswer> {
        let members: RawObject<'a> = serde_json::from_slice(body).map_err(|_| NotAnAnswer)?;
        let hits: Vec<RawObject<'a>> = members.read("hits").ok_or(NotAnAnswer)?;
        let hits = hits
            .into_iter()
            .map(|fields| {
                let details: Option<Map<String, Value>> = fields.read("_rankingScoreDetails");
                Ok(Hit { rank: Rank::from_details(&details.ok_or(NotAnAnswer)?), fields })
            })
            .collect::<Result<_, NotAnAnswer>>()?;
        Ok(Self { members, hits })
    }

    /// A number among the members; 0 where it is missing.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.members.read(name).unwrap_or(0)
    }

    /// A member as it was written.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name)
    }
}
