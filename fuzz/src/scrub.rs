//! Answers that nodes could give: clients see everything in them except the tag.

use crate::{Input, TAG, mentions_tag};
use miroir_core::scrub;
use serde_json::{Map, Value};

/// Removes the tag from a document and an error.
///
/// # Panics
/// The tag is still there, or something else is missing.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let document = Value::Object(object(&mut input, true));
    let text = if input.one_in(4) { format!("{document:#}") } else { document.to_string() };
    let seen = scrub::document(text.as_bytes());
    let seen: Value = serde_json::from_slice(&seen).expect("a document is still JSON");
    assert_eq!(seen, without_tag(document), "{text}");

    let error = error(&mut input);
    let seen = scrub::error(error.as_bytes());
    assert!(!mentions_tag(&seen), "{error}");
    let seen = scrub::text(&error);
    assert!(!mentions_tag(seen.as_bytes()), "{error}");
    let _ = (scrub::document(data), scrub::error(data), scrub::reveal(data));
}

/// A document as a node returns it.
fn object(input: &mut Input<'_>, is_hit: bool) -> Map<String, Value> {
    let mut object = input.object(2);
    if input.one_in(2) {
        object.insert(TAG.to_owned(), input.of(&[",,,", "{}[", "]]]"]).into());
    }
    if is_hit {
        for name in ["_formatted", "_matchesPosition"] {
            if input.one_in(2) {
                object.insert(name.to_owned(), self::object(input, false).into());
            }
        }
    }
    if input.one_in(8) {
        // The tag's name in a client's own value is not a tag.
        object.insert("title".to_owned(), TAG.into());
    }
    object
        .into_iter()
        .map(|member| (input.below(9), member))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(_, it)| it)
        .collect()
}

/// The document as the client must see it: only the tag's own field is removed.
fn without_tag(mut document: Value) -> Value {
    if let Some(document) = document.as_object_mut() {
        document.shift_remove(TAG);
    }
    document
}

fn error(input: &mut Input<'_>) -> String {
    let mut names: Vec<String> = (0..input.below(4)).map(|_| input.text()).collect();
    for _ in 0..input.below(3) {
        let at = input.below(names.len() + 1);
        names.insert(at, TAG.to_owned());
    }
    if input.one_in(4) {
        let at = input.below(TAG.len());
        names.push(format!("{}{TAG}{}", &TAG[..at], &TAG[at..]));
    }
    let quoted = input.one_in(2);
    let names: Vec<String> =
        names.into_iter().map(|name| if quoted { format!("`{name}`") } else { name }).collect();
    let list = names.join(", ");
    let rule = input.below(20);
    match input.below(4) {
        0 => format!(
            "Attribute `c` is not filterable. Available filterable attribute patterns are: {list}.\n2:3"
        ),
        1 => format!(
            "Attribute `c` is not filterable. Available filterable attributes patterns are: `{list}`."
        ),
        2 => {
            format!("Attribute `c` matches rule #{rule} in filterableAttributes, {list}; see rule #x, rule #")
        }
        _ => format!("Index `{list}` not found. {}", input.text()),
    }
}
