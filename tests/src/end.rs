//! The end of what threads of a test do.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that it is over when this value goes, however the test ends.
#[derive(Debug)]
pub struct End<'a>(pub &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
