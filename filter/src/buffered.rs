//! How much of clients' bodies this worker holds: a bound on its memory.

use std::collections::HashMap;

/// Bytes held, by stream.
#[derive(Default)]
pub struct Buffered {
    streams: HashMap<u32, u64>,
    total: u64,
}

impl Buffered {
    /// A stream holds this many bytes now, or announces them; `false`, and nothing is changed, where that would be over
    /// the limit in all.
    pub fn hold(&mut self, stream: u32, bytes: u64, limit: u64) -> bool {
        let before = self.streams.get(&stream).copied().unwrap_or(0);
        if bytes <= before {
            return true;
        }
        let total = self.total.saturating_sub(before).saturating_add(bytes);
        if total > limit {
            return false;
        }
        self.total = total;
        self.streams.insert(stream, bytes);
        true
    }

    /// A stream's body is let go.
    pub fn release(&mut self, stream: u32) {
        if let Some(bytes) = self.streams.remove(&stream) {
            self.total = self.total.saturating_sub(bytes);
        }
    }
}
