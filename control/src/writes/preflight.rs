//! Preflight: checks the documents that a node may refuse because of the index's settings. A node gets these documents first,
//! in a temporary index with the relevant settings. So a payload that would fail on one node fails as a whole, with a node's
//! error, before anything is sent.

use super::node_task::ended;
use crate::{
    base::error::Result,
    cluster::Cluster,
    disguise::{embedders::EMBEDDERS, settings_tag::FILTERABLE},
    domain::{intent::Effect, settings_change::merge_change},
    ledger::settings as stored,
    node::{Node, Request},
};
use miroir_core::{
    documents::Preflight,
    error::ErrorBody,
    path::ApiPath,
    protocol::{Begin, WriteOperation},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long the preflight waits for settings that nodes have not applied yet.
const PATIENCE: Duration = Duration::from_secs(30);

type Settings = Map<String, Value>;

/// The result of a preflight.
#[derive(Debug)]
pub enum Looked {
    /// The gateway must send the documents.
    Show,
    /// The preflight is complete.
    Done {
        /// The index's settings that the preflight used; `None` if they do not matter for this payload.
        settings: Option<Settings>,
        /// The error with which a node refuses the payload.
        failure: Option<ErrorBody>,
    },
}

/// The current settings of an index, and the settings that it will have once all tracked tasks have succeeded.
///
/// # Errors
/// The ledger failed.
pub async fn settings(cluster: &Cluster, index: &str) -> Result<(Settings, Settings)> {
    let changes = cluster.tracked_tasks.effects(|effect| match effect {
        Effect::Settings { index: of, change, .. } if of == index => Some(change.clone()),
        _ => None,
    });
    let known = cluster.cluster_state().indexes.contains_key(index);
    let index = index.to_owned();
    let now = match known {
        true => cluster.ledger.call(move |connection| stored::settings(connection, &index)).await?,
        false => Settings::new(),
    };
    let mut then = now.clone();
    for change in changes {
        merge_change(&mut then, change.as_ref());
    }
    Ok((now, then))
}

/// Runs the preflight of a payload.
///
/// # Errors
/// The ledger failed.
pub async fn look(cluster: &Cluster, begin: &Begin) -> Result<Looked> {
    let WriteOperation::AddDocuments { primary_key: Some(key), failure: None, update, .. } = &begin.operation
    else {
        return Ok(Looked::Done { settings: None, failure: None });
    };
    let known = cluster.cluster_state().indexes.get(&begin.index).and_then(|index| index.primary_key.clone());
    // If the index has another key, the gateway splits the payload again, and its next begin runs the preflight.
    if begin.doubts.is_empty() || known.is_some_and(|known| known != *key) {
        return Ok(Looked::Done { settings: None, failure: None });
    }
    let (begun, mut pause) = (cluster.clock.monotonic(), Duration::ZERO);
    loop {
        let (now, then) = settings(cluster, &begin.index).await?;
        let matters = [&now, &then].iter().any(|settings| matters(settings, &begin.doubts));
        let failure = match &begin.doubtful {
            _ if !matters => None,
            None => return Ok(Looked::Show),
            // Nodes handle documents after all earlier settings, so the preflight waits until these are applied.
            Some(_) if now != then && cluster.clock.since(begun) < PATIENCE => {
                cluster.tracked_tasks.look_again(&mut pause).await;
                continue;
            }
            Some(documents) => probe(cluster, begin, documents, key, *update, &now).await,
        };
        return Ok(Looked::Done { settings: Some(then), failure });
    }
}

/// Whether a node could refuse the payload because of these settings.
fn matters(settings: &Settings, doubts: &Preflight) -> bool {
    let names = |setting: &str, field: &str| {
        settings
            .get(setting)
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|name| name == field))
    };
    // Even without embedders, `_vectors` must be an object of the right form.
    doubts.vectors
        || (doubts.geo && (names(FILTERABLE, "_geo") || names("sortableAttributes", "_geo")))
        || (doubts.geojson && names(FILTERABLE, "_geojson"))
        || doubts.dimensions.iter().any(|(name, found)| {
            embedder(settings, name).is_some_and(|embedder| match dimensions(embedder) {
                Some(wanted) => found.iter().any(|found| *found != Some(wanted)),
                None => found.len() > 1 || found.contains(&None),
            })
        })
}

fn embedder<'a>(settings: &'a Settings, name: &str) -> Option<&'a Value> {
    settings.get(EMBEDDERS)?.get(name).filter(|embedder| embedder.is_object())
}

/// The dimensions of an embedder, if a client has set them.
fn dimensions(embedder: &Value) -> Option<u64> {
    let of = |part: &Value| part.get("dimensions")?.as_u64();
    of(embedder).or_else(|| of(embedder.get("indexingEmbedder")?))
}

/// The settings of the temporary index for the preflight. Its embedders expect vectors from the user, so that they embed
/// nothing.
fn judging(settings: &Settings, doubts: &Preflight) -> Value {
    let embedders: Map<String, Value> = doubts
        .dimensions
        .iter()
        .filter_map(|(name, found)| {
            let wanted = dimensions(embedder(settings, name)?);
            let wanted = wanted.or_else(|| found.iter().find_map(|found| *found)).unwrap_or(1).max(1);
            Some((name.clone(), json!({"source": "userProvided", "dimensions": wanted})))
        })
        .collect();
    let mut judging = json!({ EMBEDDERS: embedders });
    for name in [FILTERABLE, "sortableAttributes"] {
        if let Some(value) = settings.get(name) {
            judging[name] = value.clone();
        }
    }
    judging
}

/// Lets a node check documents. Returns `None` if the node accepts them, or if no node can be asked: then the nodes that get
/// the documents decide.
async fn probe(
    cluster: &Cluster,
    begin: &Begin,
    documents: &str,
    primary_key: &str,
    update: bool,
    settings: &Settings,
) -> Option<ErrorBody> {
    let node = cluster.current().into_iter().next()?;
    let probe = format!("miroir-{}", cluster.random.name());
    let judging = judging(settings, &begin.doubts);
    let (index, documents, primary_key) = (probe.clone(), documents.to_owned(), primary_key.to_owned());
    // In a task of its own: if the gateway disconnects, the temporary index must still be deleted.
    let probing = async move {
        let judged = judge(&node, &index, documents, &primary_key, update, &judging).await;
        if let Err(error) = node.delete_index(&index).await {
            tracing::warn!(node = node.name.as_str(), index, error = %error.chain(), "a temporary index could not be deleted");
        }
        judged
            .inspect_err(
                |error| tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a preflight could not be run"),
            )
            .ok()?
    };
    let mut failure = cluster.supervisor.detach("preflight", probing).await.ok()??;
    // A vector that is missing in the payload is no error: the stored document may have one already.
    if failure.code == "vector_embedding_error" {
        return None;
    }
    failure.message = failure.message.replace(&probe, &begin.index);
    Some(failure)
}

async fn judge(
    node: &Node,
    probe: &str,
    documents: String,
    primary_key: &str,
    update: bool,
    settings: &Value,
) -> Result<Option<ErrorBody>> {
    node.create_index(probe, primary_key).await?;
    node.change_settings(probe, settings).await?;
    let method = if update { "PUT" } else { "POST" };
    let request = Request {
        body: documents.into(),
        content_type: Some("application/json".to_owned()),
        ..Request::own(method, ApiPath::of_index(probe, &["documents"]), None)
    };
    let answer = node.send(&request).await?;
    // What it does not take at all is refused by each document's own node.
    let Some(uid) = answer.task_uid() else { return Ok(None) };
    let task = ended(node, uid, probe).await;
    Ok(task.and_then(|task| task.error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn doubts(dimensions: &[(&str, &[Option<u64>])]) -> Preflight {
        let dimensions = dimensions
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.iter().copied().collect::<BTreeSet<_>>()));
        Preflight { dimensions: dimensions.collect(), ..Preflight::default() }
    }

    #[test]
    fn only_what_settings_make_matter_is_looked_at() {
        let settings = json!({
            "filterableAttributes": ["_geo", "a"], "sortableAttributes": ["b"],
            "embedders": {"a": {"source": "userProvided", "dimensions": 2}, "b": {"source": "ollama"},
                          "c": {"source": "composite", "indexingEmbedder": {"dimensions": 3}}}
        });
        let Value::Object(settings) = settings else { panic!("no object") };
        assert!(matters(&settings, &Preflight { geo: true, ..Preflight::default() }));
        assert!(!matters(&settings, &Preflight { geojson: true, ..Preflight::default() }));
        assert!(matters(&Settings::new(), &Preflight { vectors: true, ..Preflight::default() }));
        for (fine, bad) in [
            (doubts(&[("a", &[Some(2)]), ("x", &[None])]), doubts(&[("a", &[Some(2), Some(3)])])),
            (doubts(&[("b", &[Some(7)])]), doubts(&[("b", &[Some(7), Some(8)])])),
            (doubts(&[("c", &[Some(3)])]), doubts(&[("c", &[None])])),
        ] {
            assert!(!matters(&settings, &fine), "{fine:?}");
            assert!(matters(&settings, &bad), "{bad:?}");
        }
        assert_eq!(
            judging(&settings, &doubts(&[("a", &[Some(9)]), ("b", &[Some(7)]), ("x", &[Some(1)])]))["embedders"],
            json!({"a": {"source": "userProvided", "dimensions": 2}, "b": {"source": "userProvided", "dimensions": 7}})
        );
    }
}
