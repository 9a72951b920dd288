//! Reads payloads of documents, which are JSON, NDJSON or CSV, and converts them into a sequence of JSON objects.

use mime::Mime;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{ApiError, Code, Result};

/// The format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Json,
    Ndjson,
    Csv { delimiter: u8 },
}

const ACCEPTED: &str = "`application/json`, `application/x-ndjson`, `text/csv`";

impl Format {
    /// The format from the headers and parameters of a request.
    pub fn of_request(content_type: Option<&str>, delimiter: Option<u8>) -> Result<Self> {
        let Some(content_type) = content_type else {
            let message = format!(
                "A Content-Type header is missing. Accepted values for the Content-Type header are: {ACCEPTED}"
            );
            return Err(ApiError::new(Code::MissingContentType, message));
        };
        let mime: Option<Mime> = content_type.parse().ok();
        // A suffix of the media type is ignored.
        let essence = mime.map(|mime| format!("{}/{}", mime.type_(), mime.subtype()));
        let essence = essence.unwrap_or_else(|| content_type.to_owned());
        match (essence.as_str(), delimiter) {
            ("application/json", None) => Ok(Self::Json),
            ("application/x-ndjson", None) => Ok(Self::Ndjson),
            ("text/csv", delimiter) => Ok(Self::Csv { delimiter: delimiter.unwrap_or(b',') }),
            ("application/json" | "application/x-ndjson", Some(_)) => Err(ApiError::new(
                Code::InvalidContentType,
                format!(
                    "The Content-Type `{essence}` does not support the use of a csv delimiter. The csv delimiter can \
                     only be used with the Content-Type `text/csv`."
                ),
            )),
            _ => Err(ApiError::new(
                Code::InvalidContentType,
                format!(
                    "The Content-Type `{essence}` is invalid. Accepted values for the Content-Type header are: {ACCEPTED}"
                ),
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv { .. } => "csv",
        }
    }

    /// Reads a payload. Returns the documents, one after the other, and their number.
    pub fn read(self, payload: &[u8]) -> Result<(Vec<u8>, u64)> {
        if payload.is_empty() {
            return Err(ApiError::new(
                Code::MissingPayload,
                format!("A {} payload is missing.", self.name()),
            ));
        }
        match self {
            Self::Json => read_json(payload).map_err(|error| self.malformed_json(&error)),
            Self::Ndjson => read_ndjson(payload).map_err(|error| self.malformed_json(&error)),
            Self::Csv { delimiter } => read_csv(payload, delimiter).map_err(|what| {
                let message = format!("The `csv` payload provided is malformed: `{what}`.");
                ApiError::new(Code::MalformedPayload, message)
            }),
        }
    }

    fn malformed_json(self, error: &Malformed) -> ApiError {
        let error = match error {
            // Meilisearch reports this as an internal error, and clients may depend on that.
            Malformed::NotAnObject(error) => return ApiError::internal(error),
            Malformed::Payload(error) => error,
        };
        const KEPT: (usize, usize) = (50, 85);
        let mut message = if error.is_data() {
            "data are neither an object nor a list of objects".to_string()
        } else {
            error.to_string()
        };
        if message.len() > KEPT.0 + KEPT.1 + 3
            && message.is_char_boundary(KEPT.0)
            && message.is_char_boundary(message.len() - KEPT.1)
        {
            message.replace_range(KEPT.0..message.len() - KEPT.1, "...");
        }
        let name = self.name();
        let message = format!(
            "The `{name}` payload provided is malformed. `Couldn't serialize document value: {message}`."
        );
        ApiError::new(Code::MalformedPayload, message)
    }
}

/// What is wrong with a JSON payload.
enum Malformed {
    /// It is not JSON, or neither a list nor an object.
    Payload(serde_json::Error),
    /// One of its documents is not an object.
    NotAnObject(serde_json::Error),
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self::Payload(error)
    }
}

/// Checks that a document is an object; its values stay as they are.
fn check_object(raw: &RawValue) -> std::result::Result<(), Malformed> {
    type Fields = std::collections::HashMap<String, IgnoredAny>;
    serde_json::from_str::<Fields>(raw.get()).map(drop).map_err(Malformed::NotAnObject)
}

fn read_json(payload: &[u8]) -> std::result::Result<(Vec<u8>, u64), Malformed> {
    let mut written = Vec::with_capacity(payload.len());
    let mut count = 0;
    // Anything after the list is ignored.
    let mut reader = serde_json::Deserializer::from_slice(payload);
    let documents: Vec<&RawValue> = match serde::Deserialize::deserialize(&mut reader) {
        Ok(documents) => documents,
        Err(error) if error.is_data() => {
            let single: &RawValue = serde_json::from_slice(payload)?;
            return match check_object(single) {
                Ok(()) => Ok((single.get().as_bytes().to_vec(), 1)),
                Err(Malformed::NotAnObject(error) | Malformed::Payload(error)) => {
                    Err(Malformed::Payload(error))
                }
            };
        }
        Err(error) => return Err(error.into()),
    };
    for document in documents {
        check_object(document)?;
        written.extend_from_slice(document.get().as_bytes());
        count += 1;
    }
    Ok((written, count))
}

fn read_ndjson(payload: &[u8]) -> std::result::Result<(Vec<u8>, u64), Malformed> {
    let mut count = 0;
    for document in serde_json::Deserializer::from_slice(payload).into_iter::<&RawValue>() {
        check_object(document?)?;
        count += 1;
    }
    Ok((payload.to_vec(), count))
}

#[derive(Clone, Copy)]
enum Column {
    Text,
    Boolean,
    Number,
}

fn read_csv(payload: &[u8], delimiter: u8) -> std::result::Result<(Vec<u8>, u64), String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(payload);
    let headers = reader.headers().map_err(|error| error.to_string())?.clone();
    let columns: Vec<(&str, Column)> = headers
        .iter()
        .map(|header| match header.rsplit_once(':') {
            Some((name, "string")) => (name, Column::Text),
            Some((name, "boolean")) => (name, Column::Boolean),
            Some((name, "number")) => (name, Column::Number),
            _ => (header, Column::Text),
        })
        .collect();
    let mut written = Vec::with_capacity(payload.len() * 2);
    let mut count = 0;
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        count += 1;
        let mut document = Map::new();
        for (field, (name, column)) in record.iter().zip(&columns) {
            document.insert((*name).to_string(), cell(field, *column, count)?);
        }
        serde_json::to_writer(&mut written, &document).map_err(|error| error.to_string())?;
    }
    Ok((written, count))
}

fn cell(field: &str, column: Column, line: u64) -> std::result::Result<Value, String> {
    let trimmed = field.trim();
    match column {
        Column::Text if field.is_empty() => Ok(Value::Null),
        Column::Text => Ok(Value::from(field)),
        _ if trimmed.is_empty() => Ok(Value::Null),
        Column::Boolean => trimmed
            .parse::<bool>()
            .map(Value::from)
            .map_err(|error| format!("Error parsing boolean {field:?} at line {line}: {error}")),
        Column::Number => match trimmed.parse::<i64>() {
            Ok(integer) => Ok(Value::from(integer)),
            Err(_) => trimmed
                .parse::<f64>()
                .map(Value::from)
                .map_err(|error| format!("Error parsing number {field:?} at line {line}: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_formats() {
        assert_eq!(Format::Json.read(b"[{\"a\":1},{\"a\": 2}]").unwrap().1, 2);
        assert_eq!(Format::Json.read(b"{\"a\":1}").unwrap(), (b"{\"a\":1}".to_vec(), 1));
        assert_eq!(Format::Ndjson.read(b"{\"a\":1}\n{\"a\":2}\n").unwrap().1, 2);
        let (documents, count) =
            Format::Csv { delimiter: b';' }.read(b"id:number;b:boolean;c\n1;true;x\n2;;\n").unwrap();
        let text = String::from_utf8(documents).unwrap();
        assert_eq!((text.as_str(), count), (r#"{"id":1,"b":true,"c":"x"}{"id":2,"b":null,"c":null}"#, 2));
    }

    #[test]
    fn refuses_what_is_malformed_as_meilisearch_does() {
        let error = Format::Json.read(b"[{\"a\":1},").unwrap_err();
        assert_eq!(
            error.message,
            "The `json` payload provided is malformed. `Couldn't serialize document value: EOF while parsing a value at line 1 column 9`."
        );
        assert_eq!(Format::Json.read(b"[1]").unwrap_err().code, "internal");
        let error = Format::Json.read(b"3").unwrap_err();
        assert!(error.message.contains("data are neither an object nor a list of objects"));
        assert_eq!(Format::Ndjson.read(b"").unwrap_err().message, "A ndjson payload is missing.");
        let error = Format::of_request(Some("text/plain"), None).unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("invalid_content_type", 415));
        assert_eq!(Format::of_request(None, None).unwrap_err().code, "missing_content_type");
    }
}
