//! Overwrites the files that a control plane publishes to its Envoys.

use crate::{Sandbox, wait_until};
use std::path::PathBuf;

impl Sandbox {
    /// The path of a file that Envoy watches, such as `ecds.json`.
    #[must_use]
    pub fn published(&self, name: &str) -> PathBuf {
        self.data().join("xds").join(name)
    }

    /// Replaces a file again and again until Envoy has read it, because the control plane may restore its own file first.
    /// `what` names the condition for the error message.
    ///
    /// # Panics
    /// The file cannot be written, or Envoy does not read it.
    pub fn publish_instead(&self, name: &str, content: &[u8], what: &str, is_read: impl Fn() -> bool) {
        let file = self.published(name);
        let temporary = file.with_extension("theirs");
        wait_until(what, || {
            let is_read = is_read();
            if !is_read && std::fs::read(&file).ok().as_deref() != Some(content) {
                std::fs::write(&temporary, content).expect("a file");
                // Renamed into place, because Envoy watches for renames.
                std::fs::rename(&temporary, &file).expect("a folder");
            }
            is_read
        });
    }
}
