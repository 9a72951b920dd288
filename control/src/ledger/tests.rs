use super::*;
use std::{fs::Permissions, os::unix::fs::PermissionsExt};

#[tokio::test]
async fn nobody_else_reads_the_ledger_whatever_it_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let modes = || {
        let mode = |suffix: &str| {
            let metadata = std::fs::metadata(folder.path().join(format!("{FILE}{suffix}"))).unwrap();
            metadata.permissions().mode() & 0o777
        };
        ["", "-wal", "-shm"].map(mode)
    };
    let ledger = Ledger::open(folder.path()).unwrap();
    ledger.call(|connection| set_meta(connection, "a", "1")).await.unwrap();
    assert_eq!(modes(), [0o600; 3]);
    for suffix in ["", "-wal", "-shm"] {
        let path = folder.path().join(format!("{FILE}{suffix}"));
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }
    // The first ledger is still open, so SQLite keeps the log instead of creating a new one.
    let _second = Ledger::open(folder.path()).unwrap();
    assert_eq!(modes(), [0o600; 3]);
}

#[tokio::test]
async fn reads_see_what_was_written_and_hold_up_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let slow = ledger.read(move |connection| {
        let before = meta(connection, "a")?;
        wait.recv().unwrap();
        Ok((before, meta(connection, "a")?))
    });
    let writes = async {
        for number in 0..20 {
            let text = number.to_string();
            let stored = text.clone();
            ledger.call(move |connection| set_meta(connection, "a", &stored)).await.unwrap();
            let read = ledger.read(|connection| meta(connection, "a")).await.unwrap();
            assert_eq!(read, Some(text), "what a call has written is read");
        }
        go.send(()).unwrap();
    };
    let (slow, ()) = tokio::join!(slow, writes);
    let (first, last) = slow.unwrap();
    assert_eq!(first, last, "a read is of one moment");
    let written = ledger.read(|connection| set_meta(connection, "a", "x")).await;
    assert!(matches!(written, Err(Error::Ledger(_))), "{written:?}");
}

#[tokio::test]
async fn a_call_that_panics_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let good = ledger.call(|connection| set_meta(connection, "a", "1"));
    let bad = ledger.call(|connection| -> Result<()> {
        set_meta(connection, "b", "2")?;
        panic!("on purpose")
    });
    let (good, bad) = tokio::join!(good, bad);
    assert!(good.is_ok() && matches!(bad, Err(Error::Uncommitted)), "{bad:?}");
    let bad: Result<()> = ledger.read(|_| panic!("on purpose")).await;
    assert!(bad.is_err());
    let read = ledger.read(|connection| Ok((meta(connection, "a")?, meta(connection, "b")?)));
    assert_eq!(read.await.unwrap(), (Some("1".to_owned()), None));
}

/// A call that needs more room than there is.
async fn large(ledger: &Ledger) -> Result<()> {
    ledger.call(|connection| set_meta(connection, "large", &"x".repeat(1 << 20))).await
}

#[tokio::test]
async fn a_full_disk_is_told_as_meilisearch_tells_it_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let pages = |number: u32| {
        move |connection: &Connection| {
            Ok(connection
                .pragma_update_and_check(None, "max_page_count", number, |row| row.get::<_, u32>(0))?)
        }
    };
    assert!(!ledger.is_failing());
    ledger.call(pages(1)).await.unwrap();
    let error = large(&ledger).await.unwrap_err().to_api();
    assert_eq!((error.status, error.body.code.as_str()), (422, "no_space_left_on_device"));
    assert!(ledger.is_failing() && ledger.failures() == 1);
    // What writes nothing says nothing about the disk.
    ledger.call(|connection| meta(connection, "a")).await.unwrap();
    assert!(ledger.is_failing());
    ledger.call(pages(1 << 20)).await.unwrap();
    ledger.probe(7).await.unwrap();
    assert!(!ledger.is_failing());
    large(&ledger).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_committed_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let impatient = |connection: &Connection| Ok(connection.busy_timeout(std::time::Duration::ZERO)?);
    ledger.call(impatient).await.unwrap();
    let other = Connection::open(folder.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = ledger.call(|connection| set_meta(connection, "a", "1")).await;
    assert!(matches!(failed, Err(Error::Uncommitted)), "{failed:?}");
    assert!(ledger.is_failing());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.call(|connection| meta(connection, "a")).await.unwrap(), None);
    ledger.call(|connection| set_meta(connection, "a", "2")).await.unwrap();
    assert!(!ledger.is_failing());
}

#[tokio::test]
async fn an_error_of_a_client_is_none_of_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let refused: Result<()> = ledger.call(|_| Err(Error::NoNode)).await;
    assert!(refused.is_err() && !ledger.is_failing() && ledger.failures() == 0);
    let broken = |connection: &Connection| Ok(connection.execute_batch("SELECT secret FROM tasks")?);
    let error = ledger.call(broken).await.unwrap_err();
    assert!(!ledger.is_failing() && ledger.failures() == 1, "a statement is wrong, not the disk");
    assert!(error.chain().to_string().contains("secret"), "the log says it: {}", error.chain());
    for told in [error.to_string(), error.to_api().body.message] {
        assert!(!told.contains("secret") && !told.contains("SELECT"), "{told}");
    }
}

#[tokio::test]
async fn a_failed_call_undoes_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let good = ledger.call(|connection| set_meta(connection, "a", "1"));
    let bad = ledger.call(|connection| {
        set_meta(connection, "b", "2")?;
        Err::<(), _>(Error::NoNode)
    });
    let (good, bad) = tokio::join!(good, bad);
    assert!(good.is_ok() && bad.is_err());
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    let read = ledger.call(|connection| Ok((meta(connection, "a")?, meta(connection, "b")?))).await.unwrap();
    assert_eq!(read, (Some("1".to_owned()), None));
}
