//! Files that others read while they are written, or that hold secrets.

use crate::error::{Error, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::File,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// How long a folder's holder may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A folder that this process alone writes, until this is dropped or the process ends, however it does.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "its lock goes with it")] Flock<File>);

impl Claim {
    /// Claims a folder. One that another process is about to leave is waited for.
    ///
    /// # Errors
    /// Another process has it, or its lock cannot be written.
    pub async fn of(folder: &Path) -> Result<Self> {
        Self::within(folder, PATIENCE).await
    }

    async fn within(folder: &Path, patience: Duration) -> Result<Self> {
        let path = folder.join("lock");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let begun = Instant::now();
        let mut file = open().map_err(Error::file(&path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, Errno::EWOULDBLOCK)) if begun.elapsed() < patience => file = back,
                Err((_, Errno::EWOULDBLOCK)) => {
                    let folder = folder.display();
                    return Err(Error::Other(format!(
                        "another control plane uses {folder}: give each a folder of its own, and a cluster one control plane"
                    )));
                }
                Err((_, error)) => return Err(Error::file(&path)(error.into())),
            }
            tokio::time::sleep(patience / 50).await;
        }
    }
}

/// Replaces a file by renaming, for its owner only: who reads it sees the old one or the new one, whole.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let write = || {
        // An earlier one may have other rights.
        let _ = std::fs::remove_file(&temporary);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::of(folder.path()).await.unwrap();
        let second = Claim::within(folder.path(), Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(second.starts_with("another control plane uses"), "{second}");
        drop(first);
        Claim::of(folder.path()).await.unwrap();
    }
}
