//! Takes the tag out of what a client sees.

use crate::{json::RawObject, shard::TAG_FIELD};
use memchr::memmem;
use serde_json::{Value, value::RawValue};

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

/// A client's body in which the tag's name is a name that no document has, so that a node treats it as it treats an
/// attribute that it has never heard of; `None` where it does not mention the tag.
#[must_use]
pub fn disguise(body: &[u8]) -> Option<Vec<u8>> {
    // The name may be spelt with escapes, besides plainly.
    let spelt = memmem::find(body, b"\\u00").and_then(|_| serde_json::from_slice::<Value>(body).ok());
    let plain = spelt.and_then(|value| serde_json::to_vec(&value).ok());
    plain.and_then(|plain| disguise_plain(&plain)).or_else(|| disguise_plain(body))
}

fn disguise_plain(body: &[u8]) -> Option<Vec<u8>> {
    let names = patterns().map(|(one, other)| (format!("\"{one}\""), format!("\"{other}\"")));
    let names = names.chain([(TAG_FIELD.to_owned(), ALIAS.to_owned())]);
    names.fold(None, |disguised, (name, other)| {
        let body = disguised.as_deref().unwrap_or(body);
        memmem::find(body, name.as_bytes()).map(|_| replace(body, &name, &other)).or(disguised)
    })
}

/// The same for a path with its query.
#[must_use]
pub fn disguise_path(path: &str) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let letter = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // What these stand for is the same without the escape, and all that a name or a pattern is made of.
        match letter.filter(|letter| letter.is_ascii_alphanumeric() || b"_*".contains(letter)) {
            Some(letter) => {
                plain.push(char::from(letter));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                plain.push('%');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    let names = patterns().chain([(TAG_FIELD.to_owned(), ALIAS.to_owned())]);
    let names: Vec<_> = names.filter(|(name, _)| plain.contains(name)).collect();
    for (name, other) in &names {
        plain = plain.replace(name, other);
    }
    (!names.is_empty()).then_some(plain)
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
        let both = br#"{"filter":"_miroir_shard = 1","sort":["\u005fmir\u006fir_shard:asc"]}"#;
        assert_eq!(
            String::from_utf8(disguise(both).unwrap()).unwrap(),
            r#"{"filter":"_miroir_5hard = 1","sort":["_miroir_5hard:asc"]}"#
        );
        assert!(!disguise_path("/x?filter=%5Fmiroir_shard").unwrap().contains(TAG_FIELD));
        assert_eq!(
            disguise_path("/x?filter=_%6diroir%5fsh%61rd%20=").unwrap(),
            "/x?filter=_miroir_5hard%20="
        );
        assert_eq!(disguise_path("/x?q=%c3%a9%&r=%6d%2"), None);
        let facets = br#"{"facets":["_miroir*"]}"#;
        let disguised = disguise(facets).unwrap();
        assert_eq!(disguised, br#"{"facets":["_Miroir*"]}"#);
        assert_eq!(reveal(&disguised), facets);
        assert_eq!(disguise_path("/x?facets=%5Fm%2A").unwrap(), "/x?facets=_M*");
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
