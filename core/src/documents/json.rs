//! Scans JSON and NDJSON as they stream in.

use super::{
    Body, Entry, Format, PrimaryKey,
    fields::{FieldNames, Named, PLACE},
    preflight::PreflightDocuments,
};
use crate::{
    error::{ApiError, Code},
    json::Text,
    shard::{Shard, TAG_FIELD},
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, error::Category, value::RawValue};
use std::{borrow::Cow, fmt, io::Read};

/// The scanner's position between two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only white space so far.
    Start,
    /// After `[`.
    First,
    /// After a document in an array.
    Separator,
    /// After `,`.
    Next,
    /// Between the documents of NDJSON.
    Between,
    /// After a single object.
    End,
    /// After the array: Meilisearch's reader stops there and ignores what follows.
    Ignored,
    /// The payload is malformed: [`JsonScanner::finish`] determines the error, once the payload is complete.
    Broken,
}

/// Finds documents, and hashes their ids if the primary key is known and not nested.
#[derive(Debug)]
pub(super) struct JsonScanner {
    state: State,
    format: Format,
    primary_key: Option<PrimaryKey>,
    /// The bytes of the last segment that have been processed.
    settled: usize,
    /// Do not parse again before the segment has this many bytes, so that a large document is parsed a few times and not once
    /// per chunk.
    retry_at: usize,
    reserved: bool,
    doubtful: PreflightDocuments,
    names: FieldNames,
}

/// The results of a scan besides the documents.
#[derive(Debug)]
pub(super) struct Scanned {
    pub doubtful: PreflightDocuments,
    pub names: FieldNames,
}

impl JsonScanner {
    pub fn new(format: Format, primary_key: Option<PrimaryKey>) -> Self {
        let state = if format == Format::Ndjson { State::Between } else { State::Start };
        let primary_key = primary_key.filter(|key| !key.is_nested());
        Self {
            state,
            format,
            primary_key,
            settled: 0,
            retry_at: 0,
            reserved: false,
            doubtful: PreflightDocuments::default(),
            names: FieldNames::default(),
        }
    }

    /// Bytes that are held besides the payload, approximately.
    pub fn held(&self) -> u64 {
        self.names.held()
    }

    pub fn push(&mut self, chunk: &[u8], body: &mut Body, entries: &mut Vec<Entry>) {
        let before = self.settled;
        self.settled = body.push(chunk, self.settled);
        if self.settled < before {
            self.retry_at = self.retry_at.saturating_sub(before);
        }
        let (segment, bytes) = body.last();
        if matches!(self.state, State::Broken | State::Ignored) {
            self.settled = bytes.len();
        } else if bytes.len() >= self.retry_at {
            self.scan(segment, bytes, entries);
        }
    }

    /// Scans the rest; returns `None` if a document has the reserved field.
    pub fn finish(mut self, body: &Body, entries: &mut Vec<Entry>) -> Result<Option<Scanned>, ApiError> {
        let (segment, bytes) = body.last();
        if !matches!(self.state, State::Broken | State::Ignored) {
            self.scan(segment, bytes, entries);
        }
        let ended = matches!(self.state, State::End | State::Between) && self.settled == bytes.len();
        if ended || self.state == State::Ignored {
            let scanned = Scanned { doubtful: self.doubtful, names: self.names };
            return Ok(Some(scanned).filter(|_| !self.reserved));
        }
        Err(diagnose(self.format, body))
    }

    fn scan(&mut self, segment: u32, bytes: &[u8], entries: &mut Vec<Entry>) {
        loop {
            let rest = bytes.get(self.settled..).unwrap_or_default();
            self.settled +=
                rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
            let Some(&byte) = bytes.get(self.settled) else { return };
            self.state = match (self.state, byte) {
                (State::Start, b'[') => State::First,
                (State::First | State::Separator, b']') => State::Ignored,
                (State::Separator, b',') => State::Next,
                (State::Start | State::First | State::Next | State::Between, b'{') => {
                    match self.document(segment, bytes, entries.len()) {
                        Some(Ok(entry)) => {
                            entries.push(entry);
                            self.settled = entry.end as usize;
                            self.state = match self.state {
                                State::Start => State::End,
                                State::Between => State::Between,
                                _ => State::Separator,
                            };
                            continue;
                        }
                        Some(Err(())) => State::Broken,
                        None => return,
                    }
                }
                _ => State::Broken,
            };
            if matches!(self.state, State::Broken | State::Ignored) {
                return;
            }
            self.settled += 1;
        }
    }

    /// The document that starts at `settled`; `None` if it is not complete yet.
    fn document(&mut self, segment: u32, bytes: &[u8], position: usize) -> Option<Result<Entry, ()>> {
        let rest = bytes.get(self.settled..).unwrap_or_default();
        let mut reader = serde_json::Deserializer::from_slice(rest);
        let key = self.primary_key.as_ref().map(PrimaryKey::name);
        let found = DocumentSeed { key, names: &mut self.names }.deserialize(&mut reader);
        let length = reader.into_iter::<IgnoredAny>().byte_offset();
        match found {
            Ok(found) => {
                self.reserved |= found.reserved;
                self.retry_at = 0;
                let (Ok(start), Ok(end)) =
                    (u32::try_from(self.settled), u32::try_from(self.settled + length))
                else {
                    return Some(Err(()));
                };
                let id = found.id.map(|id| Shard::hash(&id));
                for (name, value) in found.doubtful {
                    if self.doubtful.look(position, &name, value).is_err() {
                        return Some(Err(()));
                    }
                }
                Some(Ok(Entry { segment, start, end, id }))
            }
            // The parser reports a raw number that is cut after its sign, point or `e` as invalid, not as unfinished.
            Err(error) if error.is_eof() || length >= rest.len() => {
                self.retry_at = self.settled + 2 * rest.len();
                None
            }
            Err(_) => Some(Err(())),
        }
    }
}

/// The results of one pass over a document.
struct Found<'de> {
    /// The primary key's value as text, if it is valid.
    id: Option<Cow<'de, str>>,
    reserved: bool,
    /// The fields that the preflight checks.
    doubtful: Vec<(Cow<'de, str>, &'de RawValue)>,
}

struct DocumentSeed<'a> {
    key: Option<&'a str>,
    names: &'a mut FieldNames,
}

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_> {
    type Value = Found<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found { id: None, reserved: false, doubtful: Vec::new() };
        let mut expected = 0;
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            if key == TAG_FIELD {
                found.reserved = true;
            }
            let node = self.names.child(0, &key, &mut expected);
            if Some(key.as_ref()) == self.key {
                // The last one wins if there are several, as in Meilisearch.
                let value: &'de RawValue = map.next_value()?;
                found.id = super::primary_key::id_text(value).ok();
                if found.id.is_none() {
                    // The brackets give the value the nesting depth that it has in its document.
                    let value = format!("[{}]", value.get());
                    read_named(&value, Named { names: &mut *self.names, node }).map_err(Error::custom)?;
                }
            } else if PreflightDocuments::concerns(&key) {
                let value: &'de RawValue = map.next_value()?;
                // Of the fields that the preflight checks, nodes register subfields only for `_geo`.
                if key == PLACE {
                    self.names.place(node);
                }
                found.doubtful.push((key, value));
            } else {
                map.next_value_seed(Named { names: &mut *self.names, node })?;
            }
        }
        Ok(found)
    }
}

fn read_named(value: &str, named: Named<'_>) -> serde_json::Result<()> {
    named.deserialize(&mut serde_json::Deserializer::from_str(value))
}

/// Parses a payload again as Meilisearch does, to report Meilisearch's own error.
///
/// Source: `meilisearch-types/src/document_formats.rs`, `read_json` and `read_ndjson`.
fn diagnose(format: Format, body: &Body) -> ApiError {
    let error = match format {
        Format::Ndjson => diagnose_ndjson(body.reader()),
        _ => diagnose_json(body),
    };
    error.map_or_else(
        || {
            ApiError::new(
                Code::MALFORMED_PAYLOAD,
                format!("The `{}` payload provided is malformed.", format.name()),
            )
        },
        |error| malformed(format, &error),
    )
}

fn diagnose_json(body: &Body) -> Option<serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(body.reader()));
    match reader.deserialize_seq(Elements) {
        Ok(found) => found,
        Err(error) if error.classify() == Category::Data => {
            serde_json::from_slice::<Map<String, Value>>(&body.concat()).err()
        }
        Err(error) => Some(error),
    }
}

fn diagnose_ndjson(body: impl Read) -> Option<serde_json::Error> {
    let reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(body));
    for value in reader.into_iter::<Box<RawValue>>() {
        let checked = value.and_then(|value| serde_json::from_str::<Map<String, Value>>(value.get()));
        if let Err(error) = checked {
            return Some(error);
        }
    }
    None
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Option<serde_json::Error>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a nonempty sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        while let Some(value) = sequence.next_element::<Box<RawValue>>()? {
            if let Err(error) = serde_json::from_str::<Map<String, Value>>(value.get()) {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }
}

/// Meilisearch's message for a payload that cannot be parsed; a long one is cut in the middle.
fn malformed(format: Format, error: &serde_json::Error) -> ApiError {
    const PREFIX: usize = 50;
    const SUFFIX: usize = 85;
    let mut message = match error.classify() {
        Category::Data => "data are neither an object nor a list of objects".to_owned(),
        _ => error.to_string(),
    };
    if message.len() > PREFIX + SUFFIX + 3 {
        let suffix = message.get(message.len() - SUFFIX..).unwrap_or_default();
        message = format!("{}...{suffix}", message.get(..PREFIX).unwrap_or_default());
    }
    ApiError::new(
        Code::MALFORMED_PAYLOAD,
        format!(
            "The `{}` payload provided is malformed. `Couldn't serialize document value: {message}`.",
            format.name()
        ),
    )
}
