//! What the control plane logs, over nodes that take everything.
#![allow(missing_docs, reason = "tests")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod support;

use miroir_control::base::log::{self, LogFormat};
use miroir_core::protocol::{COMMIT_PATH, NodeOutcome, NodeResult};
use serde_json::{Value, json};
use std::{fs, sync::Arc};
use support::{FakeNode, commit, control, enqueued};

#[tokio::test]
async fn all_lines_about_a_write_and_its_task_carry_its_uid() {
    let logged = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(logged.reopen().unwrap());
    let subscriber = log::subscriber(LogFormat::Json, false, writer);
    // The test's runtime has one thread, so that all of the control plane logs here but for its ledger.
    let _logging = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let missed = NodeResult { node: "n1".into(), outcome: NodeOutcome::Unknown };
    control.internal(COMMIT_PATH, &commit(uid, vec![taken, missed])).await;
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    let lines = fs::read_to_string(logged.path()).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_message = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("no line `{message}`: {lines:?}"))
    };
    for message in ["not every node accepted a write", "replicas missed a write"] {
        let spans = &of_message(message)["spans"];
        assert_eq!(*spans, json!([{"name": "write", "uid": uid, "index": "movies"}]), "{message}");
    }
    assert_eq!(of_message("ready")["spans"], Value::Null, "it is about no write");
}
