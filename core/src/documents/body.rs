//! A body in memory, in segments, so that it grows without being copied.

use super::Entry;
use std::io::{self, Read};

/// Bytes a segment is made for. A document never crosses a segment's end, so one segment can become larger.
const SEGMENT: usize = 1 << 20;

/// A client's bytes, unchanged.
#[derive(Clone, Debug, Default)]
pub struct Body {
    segments: Vec<Vec<u8>>,
    length: usize,
}

impl Body {
    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes. What lies before `settled` in the last segment may stay behind; the rest must stay in one piece
    /// with what comes. Gives where the first unsettled byte lies now, in the last segment.
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

    /// The segment that grows, and its position.
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

    /// Reads it from its start.
    #[must_use]
    pub fn reader(&self) -> impl Read + '_ {
        Segments { rest: &self.segments, offset: 0 }
    }

    /// The whole in one piece.
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
