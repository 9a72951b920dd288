//! Lists of documents: `GET /indexes/{uid}/documents` and `POST /indexes/{uid}/documents/fetch`.
//!
//! One node lists documents in the order in which they arrived, and so does a cluster. The merge keeps each node's own order,
//! and pages never overlap.

use super::{
    hit_order::{
        geo::{Place, compare_distances},
        insertion::Insertion,
        rank::{Rank, missing_last},
    },
    hits::selection::Selection,
    merge::{ranked, write_list},
    query::DEEP,
    request::{
        MOST_HITS,
        query_string::{parameters, sort_parameters},
        with_shards,
    },
    two_step::{Address, FirstStep, InShares, InSteps, Name, Shares, Winner},
    values::{FacetValue, directed, values_at},
};
use crate::{
    http::RequestHead,
    json::{RawObject, to_bytes},
    path::ApiPath,
    query::{last_pairs, members},
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, shards_of},
    shard::{Shard, TAG_FIELD},
    topology::Topology,
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use std::{cmp::Ordering, collections::BTreeMap};
use xxhash_rust::xxh3::Xxh3;

/// A list of documents.
#[derive(Debug)]
pub struct DocumentList {
    index: String,
    primary_key: Option<String>,
    parameters: BTreeMap<String, Box<RawValue>>,
    offset: u64,
    limit: u64,
    sorts: Vec<Sort>,
    selection: Selection,
    /// Set if documents are requested with only the fields that merging needs.
    shares: Option<Shares>,
}

#[derive(Clone, Debug)]
enum Sort {
    Field { path: String, ascending: bool },
    Distance { from: Place, ascending: bool },
}

#[derive(Debug)]
enum SortKey {
    Field(Option<FacetValue>, bool),
    Distance(Option<f64>, bool),
}

struct Document<'a> {
    fields: RawObject<'a>,
    keys: Vec<SortKey>,
    insertion: Insertion,
    address: Address,
}

impl DocumentList {
    /// Parses a request; `None` if a node would refuse it.
    #[must_use]
    pub fn of(
        topology: &Topology,
        index: &str,
        head: &RequestHead,
        body: &[u8],
    ) -> Option<Box<dyn ScatterQuery>> {
        let parameters = parameters(head, body, body_of_query)?;
        let number = |name: &str, default: u64| match parameters.get(name) {
            Some(value) => serde_json::from_str(value.get()).ok(),
            None => Some(default),
        };
        let names = |name: &str| match parameters.get(name) {
            Some(value) => serde_json::from_str::<Option<Vec<String>>>(value.get()).ok(),
            None => Some(None),
        };
        let sorts: Vec<Sort> =
            names("sort")?.iter().flatten().map(|sort| Sort::of(sort)).collect::<Option<_>>()?;
        let primary_key = topology.primary_key(index).map(str::to_owned);
        let selection =
            Selection::new(names("fields")?.as_deref(), &[], &keys(primary_key.as_deref(), &sorts));
        let (offset, limit) = (number("offset", 0)?, number("limit", 20)?);
        let deep = offset >= DEEP && limit > 0 && primary_key.is_some();
        Some(Box::new(Self {
            index: index.to_owned(),
            primary_key,
            offset,
            limit,
            shares: deep.then(|| Shares::new(topology.shard_count())),
            sorts,
            selection,
            parameters,
        }))
    }

    fn read<'a>(&self, source: usize, members: &RawObject<'a>) -> Option<Vec<Document<'a>>> {
        let documents: Vec<RawObject<'a>> = members.read("results")?;
        let read = documents.into_iter().enumerate().map(|(position, fields)| Document {
            address: (source, position as u64),
            keys: self.sorts.iter().map(|sort| sort.key(&fields)).collect(),
            insertion: Insertion::of(&fields, self.primary_key.as_deref()),
            fields,
        });
        Some(read.collect())
    }

    /// What a node is asked for these documents.
    fn parameters(
        &self,
        shards: &[Shard],
        (offset, limit): (u64, u64),
        fields: Option<&[String]>,
        left_out: &[&str],
    ) -> Vec<u8> {
        let added: Vec<(&str, Option<Box<RawValue>>)> = vec![
            ("offset", to_raw_value(&offset).ok()),
            ("limit", to_raw_value(&limit).ok()),
            ("filter", with_shards(self.parameters.get("filter").map(|filter| &**filter), shards)),
            ("fields", fields.and_then(|fields| to_raw_value(fields).ok())),
        ];
        let kept = self.parameters.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        let mut parameters: BTreeMap<&str, &RawValue> =
            kept.map(|(name, value)| (name.as_str(), &**value)).collect();
        parameters.extend(added.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        to_bytes(&parameters)
    }

    fn fetch(&self, body: Vec<u8>) -> NodeRequest {
        NodeRequest::new(ApiPath::of_index(&self.index, &["documents", "fetch"]), body)
    }

    /// Writes a document as the client sees it.
    fn write_hit(&self, document: &RawObject<'_>, out: &mut Vec<u8>) {
        document.write_filtered(out, |name, value, out| {
            name != TAG_FIELD && self.selection.write(name, value, out)
        });
    }
}

impl InSteps for DocumentList {
    const HITS: &'static str = "results";

    type Query = ();

    fn window(&self, (): &(), shards: &[Shard], offset: u64, limit: u64) -> Vec<u8> {
        self.parameters(shards, (offset, limit), self.selection.fields(), &[])
    }

    fn request(&self, windows: Vec<Vec<u8>>) -> NodeRequest {
        self.fetch(windows.concat())
    }

    fn name(&self, (): &(), document: &RawObject<'_>) -> Option<Name> {
        let insertion = Insertion::of(document, self.primary_key.as_deref());
        (!insertion.is_unknown()).then(|| Name { query: 0, insertion, rank: Rank::default() })
    }

    fn write_hits(&self, (): &(), documents: &[&RawObject<'_>], out: &mut Vec<u8>) {
        write_list(documents, out, |document, out| self.write_hit(document, out));
    }

    fn after_tear(self, _: &[bool]) -> Self {
        Self { shares: self.shares.and_then(Shares::after_tear), ..self }
    }
}

impl InShares for DocumentList {
    fn shares(&self) -> Option<Shares> {
        self.shares
    }

    fn with(self, shares: Option<Shares>) -> Self {
        Self { shares, ..self }
    }

    fn end(&self) -> u64 {
        if self.limit == 0 { 0 } else { self.offset.saturating_add(self.limit).min(MOST_HITS) }
    }
}

impl ScatterQuery for DocumentList {
    fn seeds(&self) -> Vec<u64> {
        let mut hash = Xxh3::new();
        hash.update(self.index.as_bytes());
        // These parameters only choose the part of the documents to show, and do not affect their order.
        const SHAPING: [&str; 4] = ["offset", "limit", "fields", "retrieveVectors"];
        for (name, value) in self.parameters.iter().filter(|(name, _)| !SHAPING.contains(&name.as_str())) {
            hash.update(name.as_bytes());
            hash.update(value.get().as_bytes());
        }
        vec![hash.digest()]
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.index]
    }

    fn hits(&self) -> u64 {
        self.end()
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let (shards, window) = (shards_of(slices), (0, self.hits_of(slices)));
        if self.shares.is_none() {
            return self.fetch(self.parameters(&shards, window, self.selection.fields(), &[]));
        }
        let needed = Selection::new(Some(&[]), &[], &keys(self.primary_key.as_deref(), &self.sorts));
        self.fetch(self.parameters(&shards, window, needed.fields(), &["retrieveVectors"]))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        match self.merge(&parts) {
            Ok(step) => step.gathered(*self, &parts),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}

impl DocumentList {
    /// The nodes' answers as one, or the position of one that cannot be read.
    fn merge(&self, parts: &[Part]) -> Result<FirstStep, usize> {
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            let members = serde_json::from_slice::<RawObject<'_>>(&part.body).ok();
            let documents = members.as_ref().and_then(|members| self.read(position, members));
            match (members, documents) {
                (Some(members), Some(documents)) => answers.push((members, documents)),
                _ => return Err(position),
            }
        }
        let end = usize::try_from(self.offset.saturating_add(self.limit)).unwrap_or(usize::MAX);
        let lists = answers.iter().map(|(_, documents)| documents.as_slice()).collect();
        let documents = ranked(lists, end, Document::compare, |_| true);
        let found: Vec<usize> = answers.iter().map(|(_, documents)| documents.len()).collect();
        if self.wants_more(parts, &found, documents.iter().map(|document| document.address)) {
            return Ok(FirstStep::More);
        }
        let documents =
            documents.get(usize::try_from(self.offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let Some((first, _)) = answers.first() else { return Err(0) };
        let mut out = Vec::new();
        first.write_filtered(&mut out, |name, value, out| {
            let number = match name {
                "results" => {
                    let shown = if self.shares.is_some() { &[] } else { documents };
                    write_list(shown, out, |document, out| self.write_hit(&document.fields, out));
                    return true;
                }
                "offset" => self.offset,
                "limit" => self.limit,
                "total" => answers.iter().filter_map(|(answer, _)| answer.read::<u64>(name)).sum(),
                _ => {
                    out.extend_from_slice(value.get().as_bytes());
                    return true;
                }
            };
            out.extend_from_slice(number.to_string().as_bytes());
            true
        });
        let winner = |document: &&Document<'_>| Winner {
            address: document.address,
            name: self.name(&(), &document.fields),
        };
        Ok(FirstStep::Answer { frame: out, winners: documents.iter().map(winner).collect() })
    }
}

impl Sort {
    /// The field that the sort reads.
    fn path(&self) -> &str {
        match self {
            Self::Field { path, .. } => path,
            Self::Distance { .. } => "_geo",
        }
    }

    /// Parses `field:asc` or `_geoPoint(latitude, longitude):desc`.
    fn of(text: &str) -> Option<Self> {
        let (path, direction) = text.rsplit_once(':')?;
        let ascending = match direction {
            "asc" => true,
            "desc" => false,
            _ => return None,
        };
        if path.starts_with("_geoPoint") {
            return Some(Self::Distance { from: Place::of_point(path)?, ascending });
        }
        Some(Self::Field { path: path.to_owned(), ascending })
    }

    /// A document's sort key: its first value in this direction, if it has several.
    fn key(&self, document: &RawObject<'_>) -> SortKey {
        match self {
            Self::Field { path, ascending } => {
                let values = values_at(document, path).into_iter().filter(FacetValue::sorts);
                SortKey::Field(values.min_by(|one, other| one.compare(other, *ascending)), *ascending)
            }
            Self::Distance { from, ascending } => {
                let coordinate = |value: &Value| {
                    value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
                };
                let place: Option<Value> = document.read("_geo");
                let place = place.as_ref().and_then(|place| {
                    let latitude = coordinate(place.get("lat")?)?;
                    Some(Place { latitude, longitude: coordinate(place.get("lng")?)? })
                });
                SortKey::Distance(place.map(|place| from.distance(place)), *ascending)
            }
        }
    }
}

impl SortKey {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(one, ascending), Self::Field(two, _)) => {
                missing_last(one.as_ref(), two.as_ref(), |one, two| one.compare(two, *ascending))
            }
            (Self::Distance(one, ascending), Self::Distance(two, _)) => {
                missing_last(one.as_ref(), two.as_ref(), |one, two| {
                    directed(compare_distances(*one, *two), *ascending)
                })
            }
            _ => Ordering::Equal,
        }
    }
}

/// The fields that merging needs, and no others.
fn keys<'k>(primary_key: Option<&'k str>, sorts: &'k [Sort]) -> Vec<&'k str> {
    [TAG_FIELD].into_iter().chain(primary_key).chain(sorts.iter().map(Sort::path)).collect()
}

impl Document<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        let keys = self.keys.iter().zip(&other.keys).map(|(one, two)| one.compare(two));
        let mut by_keys = keys.filter(|ordering| ordering.is_ne());
        by_keys.next().unwrap_or_else(|| self.insertion.cmp(&other.insertion))
    }
}

/// Converts the query string of the `GET` to the body of the `POST`.
fn body_of_query(query: &str) -> Option<Map<String, Value>> {
    let mut body = Map::new();
    for (name, text) in last_pairs(query) {
        let list = || members(&text).map(Value::from).collect::<Value>();
        let value = match name.as_str() {
            "offset" | "limit" => json!(text.parse::<u64>().ok()?),
            "retrieveVectors" => json!(text.parse::<bool>().ok()?),
            "fields" if text.split(',').any(|field| field == "*") => continue,
            "fields" | "ids" => list(),
            "filter" => serde_json::from_str(&text).unwrap_or_else(|_| json!(text)),
            "sort" => sort_parameters(&text).into_iter().collect(),
            _ => return None,
        };
        body.insert(name, value);
    }
    Some(body)
}
