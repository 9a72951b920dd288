//! Reads the bodies of requests. A body is read only after the request was authorized, and only up to the limit of its route.
//! Its bytes count towards the memory that the control plane holds for all bodies.

use super::authority::BodySize;
use crate::cluster::bodies::Bodies;
use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use miroir_core::{
    documents::payload_too_large,
    encoding::Encoding,
    error::{ApiError, Code},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest size of a small body, in bytes: an object with a few members, or a list of such objects.
const SMALL: u64 = 1 << 20;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many bytes are drained of a body that is not needed. A client that is still sending may not read its answer if the
/// connection is closed.
const DRAINED: usize = 16 << 20;

/// How long draining may take.
const DRAINED_IN: Duration = Duration::from_secs(10);

/// The number of bytes per permit of the semaphore.
const UNIT: u64 = 1024;

/// A complete body. The memory that it was charged for is released when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct BufferedBody {
    /// The bytes as the client sent them, or decoded if the encoding is known.
    pub bytes: Bytes,
    /// Whether the bytes have been decoded.
    pub is_decoded: bool,
    #[expect(dead_code, reason = "dropping it releases the memory")]
    room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Bodies {
    /// One body may have at most `largest` bytes, and all bodies together `room` bytes.
    #[must_use]
    pub fn new(largest: u64, room: u64) -> Self {
        let room = usize::try_from(room / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { largest, room: Arc::new(Semaphore::new(room)) }
    }

    /// Reads a body. `declared` is its `Content-Length`, `encoding` its `Content-Encoding`.
    ///
    /// # Errors
    /// 413 if the body, compressed or not, is larger than its route accepts; 503 if there is no memory left for it; 408 if it
    /// does not arrive in time.
    pub async fn read(
        &self,
        body: Body,
        size: BodySize,
        declared: Option<u64>,
        encoding: Option<&str>,
    ) -> Result<BufferedBody, ApiError> {
        let limit = match size {
            BodySize::None => {
                drain(body);
                return Ok(BufferedBody::default());
            }
            BodySize::Small => SMALL.min(self.largest),
            BodySize::Large => self.largest,
        };
        if declared.is_some_and(|length| length > limit) {
            drain(body);
            return Err(payload_too_large(limit));
        }
        let read = self.take(body, limit);
        let (bytes, mut room) = tokio::time::timeout(PATIENCE, read).await.map_err(|_| ApiError {
            status: 408,
            ..ApiError::new(Code::BAD_REQUEST, "The body of this request did not come in time.")
        })??;
        let Some(encoding) = Encoding::of(encoding) else { return Ok(whole(bytes, false, room)) };
        let mut decoded = Vec::new();
        let mut failure = None;
        let ended = encoding.decode(bytes.as_slice(), |chunk| {
            if (decoded.len() + chunk.len()) as u64 > limit {
                failure = Some(payload_too_large(limit));
            } else if let Err(error) = self.charge(&mut room, decoded.len() + chunk.len()) {
                failure = Some(error);
            } else {
                decoded.extend_from_slice(chunk);
            }
            failure.is_none()
        });
        match (failure, ended) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(whole(decoded, true, room)),
            // The body stays encoded: a node will say what is wrong with it.
            (None, Err(_)) => Ok(whole(bytes, false, room)),
        }
    }

    async fn take(
        &self,
        body: Body,
        limit: u64,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
        let (mut bytes, mut room) = (Vec::new(), None);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk
                .map_err(|_| ApiError::new(Code::BAD_REQUEST, "The body of this request is incomplete."))?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                drain(Body::from_stream(chunks));
                return Err(payload_too_large(limit));
            }
            if let Err(error) = self.charge(&mut room, bytes.len() + chunk.len()) {
                drain(Body::from_stream(chunks));
                return Err(error);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes, room))
    }

    /// Makes sure that `room` has permits for this many bytes.
    fn charge(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        let wanted = (bytes as u64).div_ceil(UNIT) as usize;
        let more = wanted.saturating_sub(room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return Ok(());
        }
        let full = || {
            ApiError::new(
                Code::UNAVAILABLE,
                "The control plane cannot hold more payloads now. Try again later.",
            )
        };
        let permits = u32::try_from(more).map_err(|_| full())?;
        let permit = Arc::clone(&self.room).try_acquire_many_owned(permits).map_err(|_| full())?;
        match room {
            Some(room) => room.merge(permit),
            None => *room = Some(permit),
        }
        Ok(())
    }
}

fn whole(bytes: Vec<u8>, is_decoded: bool, room: Option<OwnedSemaphorePermit>) -> BufferedBody {
    BufferedBody { bytes: bytes.into(), is_decoded, room: room.map(Arc::new) }
}

/// Reads and discards a body in the background, up to a limit.
pub fn drain(body: Body) {
    let drained = async move {
        let mut chunks = body.into_data_stream();
        let mut taken = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            taken += chunk.len();
            if taken > DRAINED {
                return;
            }
        }
    };
    tokio::spawn(tokio::time::timeout(DRAINED_IN, drained));
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn bodies_are_charged_as_received_and_as_decoded() {
        let bodies = Bodies::new(4 << 20, 6 << 20);
        let read = async |bytes: Vec<u8>, size, encoding: Option<&'static str>| {
            bodies.read(Body::from(bytes), size, None, encoding).await
        };
        let large = vec![b' '; 3 << 20];
        assert_eq!(read(large.clone(), BodySize::None, None).await.unwrap().bytes.len(), 0);
        assert_eq!(read(large.clone(), BodySize::Small, None).await.unwrap_err().status, 413);
        let first = read(large.clone(), BodySize::Large, None).await.unwrap();
        let packed = gzip(&large);
        let second = read(packed.clone(), BodySize::Large, Some("gzip")).await.unwrap();
        assert!(second.is_decoded && second.bytes.len() == large.len());
        assert_eq!(
            read(packed, BodySize::Large, Some("gzip")).await.unwrap_err().status,
            503,
            "no room for a third"
        );
        drop((first, second));
        assert!(read(large, BodySize::Large, None).await.is_ok(), "the room is free again");
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(read(bomb, BodySize::Large, Some("gzip")).await.unwrap_err().status, 413);
        let broken = read(b"no gzip".to_vec(), BodySize::Small, Some("gzip")).await.unwrap();
        assert!(!broken.is_decoded && *broken.bytes == *b"no gzip");
        drop(broken);
        let announced = bodies.read(Body::empty(), BodySize::Small, Some(2 << 20), None).await;
        assert_eq!(announced.unwrap_err().status, 413);
        assert_eq!(bodies.room.available_permits(), 6 << 10);
    }
}
