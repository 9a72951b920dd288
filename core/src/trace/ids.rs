//! The ids of traces and spans.

use std::fmt;

/// A trace's id: 128 bits that are not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// A span's id: 64 bits that are not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl TraceId {
    /// Makes an id from random bits.
    #[must_use]
    pub fn new(high: u64, low: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).max(1))
    }

    /// Parses 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let bits = digits(text, 32).and_then(|text| u128::from_str_radix(text, 16).ok())?;
        (bits != 0).then_some(Self(bits))
    }
}

impl SpanId {
    /// Makes an id from random bits.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self(bits.max(1))
    }

    /// Parses 16 hexadecimal digits in lower case.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let bits = digits(text, 16).and_then(|text| u64::from_str_radix(text, 16).ok())?;
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Parses two hexadecimal digits.
pub(super) fn byte(text: &str) -> Option<u8> {
    digits(text, 2).and_then(|text| u8::from_str_radix(text, 16).ok())
}

fn digits(text: &str, count: usize) -> Option<&str> {
    let are_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == count && are_digits).then_some(text)
}
