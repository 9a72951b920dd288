//! Removes the shard tag, and other traces of the cluster, from nodes' messages and JSON.

use miroir_core::shard::TAG_FIELD;
use serde_json::Value;

/// Removes the tag from a node's error message. Call it once per message: rule numbers in the message count the tag's rule, and
/// each call lowers them by one.
#[must_use]
pub fn message(text: &str) -> String {
    revealed(&miroir_core::scrub::sentence(&without_member(text)))
}

/// Restores the client's own names, which nodes got in a disguised form.
fn revealed(text: &str) -> String {
    String::from_utf8(miroir_core::scrub::reveal(text.as_bytes())).unwrap_or_else(|_| text.to_owned())
}

fn untagged(text: &str) -> String {
    revealed(&miroir_core::scrub::text(&without_member(text)))
}

/// Removes the tag from documents that a message quotes. The tag is their last member, or the first one in documents that a
/// function has edited.
fn without_member(text: &str) -> String {
    let member = format!("\"{TAG_FIELD}\":");
    let mut parts = text.split(&member);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = part.trim_start();
        let Some(rest) = behind_tag(value) else {
            shown.push_str(&member);
            shown.push_str(part);
            continue;
        };
        let before = shown.trim_end();
        if before.ends_with(',') {
            shown.truncate(before.len() - 1);
            shown.push_str(rest);
        } else {
            shown.push_str(rest.trim_start().strip_prefix(',').map_or(rest, str::trim_start));
        }
    }
    shown
}

/// What follows a string literal that contains no quotes.
fn behind_text(value: &str) -> Option<&str> {
    value.trim_start().strip_prefix('"')?.split_once('"').map(|(_, rest)| rest)
}

/// What follows a tag's value: a string, or an array of strings, without quotes in them.
fn behind_tag(value: &str) -> Option<&str> {
    let Some(mut rest) = value.strip_prefix('[') else { return behind_text(value) };
    loop {
        rest = behind_text(rest)?.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.strip_prefix(']'),
        }
    }
}

/// Lowers the line number in a message by `before`: nodes get an edit's function with that many lines before the client's own.
#[must_use]
pub fn shift_lines(text: &str, before: u32) -> String {
    let Some((head, tail)) = text.split_once("(line ") else { return text.to_owned() };
    let digits: String = tail.chars().take_while(char::is_ascii_digit).collect();
    let rest = tail.get(digits.len()..).unwrap_or_default();
    match digits.parse::<u32>() {
        Ok(line) if line > before => format!("{head}(line {}{rest}", line - before),
        _ => text.to_owned(),
    }
}

/// Removes the tag from JSON at any depth: members of that name, rules on it, messages that name it. Facet limits become those
/// that clients have set.
pub fn value(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.shift_remove(TAG_FIELD);
            crate::disguise::facet_values::without_room(object);
            for (name, member) in object.iter_mut() {
                if name == crate::disguise::settings_tag::FILTERABLE {
                    crate::disguise::settings_tag::scrub_rules(member);
                }
                self::value(member);
            }
        }
        Value::Array(array) => {
            *array = array.iter().filter_map(crate::disguise::settings_tag::without_tag).collect();
            array.iter_mut().for_each(self::value);
        }
        Value::String(text) if text.contains(TAG_FIELD) => {
            *text = crate::disguise::embedders::shown(text).map_or_else(|| untagged(text), ToOwned::to_owned);
        }
        Value::String(text) => *text = revealed(text),
        _ => {}
    }
}

/// Lowers by one the position that follows `before` in a message about filterable attributes: nodes count the tag's rule, which
/// the client did not send.
#[must_use]
pub fn shift_position(text: &str, before: &str) -> String {
    let Some((head, tail)) = text.split_once(before) else { return text.to_owned() };
    let digits: String = tail.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<usize>() {
        Ok(position) if position > 0 => {
            format!("{head}{before}{}{}", position - 1, tail.get(digits.len()..).unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

/// Masks a secret.
///
/// Source: Meilisearch 1.50, `hide_secret` in `meilisearch-types`.
#[must_use]
pub fn secret(secret: &str) -> String {
    let (shown, hidden) = match secret.len() {
        0..10 => (0, "XXX..."),
        10..20 => (2, "XXXX..."),
        20..30 => (3, "XXXXX..."),
        _ => (5, "XXXXXX..."),
    };
    secret.chars().take(shown).chain(hidden.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sentences_lose_the_tag() {
        for (said, shown) in [
            (
                "Available filterable attributes patterns are: `_miroir_shard, genre`.",
                "Available filterable attributes patterns are: `genre`.",
            ),
            ("are: `genre, _miroir_shard`.", "are: `genre`."),
            ("are: `a, _miroir_shard, b`.", "are: `a, b`."),
            ("nothing of it", "nothing of it"),
            ("rule #3 in `filterableAttributes`", "rule #2 in `filterableAttributes`"),
            ("`{\"id\":2,\"_miroir_shard\":\",,[\"}`.", "`{\"id\":2}`."),
            ("`{\"_miroir_shard\":\",,[\",\"id\":2}`.", "`{\"id\":2}`."),
            ("`#{\"_miroir_shard\": \",,[\", \"id\": 2}`.", "`#{\"id\": 2}`."),
            ("`{\"a\":1,\"_miroir_shard\":\",,[\",\"id\":2}`.", "`{\"a\":1,\"id\":2}`."),
            ("`{\"_miroir_shard\":\",,[\"}`.", "`{}`."),
            ("`{\"id\":2,\"_miroir_shard\":[\",][\",\"\u{2003} \u{2002}\"]}`.", "`{\"id\":2}`."),
            ("`{\"_miroir_shard\":[\",][\",\"\u{2003} \u{2002}\"],\"id\":2}`.", "`{\"id\":2}`."),
            ("`#{\"_miroir_shard\": [\",][\", \"\\u{2003} \\u{2002}\"], \"id\": 2}`.", "`#{\"id\": 2}`."),
        ] {
            assert_eq!(message(said), shown);
        }
    }

    #[test]
    fn json_loses_the_tag() {
        let mut said = json!({"_miroir_shard": ",,,", "a": [{"_miroir_shard": 1, "b": 2}],
            "filterableAttributes": [crate::disguise::settings_tag::tag_rule(), "x"], "list": ["_miroir_shard", "y"]});
        value(&mut said);
        assert_eq!(said, json!({"a": [{"b": 2}], "filterableAttributes": ["x"], "list": ["y"]}));
        let mut alone = json!([crate::disguise::settings_tag::tag_rule(), "genre"]);
        value(&mut alone);
        assert_eq!(alone, json!(["genre"]));
    }

    #[test]
    fn positions_are_the_clients() {
        assert_eq!(
            shift_position("at `.filterableAttributes[1].x`", ".filterableAttributes["),
            "at `.filterableAttributes[0].x`"
        );
        assert_eq!(
            shift_lines("Syntax error: expecting ';' (line 3, position 5)", 1),
            "Syntax error: expecting ';' (line 2, position 5)"
        );
        assert_eq!(shift_position("at `.other[1]`", ".filterableAttributes["), "at `.other[1]`");
    }
}
