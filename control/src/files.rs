//! Files that others read while they are written, or that hold secrets.

use crate::error::{Error, Result};
use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

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
