//! Takes the tag out of what a client sees.

use crate::{json::RawObject, path::ApiPath, shard::TAG_FIELD};
use memchr::memmem;
use serde_json::{Value, value::RawValue};
use std::borrow::Cow;

/// A document or hit without the tag, in `_formatted` and `_matchesPosition` too. Everything else stays byte for byte.
#[must_use]
pub fn document(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<RawObject<'_>>(json) {
        Ok(object) if mentions_tag(json) => {
            let mut out = Vec::with_capacity(json.len());
            write_hit(&object, true, &mut out, as_is);
            out
        }
        _ => json.to_vec(),
    }
}

/// Writes a hit without the tag, and without `_rankingScoreDetails` unless the client wants them; `write` writes a member.
pub(crate) fn write_hit(
    hit: &RawObject<'_>,
    show_details: bool,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&str, &RawValue, &mut Vec<u8>) -> bool,
) {
    hit.write_filtered(out, |name, value, out| match name {
        TAG_FIELD => false,
        "_rankingScoreDetails" if !show_details => false,
        "_formatted" | "_matchesPosition" if mentions_tag(value.get().as_bytes()) => {
            let mut untagged = Vec::with_capacity(value.get().len());
            if let Ok(inner) = serde_json::from_str::<RawObject<'_>>(value.get()) {
                inner.write_filtered(&mut untagged, |name, value, out| {
                    name != TAG_FIELD && as_is(name, value, out)
                });
            }
            match serde_json::from_slice::<&RawValue>(&untagged) {
                Ok(value) => write(name, value, out),
                Err(_) => false,
            }
        }
        _ => write(name, value, out),
    });
}

/// Writes a member as it was written.
pub(crate) fn as_is(_: &str, value: &RawValue, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.get().as_bytes());
    true
}

/// A message without the tag: in lists of attribute names, and alone.
#[must_use]
pub fn text(text: &str) -> String {
    if !mentions_tag(text.as_bytes()) {
        return text.to_owned();
    }
    let quoted = format!("`{TAG_FIELD}`");
    let mut text = text.to_owned();
    // What is left may be put together from what stood around the name.
    while mentions_tag(text.as_bytes()) {
        for name in [quoted.as_str(), TAG_FIELD] {
            for (from, to) in [(format!("{name}, "), ""), (format!(", {name}"), ""), (name.to_owned(), "")] {
                text = text.replace(&from, to);
            }
        }
    }
    text
}

/// An error body without the tag, and with the numbers of the rules in `filterableAttributes` as the client knows them.
#[must_use]
pub fn error(body: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(body) {
        Ok(utf8) if mentions_tag(body) => {
            let mut text = text(utf8);
            for attributes in ["attribute", "attributes"] {
                let nothing_left = format!("Available filterable {attributes} patterns are: .");
                text =
                    text.replace(&nothing_left, "This index does not have configured filterable attributes.");
            }
            text.into_bytes()
        }
        Ok(utf8) if utf8.contains("filterableAttributes") => rules_without_ours(utf8).into_bytes(),
        _ => body.to_vec(),
    }
}

/// The tag's own rule comes first in `filterableAttributes`, so a node counts the client's rules from 1.
fn rules_without_ours(message: &str) -> String {
    let mut parts = message.split("rule #");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(end);
        out.push_str("rule #");
        match number.parse::<u64>() {
            Ok(number) => out.push_str(&number.saturating_sub(1).to_string()),
            Err(_) => out.push_str(number),
        }
        out.push_str(rest);
    }
    out
}

/// Stands in for the tag's name where a client uses it: as long, so that positions in messages hold, and nobody's.
const ALIAS: &str = "_miroir_5hard";

/// A pattern of facets that no attribute but the tag fits has one letter of another case for nodes: then it fits none. Words
/// in a query are the same in any case.
fn patterns() -> impl Iterator<Item = (String, String)> {
    // No field of Meilisearch's own begins with these.
    (2..=TAG_FIELD.len()).filter_map(|length| {
        let prefix = TAG_FIELD.get(..length)?;
        Some((format!("{prefix}*"), format!("_M{}*", prefix.get(2..)?)))
    })
}

/// The names that clients may not reach, each with what stands in for it.
fn names() -> impl Iterator<Item = (String, String)> {
    patterns().chain([(TAG_FIELD.to_owned(), ALIAS.to_owned())])
}

/// A client's body in which the tag's name is a name that no document has, so that a node treats it as it treats an
/// attribute that it has never heard of; `None` where it does not mention the tag, however it is spelt.
#[must_use]
pub fn disguise(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Cow::Borrowed(body);
    // Letters may be spelt with escapes; what is written again has none for these.
    if memmem::find(body, b"\\u00").is_some()
        && let Some(written) =
            serde_json::from_slice::<Value>(body).ok().and_then(|value| serde_json::to_vec(&value).ok())
    {
        plain = Cow::Owned(written);
    }
    // Few bodies have anything that a name begins with.
    memmem::find(&plain, b"_m")?;
    let quoted = |name: String| if name.ends_with('*') { format!("\"{name}\"") } else { name };
    let names = names().map(|(name, other)| (quoted(name), quoted(other)));
    let mentioned: Vec<_> =
        names.filter(|(name, _)| memmem::find(&plain, name.as_bytes()).is_some()).collect();
    let disguise = |body: Vec<u8>, (name, other): &(String, String)| replace(&body, name, other);
    (!mentioned.is_empty()).then(|| mentioned.iter().fold(plain.into_owned(), disguise))
}

/// The same for a path with its query.
#[must_use]
pub fn disguise_path(path: &ApiPath) -> Option<ApiPath> {
    path.rewritten(|text| {
        // A filter may be JSON, whose letters may be spelt with escapes.
        let json =
            memmem::find(text.as_bytes(), b"\\u00").and_then(|_| serde_json::from_str::<Value>(text).ok());
        let plain = json.map_or_else(|| text.to_owned(), |json| json.to_string());
        let mentioned: Vec<_> = names().filter(|(name, _)| plain.contains(name.as_str())).collect();
        let disguise = |text: String, (name, other): &(String, String)| text.replace(name, other);
        (!mentioned.is_empty()).then(|| mentioned.iter().fold(plain, disguise))
    })
}

/// The same for a value of JSON.
#[must_use]
pub fn disguise_value(value: &Value) -> Option<Value> {
    let written = serde_json::to_vec(value).ok()?;
    disguise(&written).and_then(|disguised| serde_json::from_slice(&disguised).ok())
}

/// Puts the tag's name back into the answer to a disguised request; the tag itself must be out of it.
#[must_use]
pub fn reveal(body: &[u8]) -> Vec<u8> {
    let mut body = replace(body, ALIAS, TAG_FIELD);
    for (pattern, other) in patterns() {
        if memmem::find(&body, other.as_bytes()).is_some() {
            body = replace(&body, &other, &pattern);
        }
    }
    body
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((before, after)) = memmem::find(rest, from.as_bytes())
        .and_then(|at| Some((rest.get(..at)?, rest.get(at + from.len()..)?)))
    {
        out.extend_from_slice(before);
        out.extend_from_slice(to.as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// Whether the tag's name stands anywhere in it.
#[must_use]
pub fn mentions_tag(bytes: &[u8]) -> bool {
    memmem::find(bytes, TAG_FIELD.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_tag_is_taken_out_and_nothing_else_changes() {
        let hit = br#"{"id":1.0,"_miroir_shard":",,,","t":"_miroir_shard","_formatted":{"_miroir_shard":",,,","id":"1"},"_matchesPosition":{"_miroir_shard":[]}}"#;
        assert_eq!(
            String::from_utf8(document(hit)).unwrap(),
            r#"{"id":1.0,"t":"_miroir_shard","_formatted":{"id":"1"},"_matchesPosition":{}}"#
        );
        assert_eq!(document(br#"{ "id" : 1 }"#), br#"{ "id" : 1 }"#);
        assert_eq!(document(br#"{"_miroir_shard":",,,"}"#), b"{}");
    }

    #[test]
    fn errors_read_as_if_there_were_no_tag() {
        let mended = |body: &str| String::from_utf8(error(body.as_bytes())).unwrap();
        assert_eq!(
            mended(
                "`c` is not filterable. Available filterable attribute patterns are: `_miroir_shard`.\\n2:3"
            ),
            "`c` is not filterable. This index does not have configured filterable attributes.\\n2:3"
        );
        assert_eq!(
            mended("matches rule #1 in filterableAttributes: in rule #1, before rule #12"),
            "matches rule #0 in filterableAttributes: in rule #0, before rule #11"
        );
    }

    #[test]
    fn names_are_disguised_and_revealed() {
        let plain = br#"{"filter":"_miroir_shard = 1"}"#;
        let disguised = disguise(plain).unwrap();
        assert!(!mentions_tag(&disguised));
        assert_eq!(disguised.len(), plain.len());
        assert_eq!(reveal(&disguised), plain);
        assert_eq!(disguise(br#"{"filter":"\u005fmiroir_shard = 1"}"#), Some(disguised));
        assert_eq!(disguise(br#"{"q":"\u00e9"}"#), None);
        let path = |path: &str| disguise_path(&ApiPath::parse(path).unwrap()).map(|path| path.to_string());
        for spelt in [
            "%5Fmiroir_shard",
            "_%6diroir_shard",
            "_miroir%5fshard%20%3D%201",
            "%5F%6D%69%72%6F%69%72%5F%73%68%61%72%64",
        ] {
            let disguised = path(&format!("/x?filter={spelt}")).unwrap();
            assert!(disguised.starts_with("/x?filter=_miroir_5hard"), "{disguised}");
        }
        for spelt in [r#""\u005fmiroir_shard EXISTS""#, r#"["a = 1",["\u005f\u006diroir_shard EXISTS"]]"#] {
            let disguised = path(&format!("/x?filter={}", crate::query::encode(spelt))).unwrap();
            assert!(disguised.contains("_miroir_5hard"), "{disguised}");
        }
        let facets = br#"{"facets":["_miroir*"]}"#;
        let disguised = disguise(facets).unwrap();
        assert_eq!(disguised, br#"{"facets":["_Miroir*"]}"#);
        assert_eq!(reveal(&disguised), facets);
        assert_eq!(path("/x?facets=%5F%6d%2A").unwrap(), "/x?facets=_M%2A");
        assert_eq!(path("/x?facets=_*&q=shard"), None);
        let twice = disguise(
            br#"{"q":"_miroir_shard","filter":"\u005fmiroir_shard = 1","facets":["\u005fm\u002a"]}"#,
        )
        .unwrap();
        assert_eq!(twice, br#"{"q":"_miroir_5hard","filter":"_miroir_5hard = 1","facets":["_M*"]}"#);
        assert_eq!(disguise(br#"{"facets":["_*","*"]}"#), None);
    }

    #[test]
    fn lists_of_names_are_mended() {
        assert_eq!(text("Available: `_miroir_shard, genres`."), "Available: `genres`.");
        assert_eq!(text("Available: `_miroir_shard`, `genres`."), "Available: `genres`.");
        assert_eq!(text("Available: `genres`, `_miroir_shard`."), "Available: `genres`.");
        assert_eq!(text("nothing here"), "nothing here");
        assert_eq!(text("`_miroir_sh_miroir_shardard` and `a`"), " and `a`");
    }
}
