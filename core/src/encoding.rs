//! The `Content-Encoding`s of requests that Meilisearch accepts: `gzip`, `deflate` and `br`. Like Meilisearch, this module does
//! not decode any other encoding.
//!
//! Source: `actix-http` with the features that Meilisearch 1.50 enables.

use std::io::{self, BufRead, BufReader, Read};

/// The most bytes that are decoded in one step.
pub const CHUNK: usize = 64 << 10;

/// The first byte of a brotli stream whose window can be up to 1 GiB, which the decoder would allocate at once. RFC 7932 allows
/// at most 16 MiB.
const LARGE_WINDOW: u8 = 0x11;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952, one member.
    Gzip,
    /// RFC 1950, which HTTP calls `deflate`.
    Deflate,
    /// RFC 7932.
    Brotli,
}

impl Encoding {
    /// The encoding that a header names; `None` if the body is to be read as it is.
    #[must_use]
    pub fn of(header: Option<&str>) -> Option<Self> {
        match header?.trim().to_ascii_lowercase().as_str() {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            _ => None,
        }
    }

    /// Decodes a whole body, chunk by chunk, until `take` returns `false`.
    ///
    /// # Errors
    /// The body is not in this encoding, is truncated, or has bytes after its end.
    pub fn decode(self, body: impl Read, take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut body = BufReader::new(body);
        if self == Self::Brotli && body.fill_buf()?.first().is_some_and(|first| first & 0x7f == LARGE_WINDOW)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a window larger than RFC 7932 allows"));
        }
        let whole = match self {
            Self::Gzip => pump(flate2::bufread::GzDecoder::new(&mut body), take),
            Self::Deflate => pump(flate2::bufread::ZlibDecoder::new(&mut body), take),
            Self::Brotli => pump(brotli_decompressor::Decompressor::new(&mut body, CHUNK), take),
        }?;
        // Brotli's reader reads ahead, so bytes after the end cannot be detected. Meilisearch does not look at them either.
        if whole && self != Self::Brotli && !body.fill_buf()?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end"));
        }
        Ok(())
    }
}

/// Returns `false` if `take` wanted no more.
fn pump(mut decoder: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(read) => {
                if !take(chunk.get(..read).unwrap_or_default()) {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn decoded(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        encoding.decode(body, |chunk| {
            all.extend_from_slice(chunk);
            true
        })?;
        Ok(all)
    }

    #[test]
    fn what_meilisearch_takes_is_decoded() {
        let text = b"[{\"id\":1}]".repeat(20_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(decoded(Encoding::Gzip, &gzip).unwrap(), text);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        assert_eq!(decoded(Encoding::Deflate, &zlib.finish().unwrap()).unwrap(), text);
        // "[{"id":1}]", as the brotli command writes it.
        let brotli = [0x8b, 0x04, 0x80, 0x5b, 0x7b, 0x22, 0x69, 0x64, 0x22, 0x3a, 0x31, 0x7d, 0x5d, 0x03];
        assert_eq!(decoded(Encoding::Brotli, &brotli).unwrap(), b"[{\"id\":1}]");

        // An empty stream that declares a window of 2^30 bytes.
        assert!(decoded(Encoding::Brotli, &[0x11, 0x1e, 0x03]).is_err());

        assert!(decoded(Encoding::Gzip, b"xxxx").is_err());
        assert!(decoded(Encoding::Gzip, gzip.get(..gzip.len() - 6).unwrap()).is_err());
        assert!(decoded(Encoding::Gzip, &gzip.repeat(2)).is_err(), "one member only");
        let mut taken = 0;
        Encoding::Gzip
            .decode(&*gzip, |chunk| {
                taken += chunk.len();
                taken < 100_000
            })
            .unwrap();
        assert!(taken < text.len(), "decoding stops when there is enough");
    }

    #[test]
    fn names_as_actix_reads_them() {
        assert_eq!(Encoding::of(Some(" GZIP ")), Some(Encoding::Gzip));
        assert_eq!(Encoding::of(Some("br")), Some(Encoding::Brotli));
        for other in [None, Some("identity"), Some("zstd"), Some("gzip, br"), Some("x-gzip")] {
            assert_eq!(Encoding::of(other), None, "{other:?}");
        }
    }
}
