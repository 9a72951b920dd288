//! A small disk, which can be filled.

use crate::tell;
use nix::errno::Errno;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// A file system in memory with little room. It is unmounted when this value is dropped.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts a disk at a new folder; `None` where mounting is not permitted.
    ///
    /// # Panics
    /// The folder cannot be made, or mounting fails for another reason.
    pub(crate) fn mount(folder: &Path, mebibytes: u64) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        match mount(folder, &format!("size={mebibytes}m,mode=700")) {
            Ok(()) => Some(Self(folder.to_owned())),
            Err(Errno::EPERM | Errno::EACCES | Errno::ENODEV | Errno::ENOTSUP) => None,
            Err(error) => panic!("{}: {error}", folder.display()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// The file that fills it cannot be made.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        let block = vec![0; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            if file.write_all(&block[..size]).is_err() {
                size /= 2;
            }
        }
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        // It may not have been filled, or may have been lost meanwhile.
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0) {
            tell!("{}: {error}", self.0.display());
        }
    }
}

#[cfg(target_os = "linux")]
fn mount(folder: &Path, options: &str) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), Some(options))
}

#[cfg(target_os = "linux")]
fn unmount(folder: &Path) -> nix::Result<()> {
    use nix::mount::{MntFlags, umount2};
    // Processes that were killed may not have closed their files yet.
    umount2(folder, MntFlags::MNT_DETACH)
}

#[cfg(not(target_os = "linux"))]
fn mount(_: &Path, _: &str) -> nix::Result<()> {
    Err(Errno::ENOTSUP)
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) -> nix::Result<()> {
    Ok(())
}
