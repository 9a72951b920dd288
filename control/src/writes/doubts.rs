//! What a node may refuse of a payload by the settings of its index: a node is shown the doubtful documents first, in an index
//! that nobody has, with the settings that matter. So a payload that would fail on one node fails whole, in a node's words,
//! before anything is sent.

use super::node_task::ended;
use crate::{
    base::error::Result,
    cluster::Cluster,
    disguise::{embedders::EMBEDDERS, settings_tag::FILTERABLE},
    domain::{intent::Effect, settings_change::merge_change},
    ledger::settings as stored,
    node::{Node, Request, answers::task_error},
};
use miroir_core::{
    documents::Doubts,
    error::ErrorBody,
    path::ApiPath,
    protocol::{Begin, WriteOperation},
};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long settings are waited for that are not applied yet, and decide.
const PATIENCE: Duration = Duration::from_secs(30);

type Settings = Map<String, Value>;

/// What has been found out about a payload.
#[derive(Debug)]
pub enum Looked {
    /// The documents are needed.
    Show,
    /// All that can be known.
    Done {
        /// The index's settings at that time; absent where they are of no interest.
        settings: Option<Settings>,
        /// With what a node refuses it.
        failure: Option<ErrorBody>,
    },
}

/// The settings that an index has, and those that it will have once all that is on its way has succeeded.
///
/// # Errors
/// The ledger failed.
pub async fn settings(cluster: &Cluster, index: &str) -> Result<(Settings, Settings)> {
    let changes = cluster.settler.effects(|effect| match effect {
        Effect::Settings { index: of, change, .. } if of == index => Some(change.clone()),
        _ => None,
    });
    let known = cluster.view().indexes.contains_key(index);
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

/// Looks at a payload's doubts.
///
/// # Errors
/// The ledger failed.
pub async fn look(cluster: &Cluster, begin: &Begin) -> Result<Looked> {
    let WriteOperation::AddDocuments { primary_key: Some(key), failure: None, update, .. } = &begin.operation
    else {
        return Ok(Looked::Done { settings: None, failure: None });
    };
    let known = cluster.view().indexes.get(&begin.index).and_then(|index| index.primary_key.clone());
    // Split by another key it will be looked at again.
    if begin.doubts.is_empty() || known.is_some_and(|known| known != *key) {
        return Ok(Looked::Done { settings: None, failure: None });
    }
    let begun = Instant::now();
    loop {
        let (now, then) = settings(cluster, &begin.index).await?;
        let matters = [&now, &then].iter().any(|settings| matters(settings, &begin.doubts));
        let failure = match &begin.doubtful {
            _ if !matters => None,
            None => return Ok(Looked::Show),
            // Nodes look at documents after all settings that came before.
            Some(_) if now != then && begun.elapsed() < PATIENCE => {
                cluster.settler.refresh().await;
                continue;
            }
            Some(documents) => probe(cluster, begin, documents, key, *update, &now).await,
        };
        return Ok(Looked::Done { settings: Some(then), failure });
    }
}

/// Whether settings make doubts matter.
fn matters(settings: &Settings, doubts: &Doubts) -> bool {
    let names = |setting: &str, field: &str| {
        settings
            .get(setting)
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|name| name == field))
    };
    // Without embedders too, `_vectors` must be an object of the right form.
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

/// The dimensions of an embedder, where a client has set them.
fn dimensions(embedder: &Value) -> Option<u64> {
    let of = |part: &Value| part.get("dimensions")?.as_u64();
    of(embedder).or_else(|| of(embedder.get("indexingEmbedder")?))
}

/// The settings of an index that is to judge doubtful documents. Its embedders embed nothing themselves.
fn judging(settings: &Settings, doubts: &Doubts) -> Value {
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

/// Lets a node judge documents; `None` where it takes them, or cannot be asked: then each document's own node judges.
async fn probe(
    cluster: &Cluster,
    begin: &Begin,
    documents: &str,
    primary_key: &str,
    update: bool,
    settings: &Settings,
) -> Option<ErrorBody> {
    let node = cluster.current().into_iter().next()?;
    let probe = format!("miroir-{}", Uuid::new_v4().simple());
    let judging = judging(settings, &begin.doubts);
    let (index, documents, primary_key) = (probe.clone(), documents.to_owned(), primary_key.to_owned());
    // A gateway that leaves must not leave the index.
    let judged = tokio::spawn(async move {
        let judged = judge(&node, &index, documents, &primary_key, update, &judging).await;
        if let Err(error) = node.ask("DELETE", ApiPath::of_index(&index, &[]), None).await {
            tracing::warn!(node = node.name, index, %error, "an index made for a question stays");
        }
        judged
            .inspect_err(
                |error| tracing::warn!(node = node.name, %error, "doubtful documents could not be looked at"),
            )
            .ok()?
    });
    let mut failure = judged.await.ok()??;
    // Vectors that are missing here need not be missing there: the document can have some already.
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
    let create = json!({"uid": probe, "primaryKey": primary_key});
    node.ask("POST", "/indexes", Some(&create)).await?;
    node.ask("PATCH", ApiPath::of_index(probe, &["settings"]), Some(settings)).await?;
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
    Ok(task.as_ref().and_then(task_error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn doubts(dimensions: &[(&str, &[Option<u64>])]) -> Doubts {
        let dimensions = dimensions
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.iter().copied().collect::<BTreeSet<_>>()));
        Doubts { dimensions: dimensions.collect(), ..Doubts::default() }
    }

    #[test]
    fn only_what_settings_make_matter_is_looked_at() {
        let settings = json!({
            "filterableAttributes": ["_geo", "a"], "sortableAttributes": ["b"],
            "embedders": {"a": {"source": "userProvided", "dimensions": 2}, "b": {"source": "ollama"},
                          "c": {"source": "composite", "indexingEmbedder": {"dimensions": 3}}}
        });
        let Value::Object(settings) = settings else { panic!("no object") };
        assert!(matters(&settings, &Doubts { geo: true, ..Doubts::default() }));
        assert!(!matters(&settings, &Doubts { geojson: true, ..Doubts::default() }));
        assert!(matters(&Settings::new(), &Doubts { vectors: true, ..Doubts::default() }));
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
