//! The disks of nodes: what fills, empties and loses them.

use crate::Sandbox;
use std::{fs, sync::PoisonError};

impl Sandbox {
    /// Whether nodes have disks of their own, so that [`Self::fill_disk`] can fill them.
    #[must_use]
    pub fn has_disks(&self) -> bool {
        !self.disks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn mount_disk(&self, node: u16) {
        let disk = super::mount(self.options, &self.data(), node);
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).extend(disk);
    }

    fn disk(&self, node: &str, act: impl Fn(&super::Disk)) {
        let disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.iter().filter(|(name, _)| name == node).for_each(|(_, disk)| act(disk));
    }

    /// Fills the disk of a node: what it writes from now on fails.
    pub fn fill_disk(&self, node: &str) {
        self.disk(node, super::Disk::fill);
    }

    /// Makes room on the disk of a node.
    pub fn empty_disk(&self, node: &str) {
        self.disk(node, super::Disk::empty);
    }

    /// Deletes everything that a node has stored. The node must not run.
    ///
    /// # Panics
    /// Something cannot be deleted.
    pub fn lose_disk(&self, node: &str) {
        for entry in fs::read_dir(self.data().join("nodes").join(node)).expect("a node's folder").flatten() {
            let path = entry.path();
            let lost = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            lost.expect("it is deleted");
        }
    }
}
