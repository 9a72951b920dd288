//! Reads JSON objects one level deep, so that nested values can be passed on byte for byte.

use memchr::{memchr, memchr2, memchr3_iter};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// An object's members in order, with their values as they were written.
#[derive(Debug, Default)]
pub struct RawObject<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// A string that borrows from its input unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> RawObject<'a> {
    /// The value of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The value of the last member with this name, if there are several.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The value at a dotted path, inside objects: `a.b` is the member with this name, or the member `b` of the member `a`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&'a RawValue> {
        self.get(path).or_else(|| {
            self.0.iter().find_map(|(name, value)| {
                let rest = path.strip_prefix(name.as_ref())?.strip_prefix('.')?;
                serde_json::from_str::<Self>(value.get()).ok()?.at(rest)
            })
        })
    }

    /// Deserializes a member.
    #[must_use]
    pub fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Writes the object. `write` writes a member's value, or returns `false` to leave the member out.
    pub fn write_filtered(
        &self,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&str, &RawValue, &mut Vec<u8>) -> bool,
    ) {
        out.push(b'{');
        let mut first = true;
        for (name, value) in &self.0 {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            write_string(name, out);
            out.push(b':');
            if write(name, value, out) {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(b'}');
    }
}

/// An upper bound on the number of values in a JSON text, ignoring the contents of strings: a value follows the start, a comma,
/// or an opening bracket.
#[must_use]
pub fn values(text: &[u8]) -> u64 {
    let (mut values, mut rest) = (1, text);
    loop {
        let outside = memchr(b'"', rest).unwrap_or(rest.len());
        let (plain, string) = rest.split_at(outside);
        values += memchr3_iter(b',', b'[', b'{', plain).count() as u64;
        let Some(mut inside) = string.get(1..) else { return values };
        loop {
            match memchr2(b'"', b'\\', inside) {
                Some(at) if inside.get(at) == Some(&b'"') => {
                    rest = inside.get(at + 1..).unwrap_or_default();
                    break;
                }
                Some(at) => inside = inside.get(at + 2..).unwrap_or_default(),
                None => return values,
            }
        }
    }
}

/// A value as JSON. Writing to memory does not fail, and neither do the values that are written here: their names are texts, and
/// what is in them is written as it is.
#[must_use]
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Writes a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.extend_from_slice(b"\"\"");
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(RawObject(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn members_are_found_by_paths_and_from_the_end() {
        let object: RawObject<'_> =
            serde_json::from_str(r#"{"a":{"b":1,"c.d":2},"a.b":3,"x":{"y":{"z":4}},"x":5}"#).unwrap();
        let at = |path: &str| object.at(path).map(RawValue::get);
        assert_eq!((at("a.b"), at("a.c.d"), at("x.y.z")), (Some("3"), Some("2"), Some("4")));
        assert_eq!((at("a.c"), at("x.y.z.z"), at("ab")), (None, None, None));
        assert_eq!(object.last("x").map(RawValue::get), Some("5"));
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (text, count) in [
            ("", 1),
            ("3", 1),
            ("[1,2,3]", 4),
            (r#"{"a,[{":"b,\\\"c,","d":[]}"#, 4),
            (r#"["a\\",1]"#, 3),
            (r#"["never ends,,,"#, 2),
            (r#"["\"#, 2),
        ] {
            assert_eq!(values(text.as_bytes()), count, "{text}");
        }
    }
}
