//! Preflight: finds the values of `_geo`, `_geojson` and `_vectors` that a node may refuse.
//!
//! Whether a node refuses them depends on the index's settings, which gateways need not know, and only a node can word the
//! error. So this module only notes possible errors, and the control plane lets a node judge them before anything is sent. A
//! false alarm costs one extra check; a missed error is refused later, by the node that gets the document.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/extract/geo` and `milli/src/vector/parsed_vectors.rs`.

use super::shape::{self, Dimensions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};

/// The most documents that are noted individually: the first of them determines the error of the payload.
const MAX_NOTED: usize = 100;
/// The most embedders that are noted.
const MAX_EMBEDDERS: usize = 100;
/// The most different numbers of dimensions that are noted for an embedder.
const MAX_DIMENSIONS: usize = 8;

/// What nodes may refuse in a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preflight {
    /// There is a `_geo` that is not a point.
    pub geo: bool,
    /// There is a `_geojson` that is not plain GeoJSON.
    pub geojson: bool,
    /// There are `_vectors` that are not an object of vectors by embedder.
    pub vectors: bool,
    /// For each embedder, the different numbers of dimensions of its vectors; `None` stands for a value that is not a list of
    /// vectors.
    pub dimensions: BTreeMap<String, BTreeSet<Option<u64>>>,
}

impl Preflight {
    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The preflight findings for the documents of a payload, with the documents that they are about.
#[derive(Debug, Default)]
pub(super) struct PreflightDocuments {
    geo: bool,
    geojson: bool,
    vectors: bool,
    /// Positions of the documents.
    noted: BTreeSet<usize>,
    /// For each number of dimensions, the first document that has it.
    dimensions: BTreeMap<String, BTreeMap<Option<u64>, usize>>,
}

impl PreflightDocuments {
    /// Whether the preflight checks a field with this name.
    pub fn concerns(name: &str) -> bool {
        ["_geo", "_geojson", "_vectors"].contains(&name)
    }

    /// Checks such a field of the document at `position`.
    ///
    /// # Errors
    /// The value cannot be parsed, neither here nor by a node.
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

    /// The description for the control plane.
    pub fn summary(&self) -> Preflight {
        let dimensions = self
            .dimensions
            .iter()
            .filter(|(_, dimensions)| !dimensions.is_empty())
            .map(|(embedder, dimensions)| (embedder.clone(), dimensions.keys().copied().collect()));
        Preflight {
            geo: self.geo,
            geojson: self.geojson,
            vectors: self.vectors,
            dimensions: dimensions.collect(),
        }
    }

    /// The positions of the documents that represent all findings.
    pub fn positions(&self) -> BTreeSet<usize> {
        let first = self.dimensions.values().flat_map(|dimensions| dimensions.values().copied());
        self.noted.iter().copied().chain(first).collect()
    }
}

/// Whether nodes accept this `_geo`: null, or a latitude and a longitude, as numbers or as strings.
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

/// Whether a `_geojson` is plain GeoJSON, with nothing unusual.
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

    fn told(name: &str, text: &str) -> Preflight {
        let mut doubtful = PreflightDocuments::default();
        let value: Box<RawValue> = serde_json::from_str(text).unwrap();
        doubtful.look(7, name, &value).unwrap();
        let told = doubtful.summary();
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
        assert_eq!(counted, Preflight { dimensions: expected.into(), ..Preflight::default() });
    }
}
