//! Payloads: reading one in pieces gives the same result as reading it whole, and the same documents as Meilisearch.

use crate::{Input, TAG};
use miroir_core::documents::{DocumentReader, Documents, Format, PrimaryKey};
use serde_json::{Map, Value, value::RawValue};

const LIMIT: u64 = 1 << 20;

/// Reads one payload whole, in pieces, and with serde alone.
///
/// # Panics
/// The results differ.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let format = input.of(&[Format::Json, Format::Ndjson, Format::Csv { delimiter: b',' }]);
    let cuts: Vec<usize> = (0..input.below(6)).map(|_| input.below(40)).collect();
    let key = input.of(&[Some("id"), Some("a.b"), None]);
    let payload = if input.one_in(8) { input.rest().to_vec() } else { payload(&mut input, format) };
    let whole = read(format, key, [payload.as_slice()]);
    let (mut pieces, mut rest) = (Vec::new(), payload.as_slice());
    // The same piece sizes are repeated, because small pieces find more errors.
    for cut in cuts.iter().cycle().take(10_000) {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    pieces.push(rest);
    let shown = || String::from_utf8_lossy(&payload).into_owned();
    let parts = read(format, key, pieces);
    assert_eq!(whole, parts, "{} in pieces of {cuts:?}", shown());
    let Some(expected) = expected(format, &payload) else { return };
    match (&whole.0, &expected) {
        (Ok(found), Ok(objects)) => {
            assert_eq!(*found, objects.len(), "{}", shown());
            if let Some(documents) = &whole.1 {
                assert_eq!(documents, objects, "{}", shown());
            }
        }
        (Err(_), Err(())) => {}
        (Err(message), Ok(objects)) => {
            let is_reserved = objects.iter().any(|object| object.contains_key(TAG));
            assert!(message.contains("reserved") == is_reserved, "{}: {message}", shown());
            assert!(is_reserved || payload.is_empty(), "{}: {message}", shown());
        }
        (Ok(_), Err(())) => panic!("a node refuses {}", shown()),
    }
}

/// The number of documents, or the error; and the documents without their tags, if their ids are valid.
type Read = (Result<usize, String>, Option<Vec<Map<String, Value>>>);

fn read<'a>(format: Format, key: Option<&str>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let key = key.map(PrimaryKey::new);
    let mut reader = DocumentReader::new(format, key.as_ref(), LIMIT);
    for piece in pieces {
        if let Err(error) = reader.push(piece) {
            return (Err(error.body.message), None);
        }
    }
    match reader.finish() {
        Ok(mut documents) => {
            let sent = documents.assign(&key.unwrap_or_else(|| PrimaryKey::new("id")), 64).is_ok();
            (Ok(documents.len()), sent.then(|| untagged(&documents)))
        }
        Err(refused) => (Err(refused.0.body.message), None),
    }
}

fn untagged(documents: &Documents) -> Vec<Map<String, Value>> {
    let sent = documents.tagged(1, |_| true);
    let sent: Vec<Box<RawValue>> = serde_json::from_slice(&sent).expect("requests to nodes are JSON");
    let sent = sent.iter().map(|raw| serde_json::from_str(raw.get()));
    let mut sent: Vec<Map<String, Value>> = sent.collect::<Result<_, _>>().expect("documents are objects");
    for document in &mut sent {
        assert!(document.shift_remove(TAG).is_some_and(|tag| tag.is_array()), "every document has its tag");
    }
    sent
}

/// The documents that a node would read; `None` if serde alone cannot tell.
fn expected(format: Format, payload: &[u8]) -> Option<Result<Vec<Map<String, Value>>, ()>> {
    let object = |raw: Box<RawValue>| serde_json::from_str::<Map<String, Value>>(raw.get()).map_err(drop);
    let mut values = serde_json::Deserializer::from_slice(payload).into_iter::<Box<RawValue>>();
    match format {
        Format::Csv { .. } => None,
        Format::Ndjson if payload.is_empty() => Some(Err(())),
        Format::Ndjson => Some(values.map(|value| object(value.map_err(drop)?)).collect()),
        Format::Json => {
            let Some(Ok(first)) = values.next() else { return Some(Err(())) };
            if first.get().starts_with('[') {
                // Whatever follows an array is ignored.
                let elements = serde_json::from_str::<Vec<Box<RawValue>>>(first.get()).map_err(drop);
                return Some(elements.and_then(|elements| elements.into_iter().map(object).collect()));
            }
            let only = serde_json::from_slice::<Map<String, Value>>(payload);
            Some(only.map(|only| vec![only]).map_err(drop))
        }
    }
}

fn payload(input: &mut Input<'_>, format: Format) -> Vec<u8> {
    let (mut text, count) = (String::new(), input.below(5));
    match format {
        Format::Json => {
            let is_list = !input.one_in(6);
            input.space(&mut text);
            text.push_str(if is_list { "[" } else { "" });
            for position in 0..if is_list { count } else { 1 } {
                text.push_str(if position > 0 { "," } else { "" });
                input.space(&mut text);
                document(input, &mut text);
                input.space(&mut text);
            }
            text.push_str(if is_list { "]" } else { "" });
            input.space(&mut text);
        }
        Format::Ndjson => {
            for _ in 0..count {
                document(input, &mut text);
                text.push_str(input.of(&["\n", "\r\n", "\n\n", " ", ""]));
            }
        }
        Format::Csv { .. } => {
            text.push_str(input.of(&["id", "id:number", "a:boolean,id", "id,id,b:string", "\"i,d\",x"]));
            for _ in 0..count {
                text.push_str(input.of(&["\n", "\r\n"]));
                text.push_str(input.of(&["1", "a,b", "true,2", "1,2,3", "\"a\n\"\"b\"", "\"x\",y", "é", ""]));
            }
        }
    }
    let mut payload = text.into_bytes();
    input.broken(&mut payload);
    payload
}

fn document(input: &mut Input<'_>, text: &mut String) {
    match input.below(24) {
        0 => text.push_str(r#"{"id":1,"_miroir_shard":",,,"}"#),
        1 => text.push_str(r#"{"id":1,"_miroir\u005fshard":0}"#),
        2 => {
            let depth = input.of(&[2, 120, 126, 127, 128, 130]);
            text.push_str(&format!("{{\"id\":7,\"deep\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
        }
        _ => input.object_text(3, text),
    }
}
