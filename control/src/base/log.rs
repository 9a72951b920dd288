//! The log: its two forms, and the spans that say which write, task, move or operation a line belongs to.
//!
//! Spans have the level of errors, so that lines keep them at every level that `MIROIR_LOG` has for all modules.

use crate::base::random::{Random, SystemRandom};
use tracing::{Span, Subscriber, error_span};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text an event, for people
    #[default]
    Text,
    /// One JSON object an event, for collectors of logs
    Json,
}

/// Writes events to `writer`: those that the environment variable `MIROIR_LOG` asks for, else those from `info` up.
#[must_use]
pub fn subscriber<W>(format: LogFormat, is_terminal: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("MIROIR_LOG").unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_terminal)
        // It would be told by a macro that panics where nobody reads standard error.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(
            builder.json().flatten_event(true).with_current_span(false).with_span_list(true).finish(),
        ),
    }
}

/// The span of a write of documents. A begin learns its uid late: see [`learn_uid`].
#[must_use]
pub fn write_span(uid: Option<u32>, index: &str) -> Span {
    error_span!("write", uid, index)
}

/// The span of a client's task, other than a write that has not been committed.
#[must_use]
pub fn task_span(uid: Option<u32>, kind: Option<&str>, index: Option<&str>) -> Span {
    error_span!("task", uid, kind, index)
}

/// The span of what makes a node's replicas whole, or deletes old ones. Its uid is made here, since no ledger has one.
#[must_use]
pub fn move_span(node: &str) -> Span {
    error_span!("move", uid = short_uid(), node)
}

/// The span of an operator's change of the cluster's members or replicas. Its uid is made here, since no ledger has one.
#[must_use]
pub fn operation_span(operation: &str, node: Option<&str>) -> Span {
    error_span!("operation", uid = short_uid(), operation, node)
}

/// Gives the current span the uid that it has been made without.
pub fn learn_uid(uid: u32) {
    Span::current().record("uid", uid);
}

fn short_uid() -> String {
    let mut uid = SystemRandom.name();
    uid.truncate(8);
    uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Reply, Script, node};
    use serde_json::{Value, json};
    use std::{fs, sync::Arc};
    use tracing::Instrument;

    fn logged(format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let lines = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(lines.reopen().unwrap());
        tracing::subscriber::with_default(subscriber(format, false, writer), work);
        let text = fs::read_to_string(lines.path()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn json_lines(work: impl FnOnce()) -> Vec<Value> {
        let lines = logged(LogFormat::Json, work);
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_of_json_carry_their_spans_with_uids() {
        let lines = json_lines(|| {
            write_span(None, "movies").in_scope(|| {
                tracing::warn!(node = "a", "before the uid is known");
                learn_uid(7);
                task_span(Some(9), Some("settingsUpdate"), None).in_scope(|| tracing::info!("inside"));
            });
            move_span("b").in_scope(|| tracing::info!("moving"));
        });
        assert_eq!(lines[0]["spans"], json!([{"name": "write", "index": "movies"}]));
        assert_eq!((&lines[0]["level"], &lines[0]["node"]), (&json!("WARN"), &json!("a")));
        let spans = &lines[1]["spans"];
        assert_eq!((&spans[0]["name"], &spans[0]["uid"]), (&json!("write"), &json!(7)));
        assert_eq!(spans[1], json!({"name": "task", "uid": 9, "kind": "settingsUpdate"}));
        assert_eq!(lines[1]["message"], "inside");
        let moving = &lines[2]["spans"][0];
        assert_eq!((&moving["name"], &moving["node"]), (&json!("move"), &json!("b")));
        assert_eq!(moving["uid"].as_str().unwrap().len(), 8);
    }

    #[test]
    fn lines_of_text_name_uids_too() {
        let lines = logged(LogFormat::Text, || {
            write_span(Some(7), "movies").in_scope(|| tracing::warn!("late"));
        });
        assert!(
            lines[0].contains("write{uid=7 index=\"movies\"}: ") && lines[0].ends_with("late"),
            "{lines:?}"
        );
    }

    #[test]
    fn the_line_of_an_unreachable_node_names_the_cause() {
        let node = node("a", Script::new(|_| Reply::NoConnection));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lines = json_lines(|| {
            let asked = async {
                let error = node.settings("movies").await.unwrap_err();
                tracing::warn!(error = %error.chain(), "no answer");
            };
            runtime.block_on(asked.instrument(task_span(Some(3), Some("settingsUpdate"), Some("movies"))));
        });
        assert_eq!(lines[0]["error"], "node `a` did not answer: connection refused");
        assert_eq!(
            (&lines[0]["spans"][0]["uid"], &lines[0]["spans"][0]["index"]),
            (&json!(3), &json!("movies"))
        );
    }
}
