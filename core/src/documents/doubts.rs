//! What a node may refuse by the settings of the index: `_geo`, `_geojson` and `_vectors`.
//!
//! Whether it does depends on settings, which gateways need not know, and only a node words it. So this only notes what may
//! be wrong, for the control plane to look at before anything is sent. A doubt too many costs a look, one too few leaves the
//! refusal to the node that gets the document.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/extract/geo` and `milli/src/vector/parsed_vectors.rs`.

use super::shape::{self, Dimensions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};

/// Documents that are noted one by one, at most: the first of them says what is wrong with the payload.
const MAX_NOTED: usize = 100;
/// Embedders that are noted, at most.
const MAX_EMBEDDERS: usize = 100;
/// Different numbers of dimensions of an embedder that are noted, at most.
const MAX_DIMENSIONS: usize = 8;

/// What may be wrong with a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Doubts {
    /// A `_geo` that is no point.
    pub geo: bool,
    /// A `_geojson` that is not plain GeoJSON.
    pub geojson: bool,
    /// `_vectors` that are no object of vectors by embedder.
    pub vectors: bool,
    /// For each embedder, the different numbers of dimensions of its vectors; `None` for what is no list of vectors.
    pub dimensions: BTreeMap<String, BTreeSet<Option<u64>>>,
}

impl Doubts {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The doubts about the documents of a payload, and which documents they are about.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    geo: bool,
    geojson: bool,
    vectors: bool,
    /// Positions of documents.
    noted: BTreeSet<usize>,
    /// With the first document of each.
    dimensions: BTreeMap<String, BTreeMap<Option<u64>, usize>>,
}

impl Doubtful {
    /// Whether a field of this name is one to look at.
    pub fn concerns(name: &str) -> bool {
        ["_geo", "_geojson", "_vectors"].contains(&name)
    }

    /// Looks at such a field of the document at `position`.
    ///
    /// # Errors
    /// The value cannot be read, and no node could.
    pub fn look(&mut self, position: usize, name: &str, value: &RawValue) -> serde_json::Result<()> {
        let is_doubtful = match name {
            "_vectors" => {
                let vectors = shape::vectors(value.get())?;
                if let Some(vectors) = &vectors {
                    self.note_dimensions(position, vectors);
                }
                self.vectors |= vectors.is_none();
                vectors.is_none()
            }
            name => {
                let value: Value = serde_json::from_str(value.get())?;
                let is_fine = if name == "_geo" { is_point(&value) } else { is_geojson(&value) };
                if name == "_geo" {
                    self.geo |= !is_fine;
                } else {
                    self.geojson |= !is_fine;
                }
                !is_fine
            }
        };
        if is_doubtful && self.noted.len() < MAX_NOTED {
            self.noted.insert(position);
        }
        Ok(())
    }

    fn note_dimensions(&mut self, position: usize, vectors: &[(String, Dimensions)]) {
        for (embedder, dimensions) in vectors {
            if !self.dimensions.contains_key(embedder) && self.dimensions.len() >= MAX_EMBEDDERS {
                continue;
            }
            let known = self.dimensions.entry(embedder.clone()).or_default();
            for dimensions in dimensions {
                if known.len() < MAX_DIMENSIONS {
                    known.entry(*dimensions).or_insert(position);
                }
            }
        }
    }

    /// What the control plane is told.
    pub fn told(&self) -> Doubts {
        let dimensions = self
            .dimensions
            .iter()
            .filter(|(_, dimensions)| !dimensions.is_empty())
            .map(|(embedder, dimensions)| (embedder.clone(), dimensions.keys().copied().collect()));
        Doubts {
            geo: self.geo,
            geojson: self.geojson,
            vectors: self.vectors,
            dimensions: dimensions.collect(),
        }
    }

    /// The documents that stand for all doubts, by their positions.
    pub fn positions(&self) -> BTreeSet<usize> {
        let first = self.dimensions.values().flat_map(|dimensions| dimensions.values().copied());
        self.noted.iter().copied().chain(first).collect()
    }
}

/// Whether a `_geo` is what nodes take: nothing, or a latitude and a longitude, as numbers or as text.
fn is_point(value: &Value) -> bool {
    let is_finite = |value: &Value| match value {
        Value::Number(number) => number.as_f64().is_some_and(f64::is_finite),
        Value::String(text) => text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => false,
    };
    match value {
        Value::Null => true,
        Value::Object(point) => {
            point.len() == 2 && ["lat", "lng"].iter().all(|name| point.get(*name).is_some_and(is_finite))
        }
        _ => false,
    }
}

/// Whether a `_geojson` is GeoJSON without anything unusual.
fn is_geojson(value: &Value) -> bool {
    let all = |name: &str, test: fn(&Value) -> bool| {
        value.get(name).and_then(Value::as_array).is_some_and(|list| list.iter().all(test))
    };
    let is_usual = value.get("bbox").is_none()
        && value.get("properties").is_none_or(|value| value.is_object() || value.is_null())
        && value.get("id").is_none_or(|value| value.is_string() || value.is_number());
    let fits = match value.get("type").and_then(Value::as_str) {
        Some("FeatureCollection") => all("features", |feature| {
            feature.get("type").and_then(Value::as_str) == Some("Feature") && is_geojson(feature)
        }),
        Some("Feature") => value.get("geometry").is_some_and(is_geometry),
        _ => is_geometry(value),
    };
    is_usual && fits
}

fn is_geometry(value: &Value) -> bool {
    fn each(value: &Value, least: usize, test: impl Fn(&Value) -> bool) -> bool {
        value.as_array().is_some_and(|list| list.len() >= least && list.iter().all(test))
    }
    fn position(value: &Value) -> bool {
        each(value, 2, |number| number.as_f64().is_some_and(f64::is_finite))
    }
    fn polygon(value: &Value) -> bool {
        each(value, 1, |ring| each(ring, 4, position))
    }
    let of = |test: &dyn Fn(&Value) -> bool| value.get("coordinates").is_some_and(test);
    value.get("bbox").is_none()
        && match value.get("type").and_then(Value::as_str) {
            Some("Point") => of(&position),
            Some("MultiPoint") => of(&|list| each(list, 1, position)),
            Some("LineString") => of(&|list| each(list, 2, position)),
            Some("MultiLineString") => of(&|list| each(list, 1, |line| each(line, 2, position))),
            Some("Polygon") => of(&polygon),
            Some("MultiPolygon") => of(&|list| each(list, 1, polygon)),
            Some("GeometryCollection") => {
                value.get("geometries").is_some_and(|list| each(list, 1, is_geometry))
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn told(name: &str, text: &str) -> Doubts {
        let mut doubtful = Doubtful::default();
        let value: Box<RawValue> = serde_json::from_str(text).unwrap();
        doubtful.look(7, name, &value).unwrap();
        let told = doubtful.told();
        assert_eq!(doubtful.positions().is_empty(), told.is_empty(), "{text}");
        told
    }

    #[test]
    fn points_are_told_from_what_is_none() {
        for fine in ["null", r#"{"lat":1,"lng":2.5}"#, r#"{"lng":"1e5","lat":"+1"}"#] {
            assert!(told("_geo", fine).is_empty(), "{fine}");
        }
        for bad in ["{}", "[]", "3", r#"{"lat":1}"#, r#"{"lat":1,"lng":2,"x":3}"#, r#"{"lat":1,"lng":"inf"}"#]
        {
            assert!(told("_geo", bad).geo, "{bad}");
        }
    }

    #[test]
    fn plain_geojson_is_told_from_the_rest() {
        const POINT: &str = r#"{"type":"Point","coordinates":[1,2]}"#;
        let feature = format!(r#"{{"type":"Feature","properties":null,"geometry":{POINT}}}"#);
        for fine in [
            POINT.to_owned(),
            r#"{"type":"Polygon","coordinates":[[[0,0],[0,1],[1,1],[0,0]]]}"#.to_owned(),
            format!(r#"{{"type":"FeatureCollection","features":[{feature}]}}"#),
            format!(r#"{{"type":"GeometryCollection","geometries":[{POINT}]}}"#),
            feature,
        ] {
            assert!(told("_geojson", &fine).is_empty(), "{fine}");
        }
        for doubtful in [
            "null",
            r#"{"type":"Point","coordinates":["1",2]}"#,
            r#"{"type":"Polygon","coordinates":[]}"#,
            r#"{"type":"Circle","coordinates":[1,2]}"#,
            r#"{"type":"Feature","geometry":null}"#,
        ] {
            assert!(told("_geojson", doubtful).geojson, "{doubtful}");
        }
    }

    #[test]
    fn vectors_are_counted_by_embedder() {
        let told = |text| told("_vectors", text);
        assert!(told("{}").is_empty());
        assert!(told(r#"{"a":null,"b":[],"c":{"regenerate":true}}"#).is_empty());
        for bad in ["null", "[]", r#""x""#, r#"{"a":"x"}"#, r#"{"a":{}}"#, r#"{"a":{"embeddings":[1]}}"#] {
            assert!(told(bad).vectors, "{bad}");
        }
        assert!(told(r#"{"a":{"regenerate":true,"x":1}}"#).vectors);
        let counted =
            told(r#"{"a":[[1,2],[3]],"b":{"regenerate":false,"embeddings":[1,2,3]},"c":["x"],"d":[[]]}"#);
        let expected =
            [("a", vec![Some(1), Some(2)]), ("b", vec![Some(3)]), ("c", vec![None]), ("d", vec![Some(0)])];
        let expected = expected.map(|(name, counts)| (name.to_owned(), counts.into_iter().collect()));
        assert_eq!(counted, Doubts { dimensions: expected.into(), ..Doubts::default() });
    }
}
