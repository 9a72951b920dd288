//! Copies some shards from one node to another, by sending only the differences.
//!
//! The ids of all documents are read in one request, so that the list is consistent. Then the documents are read by their ids,
//! page by page. What is written meanwhile is recorded, and copied again.

use super::{
    Move,
    document::{self, Page, content, copied},
};
use crate::{
    base::error::{Error, Result},
    cluster::{
        Cluster,
        moves::{
            progress::Cost,
            recording::{IndexChanges, RecordedWrites},
        },
    },
    fencing::{in_flight, late_tasks},
    node::{Node, Request, TaskInfo},
};
use axum::body::Bytes;
use miroir_core::{
    documents::PrimaryKey,
    path::ApiPath,
    shard::{Shard, TAG_FIELD, tag_filter},
};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Documents per page.
pub const PAGE: usize = 1000;
/// How long a node may take to list its document ids, or to answer a page.
const PATIENCE: Duration = Duration::from_secs(120);
/// A limit that is higher than the number of documents of any index.
const EVERYTHING: u32 = u32::MAX;

/// A copy of some shards from one node to another.
pub struct Copy<'a> {
    of: Move<'a>,
    cluster: &'a Cluster,
    source: &'a Node,
    target: &'a Node,
    /// The shards that are still copied.
    shards: Vec<Shard>,
    /// Shards of which a replica has changed since the copy began. They are not copied any more.
    changed: BTreeSet<Shard>,
    filter: String,
    tasks: Vec<u64>,
    /// The indexes that this copy has written documents to.
    pub written: BTreeSet<String>,
    /// What the copy has cost until now.
    pub cost: Cost,
    /// Whether the copy is slowed down to the configured pace.
    pub is_throttled: bool,
}

impl<'a> Copy<'a> {
    /// A copy that has not started yet.
    #[must_use]
    pub(super) fn new(of: Move<'a>) -> Self {
        Self {
            of,
            cluster: of.cluster,
            source: of.source,
            target: of.target,
            shards: of.shards.to_vec(),
            changed: BTreeSet::new(),
            filter: tag_filter(of.shards),
            tasks: Vec::new(),
            written: BTreeSet::new(),
            cost: Cost::default(),
            is_throttled: true,
        }
    }

    /// Copies the documents of all indexes.
    ///
    /// # Errors
    /// A node did not answer, or refused a request.
    pub async fn everything(&mut self) -> Result<()> {
        let indexes = self
            .cluster
            .cluster_state()
            .indexes
            .keys()
            .map(|index| (index.clone(), IndexChanges::All))
            .collect();
        self.again(&indexes).await
    }

    /// Copies what was written since the last round.
    ///
    /// # Errors
    /// A node did not answer, or refused a request.
    pub async fn again(&mut self, dirty: &RecordedWrites) -> Result<()> {
        for (index, written) in dirty {
            let known = self.cluster.cluster_state().indexes.get(index).cloned();
            // An index without a primary key has no documents.
            let Some(key) = known.and_then(|known| known.primary_key) else { continue };
            let key = PrimaryKey::new(key);
            loop {
                self.leave_changed();
                if self.shards.is_empty() {
                    return Ok(());
                }
                let result = match written {
                    IndexChanges::All => self.index(index, &key).await,
                    IndexChanges::Ids(ids) => {
                        self.ids(index, &key, &ids.iter().cloned().collect::<Vec<_>>()).await
                    }
                };
                match result {
                    Ok(()) => break,
                    // The others are copied on.
                    Err(_) if self.has_changed() => {}
                    // If the index was deleted meanwhile, the error does not matter.
                    Err(_) if !self.cluster.cluster_state().indexes.contains_key(index) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Whether a replica of a shard that is still copied has changed.
    fn has_changed(&self) -> bool {
        !self.shards.iter().all(|shard| self.of.is_wanted(*shard))
    }

    fn leave_changed(&mut self) {
        let of = self.of;
        self.changed.extend(self.shards.iter().filter(|shard| !of.is_wanted(**shard)));
        self.keep(|shard| of.is_wanted(shard));
    }

    /// These shards are handed over: their new replicas are written by clients, and by the copy no more.
    pub fn handed_over(&mut self, shards: &[Shard]) {
        self.keep(|shard| !shards.contains(&shard));
    }

    fn keep(&mut self, keep: impl Fn(Shard) -> bool) {
        self.shards.retain(|shard| keep(*shard));
        self.filter = tag_filter(&self.shards);
    }

    /// Ends a copy. What it sent in the moment when a replica changed may have come after that: where the replica is read, others stand in
    /// for it, and it is compared anew. An index that was deleted meanwhile may have been created again: its node catches up.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn end(mut self) -> Result<()> {
        self.leave_changed();
        let (changed, written, target) = (&self.changed, &self.written, &self.target.name);
        let known = self.cluster.cluster_state();
        if written.iter().all(|index| changed.is_empty() && known.indexes.contains_key(index)) {
            return Ok(());
        }
        self.cluster
            .change(|cluster_state| {
                if written.iter().any(|index| !cluster_state.indexes.contains_key(index)) {
                    cluster_state.mark_behind(target);
                }
                for shard in changed {
                    written.iter().for_each(|index| _ = cluster_state.distrust(index, *shard, target));
                }
            })
            .await
    }

    async fn index(&mut self, index: &str, key: &PrimaryKey) -> Result<()> {
        let there: BTreeSet<String> =
            ids(self.source, index, &*self.filter, key).await?.into_iter().collect();
        let mut here = ids(self.target, index, &*self.filter, key).await?;
        here.extend(untagged(self.cluster, self.target, index, &self.shards, key).await?);
        let gone: Vec<&String> = here.iter().filter(|id| !there.contains(*id)).collect();
        for gone in gone.chunks(PAGE) {
            self.delete(index, gone).await?;
        }
        let here: BTreeSet<String> = here.into_iter().collect();
        let (known, new): (Vec<String>, Vec<String>) = there.into_iter().partition(|id| here.contains(id));
        for new in new.chunks(PAGE) {
            let page = self.read(self.source, index, new).await?;
            let documents: Vec<_> = page.results.iter().map(|document| copied(document)).collect();
            self.write(index, key, &documents).await?;
        }
        self.ids(index, key, &known).await
    }

    /// Compares the documents of these ids, and sends those that differ.
    async fn ids(&mut self, index: &str, key: &PrimaryKey, ids: &[String]) -> Result<()> {
        for ids in ids.chunks(PAGE) {
            let (there, here) = futures_util::future::try_join(
                by_ids(self.source, index, &self.filter, ids),
                by_ids(self.target, index, &self.filter, ids),
            )
            .await?;
            self.count(&there);
            self.count(&here);
            self.wait_for_turn(&there).await;
            let (there, here) =
                (identified(self.source, index, &there, key)?, identified(self.target, index, &here, key)?);
            let gone: Vec<&String> = here.keys().filter(|id| !there.contains_key(*id)).collect();
            if !gone.is_empty() {
                self.delete(index, &gone).await?;
            }
            let mut documents = Vec::new();
            for (id, document) in &there {
                let is_same = match here.get(id) {
                    Some(other) => content(other)? == content(document)?,
                    None => false,
                };
                if !is_same {
                    documents.push(copied(document));
                }
            }
            self.write(index, key, &documents).await?;
        }
        Ok(())
    }

    async fn read(&mut self, node: &Node, index: &str, ids: &[String]) -> Result<Page> {
        let page = by_ids(node, index, &self.filter, ids).await?;
        self.count(&page);
        self.wait_for_turn(&page).await;
        Ok(page)
    }

    async fn wait_for_turn(&self, page: &Page) {
        if self.is_throttled {
            self.cluster.mover.throttle.take(page.results.len()).await;
        }
    }

    fn count(&mut self, page: &Page) {
        let bytes = page.results.iter().map(|document| document.get().len() as u64).sum();
        self.spend(Cost { bytes, ..Cost::default() });
    }

    /// Adds to the cost of this copy, and to the total that is shown to operators.
    fn spend(&mut self, more: Cost) {
        self.cost += more;
        self.cluster.mover.progress.copied(more);
    }

    async fn write(&mut self, index: &str, key: &PrimaryKey, documents: &[impl AsRef<str>]) -> Result<()> {
        // A page that arrives after its index was deleted would create the index again.
        if documents.is_empty() || !self.cluster.cluster_state().indexes.contains_key(index) {
            return Ok(());
        }
        let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
        let body = format!("[{}]", documents.join(","));
        let (documents, bytes) = (documents.len() as u64, body.len() as u64);
        self.spend(Cost { documents, bytes, ..Cost::default() });
        self.send(index, ApiPath::of_index(index, &["documents"]).with("primaryKey", key.name()), body).await
    }

    async fn delete(&mut self, index: &str, ids: &[&String]) -> Result<()> {
        self.spend(Cost { deleted: ids.len() as u64, ..Cost::default() });
        self.send(index, ApiPath::of_index(index, &["documents", "delete-batch"]), json!(ids).to_string())
            .await
    }

    async fn send(&mut self, index: &str, path: ApiPath, body: String) -> Result<()> {
        // A replica that is not stale any more has what the source lacks.
        if self.has_changed() {
            let name = &self.target.name;
            return Err(Error::Other(format!(
                "a replica on node `{name}`, or its source, has changed during a copy"
            )));
        }
        self.written.insert(index.to_owned());
        let request = Request { body: Bytes::from(body), ..Request::own("POST", path, Some(&Value::Null)) };
        let sent =
            late_tasks::send_marked(self.cluster, self.target, &self.shards, request.clone(), PATIENCE);
        let answer = sent.await?;
        let task = answer.task_uid().filter(|_| answer.is_success());
        self.tasks.push(task.ok_or_else(|| self.target.unexpected(&request, &answer))?.into());
        Ok(())
    }

    /// Deletes an index from the target, if it exists there.
    ///
    /// # Errors
    /// The target did not answer, or refused.
    pub async fn delete_index(&self, index: &str) -> Result<()> {
        let request = Request::own("DELETE", ApiPath::of_index(index, &[]), None);
        let answer = in_flight::send(self.cluster, self.target, request.clone(), PATIENCE).await?;
        if answer.is_success() || answer.status == 404 {
            return Ok(());
        }
        Err(self.target.unexpected(&request, &answer))
    }

    /// Waits until the target has indexed everything that it was sent.
    ///
    /// # Errors
    /// A task failed, or the target did not answer.
    pub async fn indexed(&mut self) -> Result<()> {
        for tasks in std::mem::take(&mut self.tasks).chunks(100) {
            self.succeeded(tasks).await?;
        }
        Ok(())
    }

    async fn succeeded(&self, tasks: &[u64]) -> Result<()> {
        let mut pause = Duration::from_millis(10);
        loop {
            let found = self.target.tasks(tasks).await?;
            if let Some(failed) = found.iter().find(|task| task.has_failed()) {
                return Err(Error::Other(format!("node `{}`: {failed}", self.target.name)));
            }
            if found.len() < tasks.len() {
                return Err(Error::Other(format!("node `{}` has lost its tasks", self.target.name)));
            }
            if found.iter().all(TaskInfo::has_succeeded) {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(300));
        }
    }
}

/// The ids of all documents of an index that match a filter.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn ids(
    node: &Node,
    index: &str,
    filter: impl Into<Value>,
    key: &PrimaryKey,
) -> Result<Vec<String>> {
    let body = json!({"filter": filter.into(), "limit": EVERYTHING, "fields": [key.name()]});
    let page = fetch(node, index, &body).await?;
    if u64::try_from(page.results.len()).unwrap_or(u64::MAX) < page.total {
        return Err(Error::Other(format!("node `{}` does not list all documents of `{index}`", node.name)));
    }
    Ok(identified(node, index, &page, key)?.into_keys().collect())
}

/// The documents of a page, by id.
///
/// # Errors
/// One has no id: taken as absent, it would be deleted from other nodes.
fn identified<'a>(
    node: &Node,
    index: &str,
    page: &'a Page,
    key: &PrimaryKey,
) -> Result<BTreeMap<String, &'a RawValue>> {
    let documents = document::by_id(&page.results, key);
    if documents.len() < page.results.len() {
        let (node, key) = (&node.name, key.name());
        return Err(Error::Other(format!(
            "node `{node}` has documents of `{index}` without an id in `{key}`"
        )));
    }
    Ok(documents)
}

/// The documents with these ids that match a filter, with their vectors.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn by_ids(node: &Node, index: &str, filter: &str, ids: &[String]) -> Result<Page> {
    let body = json!({"filter": filter, "ids": ids, "limit": ids.len(), "retrieveVectors": true});
    fetch(node, index, &body).await
}

/// The ids of documents of some shards that have no shard tag: somebody has written them without a gateway.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn untagged(
    cluster: &Cluster,
    node: &Node,
    index: &str,
    shards: &[Shard],
    key: &PrimaryKey,
) -> Result<Vec<String>> {
    let count = u16::try_from(cluster.cluster_state().replicas.len()).unwrap_or(u16::MAX);
    let mut found = ids(node, index, format!("{TAG_FIELD} NOT EXISTS"), key).await?;
    found.retain(|id| shards.contains(&Shard::of_document(id, count)));
    Ok(found)
}

/// A page of documents.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn fetch(node: &Node, index: &str, body: &Value) -> Result<Page> {
    let begun = node.clock().monotonic();
    let page = node.fetch_documents(index, body, PATIENCE).await?;
    tracing::trace!(node = node.name.as_str(), index, took = ?node.clock().since(begun), "a page was read");
    serde_json::from_slice(&page).map_err(|_| {
        let text = Value::from(String::from_utf8_lossy(&page));
        node.unreadable(format!("POST /indexes/{index}/documents/fetch"), &text)
    })
}
