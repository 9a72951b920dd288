//! Files that others read while they are written, or that hold secrets.

use crate::base::error::{Error, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{DirBuilder, File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The mode of files that nobody but their owner reads.
pub const PRIVATE: u32 = 0o600;

/// How long a folder's holder may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often its lock is tried in that time.
const ATTEMPTS: u32 = 50;

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
        let mut attempts = ATTEMPTS;
        let mut file = open().map_err(Error::file(&path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, Errno::EWOULDBLOCK)) if attempts > 0 => file = back,
                Err((_, Errno::EWOULDBLOCK)) => {
                    let folder = folder.display();
                    return Err(Error::Other(format!(
                        "another control plane uses {folder}: give each a folder of its own, and a cluster one control plane"
                    )));
                }
                Err((_, error)) => return Err(Error::file(&path)(error.into())),
            }
            attempts -= 1;
            tokio::time::sleep(patience / ATTEMPTS).await;
        }
    }
}

/// Makes a folder, and those above it, where it is missing: who may read files of this mode may enter it. One that is there keeps
/// its rights.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> Result<()> {
    // Whoever reads a folder has to enter it.
    let mode = mode | (mode & 0o444) >> 2;
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::file(path))
}

/// Gives a file, if it is there, to its owner only.
///
/// # Errors
/// Its rights cannot be changed.
pub fn make_private(path: &Path) -> Result<()> {
    match std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

/// Replaces a file by renaming, for its owner only: who reads it sees the old one or the new one, whole, after a crash of the
/// machine too.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    replace_as(path, content, PRIVATE)
}

/// Like [`replace`], with this mode, whatever the process' umask.
///
/// # Errors
/// It cannot be written.
pub fn replace_as(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let write = || {
        // An earlier one may have other rights.
        let _ = std::fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        // Else a crash could leave a name without its content.
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.map_or_else(|| PathBuf::from("."), Path::to_owned))?.sync_all()
    };
    write().map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_have_the_rights_that_are_asked_for_whatever_they_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!((mode(&path), std::fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
        replace_as(&path, b"newer", 0o644).unwrap();
        assert_eq!(mode(&path), 0o644);
        make_private(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        make_private(&folder.path().join("none")).unwrap();
        assert!(std::fs::read_dir(folder.path()).unwrap().count() == 1, "nothing is left over");
    }

    #[test]
    fn folders_are_entered_by_those_who_may_read_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        for (files, expected) in [(PRIVATE, 0o700), (0o640, 0o750)] {
            let path = folder.path().join(format!("{files}/below"));
            make_folder(&path, files).unwrap();
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (expected, expected));
        }
        // Whose folder it is has said who may enter it.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        make_folder(folder.path(), PRIVATE).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
    }

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
