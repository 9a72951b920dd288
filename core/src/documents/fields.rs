//! Collects the names of the fields in a payload's documents.
//!
//! A node knows the fields of the documents that it has seen, in the order in which it saw them, and its answers depend on
//! both: a condition such as `a != 1` matches nothing on a node that does not know `a`, and a document shows its fields in that
//! order. So every payload's fields are sent to all nodes, whichever nodes get the documents.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/indexer/de.rs` (fields of a document) and `milli/src/update/new/extract`
//! (fields in its objects, as dotted paths).

use crate::json::Text;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::BTreeMap, fmt};

/// The most fields that an index can have.
///
/// Source: `milli/src/fields_ids_map.rs`, whose ids have 16 bits.
pub const MAX_FIELDS: usize = 65_535;
/// The most bytes that the names of one payload's top-level fields may have in total; the same limit applies to the paths of
/// nested fields.
pub const MAX_BYTES: usize = 4 << 20;

/// The field for a geographic position.
pub(super) const PLACE: &str = "_geo";

/// The names of a payload's fields, each once, as a tree: nested fields are children of their object's field.
#[derive(Debug)]
pub struct FieldNames {
    /// The first node is the document itself.
    nodes: Vec<Node>,
    /// Total bytes of the names of the top-level fields.
    bytes: usize,
    /// Total bytes of the paths of the nested fields.
    nested_bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// In order of first occurrence, each with its position in `nodes`.
    children: Vec<(Box<str>, u32)>,
    /// Positions in `children` by name; empty while there are few children.
    positions: BTreeMap<Box<str>, u32>,
    /// Bytes of this node's path: a long name counts in the paths of all fields below it.
    path: usize,
}

/// From this number of children on, they are looked up in `positions`.
const MANY: usize = 8;

impl Default for FieldNames {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], bytes: 0, nested_bytes: 0 }
    }
}

impl FieldNames {
    /// Whether the documents have more top-level fields than an index may have, or longer names than a begin may carry.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.own().len() > MAX_FIELDS || self.bytes > MAX_BYTES
    }

    fn own(&self) -> &[(Box<str>, u32)] {
        self.nodes.first().map_or(&[], |document| &document.children)
    }

    /// The top-level fields, in order of first occurrence, as nodes register them.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.own().iter().map(|(name, _)| name.to_string()).collect()
    }

    /// The nested fields, as `object.field`. A field may be listed twice; if there are more than an index may have, some are
    /// missing.
    #[must_use]
    pub fn nested(&self) -> Vec<String> {
        let mut list = Vec::new();
        let mut level: Vec<(String, u32)> =
            self.own().iter().map(|(name, node)| (name.to_string(), *node)).collect();
        while !level.is_empty() {
            let mut next = Vec::new();
            for (above, node) in level {
                for (name, child) in self.nodes.get(node as usize).into_iter().flat_map(|node| &node.children)
                {
                    // Nodes join names like this: a field inside a field with an empty name gets no prefix.
                    let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
                    list.push(path.clone());
                    next.push((path, *child));
                }
            }
            level = next;
        }
        list
    }

    /// Bytes that are held, approximately.
    #[must_use]
    pub fn held(&self) -> u64 {
        // Each name is stored twice in its parent.
        const EACH: usize = size_of::<Node>() + 3 * size_of::<(Box<str>, u32)>();
        (self.nodes.len().saturating_sub(1) * EACH + 2 * (self.bytes + self.nested_bytes)) as u64
    }

    /// Finds or adds the field with this name in an object. `expected` is its position if this object has the same fields as
    /// the last one, which most objects do.
    pub(super) fn child(&mut self, node: u32, name: &str, expected: &mut usize) -> u32 {
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        // Too many top-level fields make the payload fail; nested ones do not, because nodes may not look at them at all.
        let is_full = match node {
            0 => self.are_too_many(),
            _ => self.nodes.len() > 2 * MAX_FIELDS || self.nested_bytes > MAX_BYTES,
        };
        let Some(parent) = self.nodes.get_mut(node as usize) else { return node };
        let found = match parent.children.get(*expected) {
            Some((known, _)) if **known == *name => Some(*expected),
            _ if parent.positions.is_empty() => {
                parent.children.iter().position(|(known, _)| **known == *name)
            }
            _ => parent.positions.get(name).map(|position| *position as usize),
        };
        if let Some((position, (_, child))) =
            found.and_then(|position| Some((position, parent.children.get(position)?)))
        {
            *expected = position + 1;
            return *child;
        }
        if is_full {
            return node;
        }
        parent.children.push((name.into(), count));
        if parent.children.len() == MANY {
            let all = parent.children.iter().zip(0..);
            parent.positions = all.map(|((name, _), position)| (name.clone(), position)).collect();
        } else if parent.children.len() > MANY {
            let position = u32::try_from(parent.children.len() - 1).unwrap_or(u32::MAX);
            parent.positions.insert(name.into(), position);
        }
        *expected = parent.children.len();
        let path = if parent.path == 0 { name.len() } else { parent.path + 1 + name.len() };
        if node == 0 {
            self.bytes += name.len();
        } else {
            self.nested_bytes += path;
        }
        self.nodes.push(Node { path, ..Node::default() });
        count
    }
}

impl FieldNames {
    /// Registers the two fields that nodes make of a `_geo`, whatever its value is.
    pub(super) fn place(&mut self, node: u32) {
        for (position, name) in ["lat", "lng"].into_iter().enumerate() {
            self.child(node, name, &mut { position });
        }
    }
}

/// Parses a value as nodes would, and registers the fields of the objects in it. Skipping the value would miss numbers out of
/// range, incomplete surrogate escapes and nesting beyond the parser's limit, which make the whole task fail on the one node
/// that gets the document.
pub(super) struct Named<'a> {
    pub names: &'a mut FieldNames,
    /// The field that the value belongs to.
    pub node: u32,
}

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Named<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Named { names: &mut *self.names, node: self.node })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let node = self.names.child(self.node, &name, &mut expected);
            map.next_value_seed(Named { names: &mut *self.names, node })?;
        }
        Ok(())
    }
}
