//! Parses the shape of a `_vectors` field without keeping its numbers.
//!
//! Source: Meilisearch 1.50, `milli/src/vector/parsed_vectors.rs`: for each embedder, null, a vector, a list of vectors, or an
//! object with `regenerate` and optionally `embeddings`.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::BTreeSet, fmt};

/// The different numbers of dimensions of an embedder's vectors; `None` stands for a value that is not a list of vectors.
pub(super) type Dimensions = BTreeSet<Option<u64>>;

/// The dimensions by embedder; `None` if the text is not an object of vectors by embedder.
///
/// # Errors
/// The text is not JSON that a node could index.
pub(super) fn vectors(text: &str) -> serde_json::Result<Option<Vec<(String, Dimensions)>>> {
    let Shape::Map(embedders) = serde_json::from_str(text)? else { return Ok(None) };
    Ok(embedders.into_iter().map(|(name, shape)| Some((name, of_embedder(&shape)?))).collect())
}

fn of_embedder(shape: &Shape) -> Option<Dimensions> {
    match shape {
        Shape::Null | Shape::List { .. } => Some(dimensions(shape)),
        Shape::Map(members) => {
            let regenerates =
                |(name, shape): &(String, Shape)| name == "regenerate" && matches!(shape, Shape::Boolean);
            let embeddings = |(name, _): &(String, Shape)| name == "embeddings";
            match members.as_slice() {
                [one] if regenerates(one) => Some(Dimensions::new()),
                [one, other] | [other, one] if regenerates(one) && embeddings(other) => {
                    Some(dimensions(&other.1))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn dimensions(shape: &Shape) -> Dimensions {
    match shape {
        Shape::Null | Shape::List { length: 0, .. } => Dimensions::new(),
        Shape::List { length, vector: true, .. } => [Some(*length)].into(),
        Shape::List { vectors: Some(lengths), .. } => lengths.iter().copied().map(Some).collect(),
        _ => [None].into(),
    }
}

/// The shape of a JSON value.
enum Shape {
    Null,
    Boolean,
    Number,
    Text,
    List {
        length: u64,
        /// Whether all elements are numbers.
        vector: bool,
        /// The lengths of the elements, if all are lists of numbers.
        vectors: Option<BTreeSet<u64>>,
    },
    Map(Vec<(String, Shape)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
        let (mut length, mut vector, mut vectors) = (0, true, Some(BTreeSet::new()));
        while let Some(element) = sequence.next_element::<Shape>()? {
            length += 1;
            vector &= matches!(element, Shape::Number);
            match (element, &mut vectors) {
                (Shape::List { length, vector: true, .. }, Some(lengths)) => {
                    lengths.insert(length);
                }
                (_, vectors) => *vectors = None,
            }
        }
        Ok(Shape::List { length, vector, vectors })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Shape::Map(members))
    }
}
