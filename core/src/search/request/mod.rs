//! A client's search request, and the request to a node that is derived from it.

mod filter;
pub mod paging;
pub mod patterns;
pub(in crate::search) mod query_string;
pub mod remotes;
#[cfg(test)]
mod tests;

pub use filter::with_shards;

use super::{
    hits::fields::{Score, Shown},
    hybrid::Hybrid,
};
use crate::{json::to_bytes, shard::Shard};
use filter::shards_and;
use paging::{PARAMETERS, Paging};
use patterns::fits;
use serde_json::{Value, value::RawValue, value::to_raw_value};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3;

/// The most hits that a node is asked for, so that its own arithmetic cannot overflow.
pub(crate) const MOST_HITS: u64 = 1 << 24;

/// The parameters that choose what is shown of a hit.
const SHAPING: [&str; 11] = [
    "attributesToRetrieve",
    "attributesToHighlight",
    "attributesToCrop",
    "cropLength",
    "cropMarker",
    "highlightPreTag",
    "highlightPostTag",
    "showMatchesPosition",
    "retrieveVectors",
    "showPerformanceDetails",
    "personalize",
];

/// The parameters that add other information to the answer.
const TOLD: [&str; 3] = ["showRankingScore", "showRankingScoreDetails", "facets"];

/// The body cannot be parsed; a node can say why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One query. Unknown parameters are kept and passed on unchanged.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    parameters: BTreeMap<String, Box<RawValue>>,
    /// The requested part of the hits.
    pub paging: Paging,
    /// Whether the client wants `_rankingScoreDetails`.
    pub show_details: bool,
    /// `attributesToRetrieve`; `None` for all.
    pub retrieve: Option<Vec<String>>,
    /// Attributes that `_formatted` shows even if they are not retrieved.
    pub formatted: Vec<String>,
    /// The parameter `distinct`.
    pub distinct: Option<String>,
    /// The parameter `sort`.
    pub sort: Vec<String>,
    /// The facets whose distributions the client wants.
    pub facets: Option<Vec<String>>,
    /// The factor for this query's scores in a federated search.
    pub weight: f64,
    /// Whether the client has set paging parameters, which a query of a federated search may not have.
    pub has_paging: bool,
    /// Whether the client wants `_rankingScore`.
    pub show_score: bool,
    /// Set if keyword and semantic answers must be merged.
    pub hybrid: Option<Hybrid>,
}

/// What a node is asked for in addition to the client's request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Additions<'a> {
    /// Fields to retrieve instead of the client's selection.
    pub fields: Option<&'a [String]>,
    /// A facet to count in addition to the client's.
    pub facet: Option<&'a str>,
    /// The number of hits to request instead of the client's.
    pub hits: Option<u64>,
    /// Whether dynamic search rules depend on the filter.
    pub rules: bool,
}

/// The most shards that may go before the client's filter if rules depend on it. Meilisearch 1.50 pairs the alternatives of
/// both, those on the left first, and gives up after 100 pairs or 100 alternatives; a rule must see each of the client's
/// alternatives once.
const FIRST: usize = 64;

impl SearchRequest {
    /// Parses the body of `POST /indexes/{uid}/search`.
    ///
    /// # Errors
    /// A node would refuse it.
    pub fn from_body(body: &[u8]) -> Result<Self, Unreadable> {
        Self::new(serde_json::from_slice(body).map_err(|_| Unreadable)?)
    }

    /// A query with these parameters.
    ///
    /// # Errors
    /// A node would refuse it.
    pub fn new(parameters: BTreeMap<String, Box<RawValue>>) -> Result<Self, Unreadable> {
        fn read<T: serde::de::DeserializeOwned>(
            parameters: &BTreeMap<String, Box<RawValue>>,
            name: &str,
        ) -> Result<Option<T>, Unreadable> {
            let Some(value) = parameters.get(name) else { return Ok(None) };
            serde_json::from_str(value.get()).map(Some).map_err(|_| Unreadable)
        }
        let page = read::<Option<u64>>(&parameters, "page")?.flatten();
        let hits_per_page = read::<Option<u64>>(&parameters, "hitsPerPage")?.flatten();
        let (offset, limit) = (read(&parameters, "offset")?, read(&parameters, "limit")?);
        let paging = Paging::of(page, hits_per_page, offset, limit);
        let is_there = |name: &&str| parameters.get(*name).is_some_and(|value| value.get() != "null");
        let has_paging = PARAMETERS.iter().any(is_there);
        let names = |name| read::<Option<Vec<String>>>(&parameters, name).map(Option::flatten);
        let mut formatted = names("attributesToHighlight")?.unwrap_or_default();
        for field in names("attributesToCrop")?.unwrap_or_default() {
            formatted.push(field.rsplit_once(':').map_or(field.as_str(), |(field, _)| field).to_owned());
        }
        let options: Option<BTreeMap<String, Value>> =
            read::<Option<_>>(&parameters, "federationOptions")?.flatten();
        let weight = options.as_ref().and_then(|options| options.get("weight")).and_then(Value::as_f64);
        Ok(Self {
            weight: weight.unwrap_or(1.0),
            paging,
            show_details: read(&parameters, "showRankingScoreDetails")?.unwrap_or(false),
            retrieve: names("attributesToRetrieve")?,
            formatted,
            distinct: read::<Option<String>>(&parameters, "distinct")?.flatten(),
            sort: names("sort")?.unwrap_or_default(),
            facets: names("facets")?,
            has_paging,
            show_score: read(&parameters, "showRankingScore")?.unwrap_or(false),
            hybrid: Hybrid::of(&parameters),
            parameters,
        })
    }

    /// The same query by keywords only.
    #[must_use]
    pub fn keywords(&self) -> Self {
        let mut keywords = self.clone();
        for name in ["hybrid", "vector", "media"] {
            keywords.parameters.remove(name);
        }
        keywords
    }

    /// The query for the keyword scores of this query's first hits.
    #[must_use]
    pub fn keyword_scores(&self, hits: u64) -> Self {
        let mut scores = self.keywords().without_fields();
        scores.parameters.remove("federationOptions");
        scores.paging = Paging::Offset { offset: 0, limit: hits };
        scores.without_facets()
    }

    /// The same query with hits that show only their scores.
    #[must_use]
    pub fn without_fields(&self) -> Self {
        let mut bare = self.clone();
        for name in SHAPING {
            bare.parameters.remove(name);
        }
        bare.retrieve = Some(Vec::new());
        bare.formatted.clear();
        if let Ok(nothing) = to_raw_value::<[&str; 0]>(&[]) {
            bare.parameters.insert("attributesToRetrieve".to_owned(), nothing);
        }
        bare
    }

    /// The same query without facets.
    #[must_use]
    pub fn without_facets(mut self) -> Self {
        self.parameters.remove("facets");
        self.facets = None;
        self
    }

    /// The members that nodes add to documents, and which of them the client sees.
    #[must_use]
    pub(in crate::search) fn shown(&self) -> Shown {
        Shown {
            formatted: !self.formatted.is_empty(),
            positions: self.parameters.get("showMatchesPosition").is_some_and(|it| it.get() == "true"),
            score: match (self.show_score, &self.hybrid) {
                (true, _) => Score::Shown,
                (false, Some(_)) => Score::Hidden,
                (false, None) => Score::NotAsked,
            },
            details: self.show_details,
        }
    }

    /// Whether the parameter is present.
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        self.parameters.contains_key(parameter)
    }

    /// Whether nothing but the order in which the documents arrived orders the hits: there are no words, no vector, no sort and
    /// no threshold.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        let has_words = self.parameters.get("q").is_some_and(|q| {
            serde_json::from_str::<Option<String>>(q.get())
                .map_or(true, |q| q.is_some_and(|q| !q.trim().is_empty()))
        });
        let orders = ["hybrid", "vector", "media", "rankingScoreThreshold", "personalize"];
        !has_words && self.sort.is_empty() && !orders.iter().any(|name| self.has(name))
    }

    /// The query for the number of matching documents and the counts of each value of a facet, without hits.
    #[must_use]
    pub fn counting(&self, facet: &str) -> Option<Self> {
        let mut counting = self.clone().without_facets().without_fields();
        counting.paging = Paging::Offset { offset: 0, limit: 0 };
        counting.parameters.insert("facets".to_owned(), to_raw_value(&[facet]).ok()?);
        Some(counting)
    }

    /// Whether the client wants the vectors of hits, and the vector that the search used, if any.
    #[must_use]
    pub fn wants_vectors(&self) -> bool {
        self.parameters.get("retrieveVectors").is_some_and(|it| it.get() == "true")
    }

    /// The query for one node's hits from `offset` on.
    #[must_use]
    pub fn window(&self, shards: &[Shard], additions: Additions<'_>, offset: u64, limit: u64) -> Vec<u8> {
        let window = vec![("offset", to_raw_value(&offset).ok()), ("limit", to_raw_value(&limit).ok())];
        self.write(shards, additions, &PARAMETERS, window)
    }

    /// Adds the index's name, which queries of a multi-search need.
    pub fn name_index(&mut self, index: &str) {
        if let Ok(index) = to_raw_value(index) {
            self.parameters.insert("indexUid".to_owned(), index);
        }
    }

    /// A number derived from everything that affects the hits and their order. It makes all pages of the query come from the
    /// same replicas, whichever part of each hit is shown.
    #[must_use]
    pub fn seed(&self, index: &str) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(index.as_bytes());
        // The index is already hashed; only a multi-search, which deep pages use, also names it in the parameters.
        let matters = |name: &str| {
            name != "indexUid"
                && [&PARAMETERS[..], &SHAPING, &TOLD].iter().all(|names| !names.contains(&name))
        };
        for (name, value) in self.parameters.iter().filter(|(name, _)| matters(name)) {
            hash.update(name.as_bytes());
            hash.update(&[0]);
            hash.update(value.get().as_bytes());
            hash.update(&[0]);
        }
        hash.digest()
    }

    /// Whether the client wants the distribution of this facet.
    #[must_use]
    pub fn asks_for_facet(&self, facet: &str) -> bool {
        self.facets.iter().flatten().any(|asked| asked == facet || fits(asked, facet))
    }

    /// The query for one node: from the first hit on, only for these shards, with what merging needs.
    #[must_use]
    pub fn for_shards(&self, shards: &[Shard], additions: Additions<'_>) -> Vec<u8> {
        let (offset, limit) = self.paging.window();
        // The hits that a vector finds depend on the number of requested hits, even if none are shown.
        let none = limit == 0 && !self.has("hybrid");
        let hits = if none { 0 } else { offset.saturating_add(limit).min(MOST_HITS) };
        let hits = additions.hits.unwrap_or(hits);
        let paging = match self.paging {
            Paging::Offset { .. } => vec![("limit", to_raw_value(&hits).ok())],
            Paging::Page { .. } => {
                vec![("page", to_raw_value(&1).ok()), ("hitsPerPage", to_raw_value(&hits).ok())]
            }
        };
        self.write(shards, additions, &PARAMETERS, paging)
    }

    /// The same query as a part of a federated search, which has its own paging.
    #[must_use]
    pub fn for_federation(&self, shards: &[Shard], additions: Additions<'_>) -> Vec<u8> {
        self.write(shards, additions, &[], Vec::new())
    }

    /// The client's parameters without those for paging.
    #[must_use]
    pub fn without_paging(&self) -> BTreeMap<&str, &RawValue> {
        self.without(&PARAMETERS)
    }

    fn without(&self, left_out: &[&str]) -> BTreeMap<&str, &RawValue> {
        let kept = self.parameters.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        kept.map(|(name, value)| (name.as_str(), value.as_ref())).collect()
    }

    fn write(
        &self,
        shards: &[Shard],
        additions: Additions<'_>,
        left_out: &[&str],
        mut added: Vec<(&'static str, Option<Box<RawValue>>)>,
    ) -> Vec<u8> {
        let mut parameters = self.without(left_out);
        let filter = self.parameters.get("filter").map(|filter| &**filter);
        added.push((
            "filter",
            match additions.rules && shards.len() <= FIRST {
                true => shards_and(filter, shards),
                false => with_shards(filter, shards),
            },
        ));
        added.push(("showRankingScoreDetails", to_raw_value(&true).ok()));
        if self.hybrid.is_some() {
            added.push(("showRankingScore", to_raw_value(&true).ok()));
        }
        if let Some(fields) = additions.fields {
            added.push(("attributesToRetrieve", to_raw_value(fields).ok()));
        }
        if let Some(facet) = additions.facet {
            let facets = self.facets.iter().flatten().map(String::as_str).chain([facet]);
            added.push(("facets", to_raw_value(&facets.collect::<Vec<_>>()).ok()));
        }
        for (name, value) in &added {
            if let Some(value) = value {
                parameters.insert(name, value);
            }
        }
        to_bytes(&parameters)
    }
}
