//! Query strings: `application/x-www-form-urlencoded`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;

/// The characters that are not encoded in a path segment or a query's name (the unreserved ones of RFC 3986).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The decoded pairs of a query string, in order.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// The decoded pairs of a query string; of several with the same name the last one counts, as on nodes.
#[must_use]
pub fn last_pairs(query: &str) -> BTreeMap<String, String> {
    pairs(query).collect()
}

/// The members of a comma-separated list without the empty ones, as nodes read it.
pub fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|member| !member.is_empty())
}

/// Decodes a path segment; invalid UTF-8 is replaced, as on nodes.
#[must_use]
pub fn decode_segment(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// Encodes text for a path segment or a query's name.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Encodes text for a query value. Commas stay: a list of many uids must not become longer than nodes take.
#[must_use]
pub fn encode_value(text: &str) -> String {
    const IN_VALUES: &AsciiSet = &RESERVED.remove(b',');
    utf8_percent_encode(text, IN_VALUES).to_string()
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
