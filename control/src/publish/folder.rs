//! The folder that Envoys watch. Nobody else may write to it: a file that differs from what was published is written again.

use crate::base::{error::Result, files};
use serde::{Deserialize, Serialize};
use std::{
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often the files are checked.
const PERIOD: Duration = Duration::from_secs(1);

/// The folder, and the files that must be in it.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// The files' mode.
    mode: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Names and contents, in the order in which the files are written.
    files: Vec<(&'static str, Vec<u8>)>,
    status: FolderStatus,
}

/// The state of the published files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderStatus {
    /// Whether the last attempt to write the files failed.
    pub failing: bool,
    /// How often files were rewritten since the start, because one differed from what was published.
    pub mended: u64,
    /// The last problem; cleared by the next publication.
    pub trouble: Option<String>,
}

impl Folder {
    /// An existing folder, and the mode of the files in it.
    #[must_use]
    pub fn new(path: PathBuf, mode: u32) -> Self {
        Self { path, mode, state: Arc::default() }
    }

    /// Replaces the files, in this order.
    ///
    /// # Errors
    /// A file cannot be written; [`watch`] retries.
    pub fn publish(&self, files: Vec<(&'static str, Vec<u8>)>) -> Result<()> {
        let mut state = self.state();
        state.status.trouble = None;
        state.files = files;
        self.write(&mut state)
    }

    /// Writes all files again if one differs from what was published.
    pub fn check(&self) {
        let mut state = self.state();
        let found = state.files.iter().find_map(|(name, expected)| {
            let path = self.path.join(name);
            let what = match std::fs::read(&path) {
                Ok(content) if content == *expected => return None,
                Ok(content) => {
                    format!(
                        "has {} bytes, which differ from the {} bytes published",
                        content.len(),
                        expected.len()
                    )
                }
                Err(error) if error.kind() == ErrorKind::NotFound => "is gone".to_owned(),
                Err(error) => format!("cannot be read: {error}"),
            };
            Some(format!("{} {what}", path.display()))
        });
        let Some(what) = found else { return };
        if self.write(&mut state).is_ok() {
            state.status.mended += 1;
            tracing::error!("{what}: the files have been written again");
            state.status.trouble = Some(format!("{what}: the files have been written again"));
        }
    }

    /// The state of the files.
    #[must_use]
    pub fn status(&self) -> FolderStatus {
        self.state().status.clone()
    }

    fn write(&self, state: &mut State) -> Result<()> {
        let replace =
            |(name, content): &(&str, Vec<u8>)| files::replace_as(&self.path.join(name), content, self.mode);
        let written = state.files.iter().try_for_each(replace);
        if let Err(error) = &written {
            if !state.status.failing {
                tracing::error!(error = %error.chain(), "the topology cannot be published; the control plane retries");
            }
            state.status.trouble = Some(error.chain().to_string());
        }
        state.status.failing = written.is_err();
        written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the files periodically, and never returns.
pub async fn watch(folder: Folder) {
    loop {
        tokio::time::sleep(PERIOD).await;
        folder.check();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_not_as_it_was_published_is_written_again() {
        let there = tempfile::tempdir().unwrap();
        let folder = Folder::new(there.path().to_owned(), 0o640);
        folder.check();
        let files = || vec![("cds.json", b"clusters".to_vec()), ("ecds.json", b"filter".to_vec())];
        folder.publish(files()).unwrap();
        let mode = std::fs::metadata(there.path().join("ecds.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        folder.check();
        assert_eq!(folder.status(), FolderStatus::default());
        let path = there.path().join("ecds.json");
        for (number, content) in [Some("fil"), None, Some("else")].into_iter().enumerate() {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            folder.check();
            assert_eq!(std::fs::read(&path).unwrap(), b"filter");
            let status = folder.status();
            assert_eq!((status.failing, status.mended), (false, number as u64 + 1));
            assert!(status.trouble.unwrap().contains("ecds.json"));
        }
        // If a file cannot be written, the status says so, and the file is written as soon as that is possible.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(folder.publish(files()).is_err() && folder.status().failing);
        folder.check();
        assert!(folder.status().failing);
        std::fs::remove_dir_all(&path).unwrap();
        folder.check();
        assert!(!folder.status().failing && path.is_file());
        folder.publish(files()).unwrap();
        assert_eq!(folder.status().trouble, None);
    }
}
