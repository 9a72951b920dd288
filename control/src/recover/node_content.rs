//! What a node has.

use super::index;
use crate::{
    base::error::{Error, Result},
    domain::{cluster_state::Index, search_rules::SearchRule},
    mover::{
        copy::{fetch, ids},
        document::{by_id, content},
    },
    node::{Node, TIMEOUT},
    sync::{
        instance_settings::{self, InstanceChange},
        search_rules,
    },
};
use miroir_core::{
    documents::PrimaryKey,
    protocol::uid_of_metadata,
    sequence::DocumentTag,
    shard::{Shard, TAG_FIELD},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};

const PAGE: usize = 1000;
/// How long a node may take to end the tasks in its queue.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a node has.
#[derive(Debug, Default)]
pub struct NodeContent {
    /// Its indexes.
    pub indexes: BTreeMap<String, Index>,
    /// The indexes' settings, as the node returns them.
    pub settings: BTreeMap<String, Value>,
    /// Its dynamic search rules, if the node returns them.
    pub rules: Vec<SearchRule>,
    /// Instance settings that clients have changed, as far as the node returns them.
    pub server: Vec<InstanceChange>,
    /// Its API keys.
    pub keys: Vec<Value>,
    /// The highest of the cluster's task uids that it knows.
    pub last_uid: Option<u32>,
    /// Its copies of shards, for shards with documents.
    pub shards: BTreeMap<Shard, ShardCopy>,
}

/// A summary of a node's copy of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCopy {
    /// Number of documents of all indexes.
    pub documents: u64,
    /// The sum of the documents' hashes: equal for copies with the same documents.
    pub digest: u128,
}

impl ShardCopy {
    /// Adds a document.
    pub fn add(&mut self, index: &str, id: &str, text: &str) {
        let mut hash = Sha256::new();
        for part in [index, id, text] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        self.documents += 1;
        self.digest = self.digest.wrapping_add(u128::from_be_bytes(bytes));
    }
}

/// Reads what a node has, after the node has ended the tasks in its queue. What it tells and cannot be read is not taken for
/// nothing: whatever is not found is gone after the recovery.
///
/// # Errors
/// The node does not answer, or has documents whose shard does not fit this number of shards.
pub async fn look(node: &Node, shards: u16) -> Result<NodeContent> {
    idle(node).await?;
    let list = async |path: &'static str| -> Result<Vec<Value>> {
        let answer = node.ask("GET", path, None).await?;
        node.results(format!("GET {path}"), &answer).cloned()
    };
    let mut found = NodeContent { keys: list("/keys?limit=10000").await?, ..NodeContent::default() };
    for told in list("/indexes?limit=100000").await? {
        let uid = node.text("GET /indexes", &told, "uid")?.to_owned();
        let settings = node.settings(&uid).await?;
        let known = index(&told, &settings)
            .ok_or_else(|| node.unreadable(format!("GET /indexes/{uid} and its settings"), &told))?;
        if let Some(key) = known.primary_key.as_ref().map(PrimaryKey::new) {
            read(node, &uid, &key, shards, &mut found.shards).await?;
        }
        found.settings.insert(uid.clone(), settings);
        found.indexes.insert(uid, known);
    }
    // A node does not return what belongs to an experimental feature that is off.
    let features = node.features().await?;
    let is_on = |feature: &str| features.get(feature) == Some(&Value::Bool(true));
    if is_on(search_rules::FEATURE) {
        let rules = search_rules::of_node(node).await?;
        found.rules = rules.ok_or_else(|| {
            Error::Other(format!(
                "node `{}` has the experimental feature `{}` on, and does not tell its rules",
                node.name,
                search_rules::FEATURE
            ))
        })?;
    }
    found.server = instance_settings::of_node(node, is_on).await?;
    found.last_uid = last_uid(node).await?;
    Ok(found)
}

/// The highest uid of the cluster's tasks among all tasks of a node.
async fn last_uid(node: &Node) -> Result<Option<u32>> {
    let (mut last, mut from) = (None, 0);
    loop {
        let page = node.tasks_from(from, TIMEOUT).await?;
        let uids = page.tasks.iter().filter_map(|task| task.custom_metadata().and_then(uid_of_metadata));
        last = last.max(uids.max());
        match page.next {
            Some(next) if next > from => from = next,
            _ => return Ok(last),
        }
    }
}

async fn idle(node: &Node) -> Result<()> {
    let begun = node.clock().monotonic();
    loop {
        if node.is_idle().await? {
            return Ok(());
        }
        if node.clock().since(begun) > PATIENCE {
            return Err(Error::Other(format!("node `{}` has not ended its tasks in time", node.name)));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn read(
    node: &Node,
    index: &str,
    key: &PrimaryKey,
    shards: u16,
    copies: &mut BTreeMap<Shard, ShardCopy>,
) -> Result<()> {
    let all = ids(node, index, format!("{TAG_FIELD} EXISTS"), key).await?;
    for ids in all.chunks(PAGE) {
        let query = json!({"ids": ids, "limit": ids.len(), "retrieveVectors": true});
        let page = fetch(node, index, &query).await?;
        for (id, document) in by_id(&page.results, key) {
            let content = content(document)?;
            let tag = content.get(TAG_FIELD).and_then(|tag| DocumentTag::from_json(tag));
            let shard = Shard::of_document(&id, shards);
            if tag.is_none_or(|tag| tag.shard != shard) {
                return Err(Error::Other(format!(
                    "node `{}`: document `{id}` of `{index}` is not in shard {} of {shards}: give the cluster's number \
                     of shards with --shards",
                    node.name, shard.0
                )));
            }
            copies.entry(shard).or_default().add(index, &id, &serde_json::to_string(&content)?);
        }
    }
    Ok(())
}
