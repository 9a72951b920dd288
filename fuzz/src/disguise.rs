//! Mentions of the tag by clients never reach a node, and come back as the clients wrote them.

use crate::{Input, TAG, mentions_tag};
use miroir_core::{path::ApiPath, scrub};
use serde_json::Value;

/// Disguises a body and a path.
///
/// # Panics
/// A node would see the tag, or the client would not see its own text.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut body = String::new();
    let names = input.below(4) + 1;
    body.push('{');
    for member in 0..names {
        if member > 0 {
            body.push(',');
        }
        let name = tagged(&mut input);
        input.string_text(&name, &mut body);
        body.push_str(": ");
        if input.one_in(3) {
            input.object_text(2, &mut body);
        } else {
            let text = tagged(&mut input);
            input.string_text(&text, &mut body);
        }
    }
    body.push('}');
    let mut body = body.into_bytes();
    input.broken(&mut body);
    let disguised = scrub::disguise(&body);
    let sent = disguised.as_ref().unwrap_or(&body);
    // Nodes refuse a body that is not JSON.
    if let Ok(read) = serde_json::from_slice::<Value>(sent) {
        let read = read.to_string();
        assert!(!mentions_tag(read.as_bytes()), "{} is sent as {read}", String::from_utf8_lossy(&body));
    }
    let is_plain = !body.contains(&b'\\') && !contains(&body, b"_miroir_5hard") && !contains(&body, b"_M");
    if let Some(disguised) = disguised.filter(|_| is_plain) {
        assert_eq!(String::from_utf8_lossy(&scrub::reveal(&disguised)), String::from_utf8_lossy(&body));
    }
    path(&mut input);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A text that may contain the tag's name.
fn tagged(input: &mut Input<'_>) -> String {
    match input.below(6) {
        0 => TAG.to_owned(),
        1 => format!("{TAG} = {}", input.text()),
        2 => format!("{}{TAG}", input.text()),
        3 => format!("{}*", &TAG[..input.below(TAG.len()) + 1]),
        4 => TAG.repeat(2),
        _ => input.text(),
    }
}

fn path(input: &mut Input<'_>) {
    let mut path = "/indexes/a/search?filter=".to_owned();
    let plain = tagged(input);
    for byte in plain.bytes() {
        let needs_escape = !(byte.is_ascii_alphanumeric() || b"_-.*~".contains(&byte));
        if needs_escape || input.one_in(4) {
            path.push_str(&if input.one_in(2) { format!("%{byte:02X}") } else { format!("%{byte:02x}") });
        } else {
            path.push(char::from(byte));
        }
    }
    let Ok(read) = ApiPath::parse(&path) else { panic!("{path} is no path") };
    let sent = scrub::disguise_path(&read).unwrap_or(read).to_string();
    assert!(!mentions_tag(&decoded(sent.as_bytes())), "{path} is sent as {sent}");
}

/// A query, decoded as nodes decode it.
fn decoded(path: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        match path[at..] {
            [b'%', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
                out.push((hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0)) as u8);
                at += 3;
            }
            [byte, ..] => {
                out.push(byte);
                at += 1;
            }
            [] => {}
        }
    }
    out
}
