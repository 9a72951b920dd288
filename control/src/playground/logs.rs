//! Prints failures: processes that end unexpectedly, and errors from logs.

use super::supervisor::Supervisor;
use crate::base::output::warn_user;
use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Marks of a line that somebody should read: Envoy's, tracing's (of text and of JSON), Rust's.
const MARKS: [&str; 6] = ["[error]", "[critical]", " ERROR ", "\"level\":\"ERROR\"", "panicked at", "fatal"];

/// Watches processes and logs, and never returns.
pub async fn stream(supervisor: &Supervisor) {
    // Skip what is in the logs already.
    let mut read: HashMap<PathBuf, u64> = supervisor
        .logs()
        .into_values()
        .map(|path| {
            let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            (path, length)
        })
        .collect();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for process in supervisor.reap() {
            warn_user!(
                "{}: {} — `miroir playground start {}` starts it again",
                process.name,
                process.state,
                process.name
            );
        }
        for (name, path) in supervisor.logs() {
            let from = read.entry(path.clone()).or_insert(0);
            for line in new_lines(&path, from) {
                if MARKS.iter().any(|mark| line.contains(mark)) {
                    warn_user!("{name}: {line}");
                }
            }
        }
    }
}

/// The complete lines that were added since the last call.
fn new_lines(path: &Path, from: &mut u64) -> Vec<String> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(*from))?;
        file.take(1 << 20).read_to_end(&mut text)
    });
    if read.is_err() {
        return Vec::new();
    }
    let whole = match text.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        // A line that is longer than the buffer would never be complete.
        None if text.len() == 1 << 20 => text.len(),
        None => 0,
    };
    text.truncate(whole);
    *from += whole as u64;
    String::from_utf8_lossy(&text).lines().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut from = 0;
        std::fs::write(&path, "one\ntw").unwrap();
        assert_eq!(new_lines(&path, &mut from), ["one"]);
        assert!(new_lines(&path, &mut from).is_empty());
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(new_lines(&path, &mut from), ["two"]);
    }
}
