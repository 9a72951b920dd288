//! Creates hits: the requested fields of found documents, formatted fields, scores, and positions of matches.

use std::collections::{BTreeMap, BTreeSet};

use milli_core::constants::{RESERVED_GEO_FIELD_NAME, RESERVED_VECTORS_FIELD_NAME};
use milli_core::score_details::ScoreDetails;
use milli_core::tokenizer::{Language, TokenizerBuilder};
use milli_core::{
    FieldsIdsMap, FormatOptions, Index, LocalizedAttributesRule, MatchBounds, MatcherBuilder, MatchingWords,
    PatternMatch, distance_between_two_points, heed, is_faceted_by,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::query::SearchQuery;
use super::{geo_point, languages, number};
use crate::documents::{pointer, show_vectors, whole};
use crate::error::Result;

/// Where words matched, by field.
type Positions = BTreeMap<String, Vec<MatchBounds>>;

/// A found document.
#[derive(Debug, Serialize)]
pub struct Hit {
    #[serde(flatten)]
    pub(super) document: Map<String, Value>,
    #[serde(rename = "_formatted", skip_serializing_if = "Map::is_empty")]
    formatted: Map<String, Value>,
    #[serde(rename = "_matchesPosition", skip_serializing_if = "Option::is_none")]
    matches_position: Option<Positions>,
    #[serde(rename = "_rankingScore", skip_serializing_if = "Option::is_none")]
    ranking_score: Option<f64>,
    #[serde(rename = "_rankingScoreDetails", skip_serializing_if = "Option::is_none")]
    ranking_score_details: Option<Map<String, Value>>,
}

/// Creates the hits of one search.
pub struct HitMaker<'a> {
    index: &'a Index,
    rtxn: &'a heed::RoTxn<'a>,
    fields: FieldsIdsMap,
    query: &'a SearchQuery,
    displayed: BTreeSet<String>,
    retrieved: BTreeSet<String>,
    formats: BTreeMap<String, FormatOptions>,
    show_vectors: bool,
    languages: Option<Vec<Language>>,
    localized: Vec<LocalizedAttributesRule>,
    geo_point: Option<[f64; 2]>,
}

impl<'a> HitMaker<'a> {
    /// Prepares the data that all hits of the search share.
    pub fn new(index: &'a Index, rtxn: &'a heed::RoTxn<'a>, query: &'a SearchQuery) -> Result<Self> {
        let fields = index.fields_ids_map(rtxn)?;
        let all = || fields.names().map(String::from).collect::<BTreeSet<_>>();
        let displayed_ids = index.displayed_fields_ids(rtxn)?;
        let name_of = |id: &u16| fields.name(*id).map(String::from);
        let displayed =
            displayed_ids.as_ref().map_or_else(all, |ids| ids.iter().filter_map(name_of).collect());
        let vectors_hidden = match index.displayed_fields(rtxn)? {
            Some(names) => !names.contains(&RESERVED_VECTORS_FIELD_NAME),
            None => false,
        };
        let retrieved = match &query.attributes_to_retrieve {
            Some(names) if !names.contains("*") => {
                displayed.iter().filter(|name| names.contains(*name)).cloned().collect()
            }
            _ => displayed.clone(),
        };
        let formats = formats(query, &fields, &displayed, &retrieved);
        Ok(Self {
            index,
            rtxn,
            fields,
            query,
            displayed,
            retrieved,
            formats,
            show_vectors: query.retrieve_vectors && !vectors_hidden,
            languages: query.locales.as_deref().map(languages),
            localized: index.localized_attributes_rules(rtxn)?.unwrap_or_default(),
            geo_point: query.sort.as_deref().and_then(geo_point),
        })
    }

    /// Creates the hits for these documents, in the same order.
    pub fn make_all(
        &self,
        words: MatchingWords,
        ids: &[u32],
        scores: &[Vec<ScoreDetails>],
    ) -> Result<Vec<Hit>> {
        let dictionary = self.index.dictionary(self.rtxn)?;
        let dictionary: Option<Vec<&str>> =
            dictionary.as_ref().map(|words| words.iter().map(String::as_str).collect());
        let separators = self.index.allowed_separators(self.rtxn)?;
        let separators: Option<Vec<&str>> =
            separators.as_ref().map(|words| words.iter().map(String::as_str).collect());
        let mut tokenizer = TokenizerBuilder::default();
        tokenizer.create_char_map(true);
        if let Some(separators) = &separators {
            tokenizer.separators(separators);
        }
        if let Some(dictionary) = &dictionary {
            tokenizer.words_dict(dictionary);
        }
        let mut matcher = MatcherBuilder::new(words, tokenizer.into_tokenizer());
        matcher.crop_marker(self.query.crop_marker.clone());
        matcher.highlight_prefix(self.query.highlight_pre_tag.clone());
        matcher.highlight_suffix(self.query.highlight_post_tag.clone());
        ids.iter()
            .enumerate()
            .map(|(i, id)| self.make(&matcher, *id, scores.get(i).map_or(&[], Vec::as_slice)))
            .collect()
    }

    fn make(&self, matcher: &MatcherBuilder<'_>, id: u32, score: &[ScoreDetails]) -> Result<Hit> {
        let whole = whole(self.index, self.rtxn, &self.fields, id)?;
        let mut retrieved: BTreeSet<&str> = self.retrieved.iter().map(String::as_str).collect();
        if self.show_vectors {
            retrieved.insert(RESERVED_VECTORS_FIELD_NAME);
        }
        let mut document = pointer::select(&whole, &retrieved);
        show_vectors(self.index, self.rtxn, id, &mut document, self.show_vectors)?;
        let (matches_position, formatted) = self.format(matcher, &whole);
        if let Some(point) = self.geo_point
            && let Some(distance) = distance_to(point, &document)
        {
            document.insert("_geoDistance".into(), json!(distance));
        }
        Ok(Hit {
            document,
            formatted,
            matches_position,
            ranking_score: self.query.show_ranking_score.then(|| ScoreDetails::global_score(score.iter())),
            ranking_score_details: self
                .query
                .show_ranking_score_details
                .then(|| ScoreDetails::to_json_map(score.iter())),
        })
    }

    fn format(
        &self,
        matcher: &MatcherBuilder<'_>,
        whole: &Map<String, Value>,
    ) -> (Option<Positions>, Map<String, Value>) {
        let with_positions = self.query.show_matches_position;
        if !with_positions && self.formats.is_empty() {
            return (None, Map::new());
        }
        let names: Vec<&str> = if with_positions {
            self.displayed.iter().map(String::as_str).collect()
        } else {
            self.formats.keys().map(String::as_str).collect()
        };
        let mut document = pointer::select(whole, &names.iter().copied().collect());
        let mut positions = BTreeMap::new();
        let displayed: Vec<&str> = self.displayed.iter().map(String::as_str).collect();
        pointer::for_each_leaf(&mut document, &displayed, &mut |name, indices, value| {
            // Several formats can apply to a value, for example in a highlighted object with one cropped field.
            let format = self
                .formats
                .iter()
                .filter(|(rule, format)| {
                    format.should_format() && (is_faceted_by(rule, name) || is_faceted_by(name, rule))
                })
                .map(|(_, format)| *format)
                .reduce(FormatOptions::merge);
            let localized = self.localized.iter().find(|rule| rule.match_str(name) == PatternMatch::Match);
            let languages = self.languages.as_deref().or(localized.map(LocalizedAttributesRule::locales));
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            let mut found = matcher.build(&text, languages);
            if with_positions {
                let bounds = found.matches(indices);
                if !bounds.is_empty() {
                    positions.insert(name.to_string(), bounds);
                }
            }
            let formatted = format.map_or_else(|| text.clone(), |format| found.format(format).into_owned());
            *value = Value::String(formatted);
        });
        let kept = self.formats.keys().map(String::as_str).collect();
        (with_positions.then_some(positions), pointer::select(&document, &kept))
    }
}

/// The format of each field of `_formatted`; empty if nothing is to be highlighted or cropped.
fn formats(
    query: &SearchQuery,
    fields: &FieldsIdsMap,
    displayed: &BTreeSet<String>,
    retrieved: &BTreeSet<String>,
) -> BTreeMap<String, FormatOptions> {
    let mut formats = BTreeMap::<String, FormatOptions>::new();
    for attribute in query.attributes_to_highlight.iter().flatten() {
        if attribute == "*" {
            for name in displayed {
                formats.entry(name.clone()).or_default().highlight = true;
            }
        } else if fields.id(attribute).is_some() && displayed.contains(attribute) {
            formats.entry(attribute.clone()).or_default().highlight = true;
        }
    }
    for attribute in query.attributes_to_crop.iter().flatten() {
        let (name, length) =
            match attribute.rsplit_once(':').map(|(name, length)| (name, length.parse::<usize>())) {
                Some((name, Ok(length))) => (name, length),
                Some((name, Err(_))) => (name, query.crop_length),
                None => (attribute.as_str(), query.crop_length),
            };
        if name == "*" {
            for name in displayed {
                formats.entry(name.clone()).or_default().crop.get_or_insert(length);
            }
        } else if fields.id(name).is_some() && displayed.contains(name) {
            formats.entry(name.into()).or_default().crop = Some(length);
        }
    }
    if !formats.is_empty() {
        for name in retrieved {
            formats.entry(name.clone()).or_default();
        }
    }
    formats
}

/// The distance of the document from the point, in whole metres.
fn distance_to(point: [f64; 2], document: &Map<String, Value>) -> Option<u64> {
    let geo = document.get(RESERVED_GEO_FIELD_NAME)?;
    let place = [number(geo.get("lat"))?, number(geo.get("lng"))?];
    Some(distance_between_two_points(&point, &place).round() as u64)
}
