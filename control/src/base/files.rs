//! Files that other processes read while they are being replaced, and files that hold secrets.

use crate::base::error::{Error, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{DirBuilder, File, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The mode of files that only their owner may read.
pub const PRIVATE: u32 = 0o600;

/// How long to wait for another process to release a folder.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often its lock is tried in that time.
const ATTEMPTS: u32 = 50;

/// An exclusive claim on a folder. It ends when this is dropped, or when the process ends, even by a crash.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "its lock goes with it")] Flock<File>);

impl Claim {
    /// Claims a folder. Waits a few seconds for another process that is about to release it.
    ///
    /// # Errors
    /// Another process holds the folder, or the lock file cannot be written.
    pub async fn of(folder: &Path) -> Result<Self> {
        Self::within(folder, PATIENCE).await
    }

    async fn within(folder: &Path, patience: Duration) -> Result<Self> {
        let path = lock_of(folder);
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
                        "another control plane uses {folder}: give each control plane its own folder, and run one control plane per cluster"
                    )));
                }
                Err((_, error)) => return Err(Error::file(&path)(error.into())),
            }
            attempts -= 1;
            tokio::time::sleep(patience / ATTEMPTS).await;
        }
    }
}

/// Where these files of a claimed folder are: whoever finds them at the same place has the claim that another process had on the folder,
/// so that this one has ended. A copy of a file is at another place, and so is everything after the machine's next boot, because a disk can
/// be copied while the machine is off. `None` where the operating system does not tell its boots apart.
#[must_use]
pub fn place(files: &[&Path]) -> Option<String> {
    let mut place = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    for file in files {
        let file = std::fs::metadata(file).map_or((0, 0), |file| (file.dev(), file.ino()));
        place.push_str(&format!(" {}:{}", file.0, file.1));
    }
    Some(place)
}

/// The lock file of a folder.
#[must_use]
pub fn lock_of(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// Creates a folder and its parents if they do not exist. `mode` is the mode of the files in it: whoever may read them may
/// enter the folder. An existing folder keeps its mode.
///
/// # Errors
/// The folder cannot be created.
pub fn make_folder(path: &Path, mode: u32) -> Result<()> {
    // Every read bit also sets the execute bit: reading files in a folder needs the right to enter it.
    let mode = mode | (mode & 0o444) >> 2;
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::file(path))
}

/// Makes a file readable and writable by its owner only, if the file exists.
///
/// # Errors
/// The file's mode cannot be changed.
pub fn make_private(path: &Path) -> Result<()> {
    match std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

/// Replaces a file by renaming, with the mode [`PRIVATE`]. A reader sees either the whole old file or the whole new one, even
/// after a crash of the machine.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    replace_as(path, content, PRIVATE)
}

/// Like [`replace`], but with this mode. The process's umask does not change it.
///
/// # Errors
/// It cannot be written.
pub fn replace_as(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let write = || {
        // A temporary file that an earlier attempt left may have another mode.
        let _ = std::fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        // Without this, a crash could leave a file that has the new name but not its content.
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
        // An existing folder keeps the mode that its owner chose.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        make_folder(folder.path(), PRIVATE).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
    }

    #[test]
    fn a_copy_is_at_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let [file, copy] = ["file", "copy"].map(|name| folder.path().join(name));
        std::fs::write(&file, "1").unwrap();
        let before = place(&[&file, &lock_of(folder.path())]);
        std::fs::write(&file, "2").unwrap();
        std::fs::copy(&file, &copy).unwrap();
        assert_eq!(place(&[&file, &lock_of(folder.path())]), before);
        assert_ne!(place(&[&copy, &lock_of(folder.path())]), before);
        std::fs::write(lock_of(folder.path()), "").unwrap();
        assert_ne!(place(&[&file, &lock_of(folder.path())]), before, "another claim");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::of(folder.path()).await.unwrap();
        let second = Claim::within(folder.path(), Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(second.starts_with("another control plane uses"), "{second}");
        drop(first);
        Claim::of(folder.path()).await.unwrap();
    }
}
