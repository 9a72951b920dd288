//! `Content-Encoding`: what is compressed is decoded to the same bytes, in pieces of bounded size, and not beyond the limit.

use crate::Input;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use miroir_core::encoding::{CHUNK, Encoding};
use std::io::Write;

/// Decodes bytes in one encoding, completely and with a limit.
///
/// # Panics
/// A check fails.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let encoding = input.of(&[Encoding::Gzip, Encoding::Deflate, Encoding::Brotli]);
    if input.one_in(4) {
        let (_, pieces) = decode(encoding, input.rest(), usize::MAX);
        bounded(&pieces);
        return;
    }
    // The content is repeated, so that a small input decodes to a large one.
    let times = input.of(&[0, 1, 3, 1_000, 20_000]);
    let limit = input.of(&[0, 1, 1_000, CHUNK, CHUNK + 1, usize::MAX]);
    let change = input.below(4);
    let at = input.below(1 << 16);
    let seed = input.bytes(24);
    let content = seed.repeat(times);
    let mut packed = pack(encoding, &content);
    match change {
        0 if !packed.is_empty() => {
            let at = at % packed.len();
            packed.truncate(at);
        }
        1 if !packed.is_empty() => {
            let at = at % packed.len();
            packed[at] ^= 1 << (at % 8);
        }
        2 => packed.extend_from_slice(b"more"),
        _ => {}
    }
    let (result, pieces) = decode(encoding, &packed, limit);
    bounded(&pieces);
    let taken: usize = pieces.iter().map(Vec::len).sum();
    assert!(limit == usize::MAX || taken <= limit.saturating_add(CHUNK), "{taken} bytes for {limit}");
    if change == 3 {
        result.expect("compressed content is accepted");
        let taken = pieces.concat();
        assert_eq!(taken, content[..taken.len()]);
        assert!(taken.len() == content.len() || taken.len() >= limit, "{} of {}", taken.len(), content.len());
    } else if change == 2 && encoding != Encoding::Brotli && taken < limit {
        assert!(result.is_err(), "bytes after the end are an error");
    } else if change == 0 && taken < limit {
        assert!(result.is_err(), "a truncated body is an error");
    }
}

fn decode(encoding: Encoding, packed: &[u8], limit: usize) -> (std::io::Result<()>, Vec<Vec<u8>>) {
    let (mut pieces, mut taken) = (Vec::<Vec<u8>>::new(), 0);
    let result = encoding.decode(packed, |piece| {
        assert!(taken < limit || pieces.is_empty(), "decoding continues after the limit");
        taken += piece.len();
        pieces.push(piece.to_vec());
        taken < limit
    });
    (result, pieces)
}

fn bounded(pieces: &[Vec<u8>]) {
    assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= CHUNK));
}

fn pack(encoding: Encoding, content: &[u8]) -> Vec<u8> {
    let packed = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).and_then(|()| encoder.finish())
        }
        Encoding::Brotli => Ok(brotli(content)),
    };
    packed.expect("writing to memory succeeds")
}

/// Uncompressed content in Brotli's format (RFC 7932, 9.2): a window of 64 KiB, then blocks with `ISUNCOMPRESSED`.
fn brotli(content: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    // `WBITS`, one bit, only precedes the first block.
    let mut first = 1;
    for block in content.chunks(1 << 16) {
        // ISLAST 0, MNIBBLES 0 (4), MLEN - 1 in 16 bits, ISUNCOMPRESSED 1, and zeros up to the next byte.
        let header = ((block.len() as u32 - 1) << 3 | 1 << 19) << first;
        packed.extend_from_slice(&header.to_le_bytes()[..3]);
        packed.extend_from_slice(block);
        first = 0;
    }
    // ISLAST 1, ISLASTEMPTY 1.
    packed.push(3 << first);
    packed
}
