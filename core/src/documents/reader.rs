//! Reads a payload as it streams in, and returns its documents at the end.

use super::{
    Body, Documents, Entry, Format, PrimaryKey, csv,
    json::{JsonScanner, Scanned},
};
use crate::error::{ApiError, Code};

/// The fewest bytes of a document with an id and its separator: `{"a":1},`. The entry for each document takes more memory than
/// that.
const SHORTEST: u64 = 8;
/// As JSON, a CSV payload may have this many times the bytes of the payload limit: each row repeats the column names.
const TABLE: u64 = 4;

/// Reads one payload. Pass every chunk to [`Self::push`], then call [`Self::finish`].
///
/// JSON and NDJSON are scanned as they arrive. CSV is parsed once it is complete, as in Meilisearch. So is a payload with an
/// error, to get the same error message.
#[derive(Debug)]
pub struct DocumentReader {
    format: Format,
    documents: Documents,
    scanner: Option<JsonScanner>,
    limit: u64,
}

impl DocumentReader {
    /// A reader for this format. If `primary_key` is known from the start, ids are hashed during the scan. `limit` is the most
    /// bytes that a payload may have.
    #[must_use]
    pub fn new(format: Format, primary_key: Option<&PrimaryKey>, limit: u64) -> Self {
        let scanner = match format {
            Format::Json | Format::Ndjson => Some(JsonScanner::new(format, primary_key.cloned())),
            Format::Csv { .. } => None,
        };
        let documents = Documents { key: primary_key.cloned(), ..Documents::default() };
        Self { format, documents, scanner, limit }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// `payload_too_large` if the payload exceeds the limit; the reader cannot be used after that.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let length = self.documents.body.len() as u64 + chunk.len() as u64;
        if length > self.limit {
            return Err(payload_too_large(self.limit));
        }
        match &mut self.scanner {
            Some(scanner) => scanner.push(chunk, &mut self.documents.body, &mut self.documents.entries),
            None => {
                let settled = self.documents.body.last().1.len();
                self.documents.body.push(chunk, settled);
            }
        }
        if self.documents.entries.len() as u64 > self.limit / SHORTEST {
            return Err(payload_too_large(self.limit));
        }
        Ok(())
    }

    /// Bytes held besides the payload: the positions of documents and the names of fields.
    #[must_use]
    pub fn known(&self) -> u64 {
        let entries = (self.documents.entries.capacity() as u64).saturating_mul(size_of::<Entry>() as u64);
        entries.saturating_add(self.scanner.as_ref().map_or(0, JsonScanner::held))
    }

    /// Bytes of the payload received so far.
    #[must_use]
    pub fn held(&self) -> usize {
        self.documents.body.len()
    }

    /// Returns the documents, once the payload is complete.
    ///
    /// # Errors
    /// What Meilisearch refuses immediately, which is a payload that is missing or malformed; and the reserved field. The
    /// payload is returned with the error.
    pub fn finish(mut self) -> Result<Documents, Box<(ApiError, Body)>> {
        match self.read() {
            Ok(Some(documents)) => Ok(documents),
            Ok(None) => Ok(self.documents),
            Err(error) => Err(Box::new((error, self.documents.body))),
        }
    }

    /// `None` if the documents are parts of the payload itself.
    fn read(&mut self) -> Result<Option<Documents>, ApiError> {
        if self.documents.body.is_empty() {
            let message = format!("A {} payload is missing.", self.format.name());
            return Err(ApiError::new(Code::MISSING_PAYLOAD, message));
        }
        if let Format::Csv { delimiter } = self.format {
            return csv::read(&self.documents.body, delimiter, self.limit.saturating_mul(TABLE)).map(Some);
        }
        if let Some(scanner) = self.scanner.take() {
            let scanned = scanner.finish(&self.documents.body, &mut self.documents.entries)?;
            let Scanned { doubtful, names } = scanned.ok_or_else(ApiError::reserved_field)?;
            self.documents.doubtful = doubtful;
            self.documents.names = names;
        }
        Ok(None)
    }
}

/// Meilisearch's message. It writes the limit in the largest unit that fits, and in binary units if the limit is a multiple of
/// 1024.
///
/// Source: the crate `byte-unit`, `get_appropriate_unit`.
pub fn payload_too_large(limit: u64) -> ApiError {
    let (step, units) = if limit.is_multiple_of(1024) {
        (1024, ["B", "KiB", "MiB", "GiB", "TiB"])
    } else {
        (1000, ["B", "KB", "MB", "GB", "TB"])
    };
    let mut unit = 0;
    let mut scale = 1u64;
    while unit + 1 < units.len() && limit >= scale.saturating_mul(step) {
        scale = scale.saturating_mul(step);
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or("B");
    let amount = if limit.is_multiple_of(scale) {
        (limit / scale).to_string()
    } else {
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let amount = limit as f64 / scale as f64;
        amount.to_string()
    };
    ApiError::new(
        Code::PAYLOAD_TOO_LARGE,
        format!(
            "The provided payload reached the size limit. The maximum accepted payload size is {amount} {unit}."
        ),
    )
}
