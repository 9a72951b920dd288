//! Removes the shard tag from what clients see.

use crate::{json::RawObject, path::ApiPath, shard::TAG_FIELD};
use memchr::memmem;
use serde_json::{Value, value::RawValue};
use std::borrow::Cow;

/// Returns a document without the tag. All other fields stay byte for byte, whatever their names.
#[must_use]
pub fn document(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<RawObject<'_>>(json) {
        Ok(object) if mentions_tag(json) => {
            let mut out = Vec::with_capacity(json.len());
            write_untagged(&object, &mut out);
            out
        }
        _ => json.to_vec(),
    }
}

/// Writes an object without the tag.
pub(crate) fn write_untagged(object: &RawObject<'_>, out: &mut Vec<u8>) {
    object.write_filtered(out, |name, value, out| name != TAG_FIELD && as_is(name, value, out));
}

/// Writes a member's value unchanged.
pub(crate) fn as_is(_: &str, value: &RawValue, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.get().as_bytes());
    true
}

/// Removes the tag from a message: from lists of attribute names, and where it stands alone.
#[must_use]
pub fn text(text: &str) -> String {
    if !mentions_tag(text.as_bytes()) {
        return text.to_owned();
    }
    let quoted = format!("`{TAG_FIELD}`");
    let mut text = text.to_owned();
    // A removal may join the text around it into the tag's name again.
    while mentions_tag(text.as_bytes()) {
        for name in [quoted.as_str(), TAG_FIELD] {
            for (from, to) in [(format!("{name}, "), ""), (format!(", {name}"), ""), (name.to_owned(), "")] {
                text = text.replace(&from, to);
            }
        }
    }
    for attributes in ["attribute", "attributes"] {
        for list in [".", "``.", "`<..hidden-attributes>`."] {
            let nothing_left = format!("Available filterable {attributes} patterns are: {list}");
            text = text.replace(&nothing_left, "This index does not have configured filterable attributes.");
        }
    }
    text
}

/// Removes the tag from an error message, and numbers the rules in `filterableAttributes` as the client knows them.
#[must_use]
pub fn sentence(said: &str) -> String {
    let text = text(said);
    if text.contains("filterableAttributes") { rules_without_ours(&text) } else { text }
}

/// The same for the body of an error.
#[must_use]
pub fn error(body: &[u8]) -> Vec<u8> {
    std::str::from_utf8(body).map_or_else(|_| body.to_vec(), |text| sentence(text).into_bytes())
}

/// How nodes end a list of attributes if some are not displayed.
const HIDDEN: &str = "<..hidden-attributes>";

/// Corrects an untagged error body with a list of filterable attributes: the list may say that some are hidden only if the
/// client knows a hidden one. The tag itself may be hidden, if the client set `displayedAttributes` before nodes were made to
/// display the tag. `filterable` returns the patterns of an index; for `None`, of the only index of the request.
#[must_use]
pub fn hidden_attributes(body: Vec<u8>, filterable: impl Fn(Option<&str>) -> Option<Vec<String>>) -> Vec<u8> {
    const LIST: &str =
        "cannot be used as distinct attribute. Available filterable attributes patterns are: `";
    if memmem::find(&body, HIDDEN.as_bytes()).is_none() {
        return body;
    }
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    let mended = || {
        let (before, after) = text.split_once(LIST)?;
        let (list, rest) = after.split_once(&format!(", {HIDDEN}`"))?;
        let index = before.split_once("Index `").and_then(|(_, after)| after.split_once('`'));
        let mut filterable = filterable(index.map(|(index, _)| index))?;
        filterable.sort_unstable();
        filterable.dedup();
        (list.split(", ").count() >= filterable.len())
            .then(|| format!("{before}{LIST}{list}`{rest}").into_bytes())
    };
    mended().unwrap_or(body)
}

/// Takes the tag's own rule out of the numbering. It is the first in `filterableAttributes`, so nodes number the client's rules
/// from 1.
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

/// Replaces the tag's name in clients' requests. It has the same length, so that positions in messages stay right, and no
/// document has a field with this name.
const ALIAS: &str = "_miroir_5hard";

/// Returns the client's body with the tag's name replaced by a name that no document has, so that nodes treat it like any
/// unknown attribute; `None` if the body does not mention the tag in any spelling.
#[must_use]
pub fn disguise(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Cow::Borrowed(body);
    // The client may write letters as escapes; serializing the value again removes them.
    if memmem::find(body, b"\\u00").is_some()
        && let Some(written) =
            serde_json::from_slice::<Value>(body).ok().and_then(|value| serde_json::to_vec(&value).ok())
    {
        plain = Cow::Owned(written);
    }
    memmem::find(&plain, TAG_FIELD.as_bytes())?;
    Some(replace(&plain, TAG_FIELD, ALIAS))
}

/// The same for a path with its query.
#[must_use]
pub fn disguise_path(path: &ApiPath) -> Option<ApiPath> {
    path.rewritten(|text| {
        // A filter may be JSON, in which letters may be written as escapes.
        let json =
            memmem::find(text.as_bytes(), b"\\u00").and_then(|_| serde_json::from_str::<Value>(text).ok());
        let plain = json.map_or_else(|| text.to_owned(), |json| json.to_string());
        plain.contains(TAG_FIELD).then(|| plain.replace(TAG_FIELD, ALIAS))
    })
}

/// The same for a JSON value.
#[must_use]
pub fn disguise_value(value: &Value) -> Option<Value> {
    let written = serde_json::to_vec(value).ok()?;
    disguise(&written).and_then(|disguised| serde_json::from_slice(&disguised).ok())
}

/// Puts the tag's name back into the answer to a disguised request. The answer must not contain the tag itself any more.
#[must_use]
pub fn reveal(body: &[u8]) -> Vec<u8> {
    replace(body, ALIAS, TAG_FIELD)
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

/// Whether the bytes contain the tag's name anywhere.
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
        let stored = br#"{"id":1.0,"_miroir_shard":",,,","t":"_miroir_shard","_formatted":{"_miroir_shard":",,,","id":"1"}}"#;
        assert_eq!(
            String::from_utf8(document(stored)).unwrap(),
            r#"{"id":1.0,"t":"_miroir_shard","_formatted":{"_miroir_shard":",,,","id":"1"}}"#
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
            mended("Available filterable attributes patterns are: `_miroir_shard, <..hidden-attributes>`."),
            "This index does not have configured filterable attributes."
        );
        assert_eq!(
            mended("matches rule #1 in filterableAttributes: in rule #1, before rule #12"),
            "matches rule #0 in filterableAttributes: in rule #0, before rule #11"
        );
        assert_eq!(
            mended("patterns are: `_miroir_shard, a`. Rule #2 in `filterableAttributes`: before rule #2"),
            "patterns are: `a`. Rule #2 in `filterableAttributes`: before rule #1"
        );
    }

    #[test]
    fn hidden_attributes_are_those_of_the_client() {
        let said = |list: &str| {
            format!(
                "Index `i`: Attribute `x` is not filterable and thus, cannot be used as distinct attribute. Available filterable attributes patterns are: `{list}`."
            )
        };
        let known = |index: Option<&str>| (index == Some("i")).then(|| vec!["a".to_owned(), "b".to_owned()]);
        for (list, shown) in [
            ("a, b, <..hidden-attributes>", "a, b"),
            ("a, <..hidden-attributes>", "a, <..hidden-attributes>"),
            ("a, b", "a, b"),
        ] {
            assert_eq!(hidden_attributes(said(list).into_bytes(), known), said(shown).into_bytes());
        }
        let sort = b"Available sortable attributes are: `a, <..hidden-attributes>`.".to_vec();
        assert_eq!(hidden_attributes(sort.clone(), known), sort);
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
        assert_eq!(path("/x?facets=_*&q=shard"), None);
        let twice = disguise(br#"{"q":"_miroir_shard","filter":"\u005fmiroir_shard = 1"}"#).unwrap();
        assert_eq!(twice, br#"{"q":"_miroir_5hard","filter":"_miroir_5hard = 1"}"#);
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
