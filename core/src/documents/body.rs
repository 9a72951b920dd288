//! A body in memory, stored in segments so that it can grow without being copied.

use super::Entry;
use std::io::{self, Read};

/// The capacity of a new segment, in bytes. A document never crosses the end of a segment, so a segment can become larger.
const SEGMENT: usize = 1 << 20;

/// The client's bytes, unchanged.
#[derive(Clone, Debug, Default)]
pub struct Body {
    segments: Vec<Vec<u8>>,
    length: usize,
}

impl Body {
    /// Total number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends bytes. The bytes of the last segment before `settled` may stay in their segment; the bytes from there on must
    /// stay contiguous with the new ones. Returns the new position of the first unsettled byte in the last segment.
    pub fn push(&mut self, chunk: &[u8], settled: usize) -> usize {
        self.length += chunk.len();
        match self.segments.last_mut() {
            Some(last) if last.len() + chunk.len() <= SEGMENT || settled == 0 => {
                last.extend_from_slice(chunk);
                settled
            }
            Some(last) => {
                let rest = last.split_off(settled.min(last.len()));
                let mut segment = Vec::with_capacity(SEGMENT.max(rest.len() + chunk.len()));
                segment.extend_from_slice(&rest);
                segment.extend_from_slice(chunk);
                self.segments.push(segment);
                0
            }
            None => {
                let mut segment = Vec::with_capacity(SEGMENT.max(chunk.len()));
                segment.extend_from_slice(chunk);
                self.segments.push(segment);
                0
            }
        }
    }

    /// The segment that grows, with its position.
    #[must_use]
    pub fn last(&self) -> (u32, &[u8]) {
        let position = self.segments.len().saturating_sub(1);
        (u32::try_from(position).unwrap_or(u32::MAX), self.segments.last().map_or(&[], Vec::as_slice))
    }

    pub(super) fn slice(&self, entry: Entry) -> &[u8] {
        self.segments
            .get(entry.segment as usize)
            .and_then(|segment| segment.get(entry.start as usize..entry.end as usize))
            .unwrap_or_default()
    }

    /// Reads the body from its start.
    #[must_use]
    pub fn reader(&self) -> impl Read + '_ {
        Segments { rest: &self.segments, offset: 0 }
    }

    /// The whole body in one piece.
    #[must_use]
    pub fn concat(&self) -> Vec<u8> {
        self.segments.concat()
    }
}

struct Segments<'a> {
    rest: &'a [Vec<u8>],
    offset: usize,
}

impl Read for Segments<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((first, rest)) = self.rest.split_first() {
            let mut bytes = first.get(self.offset..).unwrap_or_default();
            let read = bytes.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                self.offset += read;
                return Ok(read);
            }
            self.rest = rest;
            self.offset = 0;
        }
        Ok(0)
    }
}
