//! Converts CSV into JSON documents as Meilisearch does.
//!
//! Source: `meilisearch-types/src/document_formats.rs`, `read_csv`: a header `name:number` or `name:boolean` sets its column's
//! type, an empty field is null, everything else is text.

use super::{Body, Documents, Entry, fields::PLACE, preflight::PreflightDocuments};
use crate::{
    error::{ApiError, Code},
    json::to_bytes,
    shard::TAG_FIELD,
};
use serde_json::{Map, Value};

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Boolean,
}

fn typed_header(header: &str) -> (&str, Kind) {
    match header.rsplit_once(':') {
        Some((name, "string")) => (name, Kind::Text),
        Some((name, "number")) => (name, Kind::Number),
        Some((name, "boolean")) => (name, Kind::Boolean),
        _ => (header, Kind::Text),
    }
}

/// Reads a table; `limit` is the most bytes that it may have as JSON.
pub(super) fn read(body: &Body, delimiter: u8, limit: u64) -> Result<Documents, ApiError> {
    let mut reader = ::csv::ReaderBuilder::new().delimiter(delimiter).from_reader(body.reader());
    let headers = reader.headers().map_err(|error| malformed(&error))?.clone();
    let columns: Vec<(&str, Kind)> = headers.iter().map(typed_header).collect();
    if columns.iter().any(|(name, _)| *name == TAG_FIELD) {
        return Err(ApiError::reserved_field());
    }
    let mut documents = Documents::default();
    let mut record = ::csv::StringRecord::new();
    let mut line = 0usize;
    let mut settled = 0;
    while reader.read_record(&mut record).map_err(|error| malformed(&error))? {
        line += 1;
        // Columns with the same name become one field, with the first one's place and the last one's value.
        let mut object = Map::with_capacity(columns.len());
        for ((name, kind), field) in columns.iter().zip(&record) {
            object.insert((*name).to_owned(), value(field, *kind, line)?);
        }
        let mut expected = 0;
        for name in object.keys() {
            let node = documents.names.child(0, name, &mut expected);
            if name == PLACE {
                documents.names.place(node);
            }
        }
        for (name, value) in object.iter().filter(|(name, _)| PreflightDocuments::concerns(name)) {
            let looked = serde_json::value::to_raw_value(value)
                .and_then(|value| documents.doubtful.look(documents.entries.len(), name, &value));
            looked.map_err(|error| malformed(&error))?;
        }
        let document = to_bytes(&object);
        let start = documents.body.push(&document, settled);
        let (segment, bytes) = documents.body.last();
        settled = bytes.len();
        if documents.body.len() as u64 > limit {
            let message = format!("The CSV payload has more than {limit} bytes as JSON. Send it in parts.");
            return Err(ApiError::new(Code::PAYLOAD_TOO_LARGE, message));
        }
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(settled)) else {
            return Err(ApiError::new(Code::INTERNAL, "a CSV record has more than 4 GiB"));
        };
        documents.entries.push(Entry { segment, start, end, id: None });
    }
    Ok(documents)
}

fn value(field: &str, kind: Kind, line: usize) -> Result<Value, ApiError> {
    let trimmed = field.trim();
    match kind {
        Kind::Text if field.is_empty() => Ok(Value::Null),
        Kind::Text => Ok(Value::from(field)),
        Kind::Number | Kind::Boolean if trimmed.is_empty() => Ok(Value::Null),
        Kind::Number => match trimmed.parse::<i64>() {
            Ok(integer) => Ok(Value::from(integer)),
            Err(_) => trimmed.parse::<f64>().map(Value::from).map_err(|error| {
                malformed(&format!("Error parsing number {field:?} at line {line}: {error}"))
            }),
        },
        Kind::Boolean => trimmed
            .parse::<bool>()
            .map(Value::from)
            .map_err(|error| malformed(&format!("Error parsing boolean {field:?} at line {line}: {error}"))),
    }
}

fn malformed(error: &impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::MALFORMED_PAYLOAD, format!("The `csv` payload provided is malformed: `{error}`."))
}
