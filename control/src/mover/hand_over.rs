//! The last round of a copy, under the locks of its shards: after it, the copy is read and written.

use super::{Move, copy::Copy, record::Recording};
use crate::{
    cluster::Cluster,
    error::{Error, Result},
    locks::Scope,
};
use miroir_core::shard::Shard;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long its locks are waited for: writers that come later wait behind it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// How long writers may wait in all. What takes longer is given up, and tried again later.
const LONGEST: Duration = Duration::from_millis(1_700);

/// What was handed over.
#[derive(Clone, Copy, Debug)]
pub struct HandedOver {
    /// Replicas that are read and written now.
    pub replicas: usize,
    /// How long writers waited.
    pub pause: Duration,
}

/// Some shards of all indexes.
pub fn scope(shards: &[Shard]) -> Scope {
    Scope { indexes: None, shards: Some(shards.iter().copied().collect()) }
}

/// A copy that is nearly whole.
pub struct HandOver<'a> {
    /// Of what.
    pub of: Move<'a>,
    /// What was written since the last round.
    pub recording: &'a Recording,
}

impl HandOver<'_> {
    /// Hands over; `None` where it is not the moment.
    ///
    /// # Errors
    /// A node did not answer in time: the copy may be anything, and is begun again.
    pub async fn run(&self, copy: &mut Copy<'_>) -> Result<Option<HandedOver>> {
        let Move { cluster, target, shards, .. } = self.of;
        let begun = Instant::now();
        let lock = cluster.locks.lock(scope(shards));
        let Ok(guard) = tokio::time::timeout(LOCK_PATIENCE, lock).await else { return Ok(None) };
        // It can be given up here without a trace; later it cannot.
        let indexed = tokio::time::timeout(LONGEST / 2, self.of.source_has_indexed()).await;
        let Ok(indexed) = indexed else { return Ok(None) };
        indexed?;
        let last = tokio::time::timeout(LONGEST.saturating_sub(begun.elapsed()), self.last(copy)).await;
        let late = || Error::Other(format!("the last of a copy to `{}` took too long", target.name));
        last.map_err(|_| late())??;
        let mut replicas = 0;
        cluster
            .change(|view| {
                for shard in shards.iter().filter(|shard| self.of.is_wanted(**shard)) {
                    view.mark_active(*shard, &target.name);
                    replicas += 1;
                }
            })
            .await?;
        drop(guard);
        Ok(Some(HandedOver { replicas, pause: begun.elapsed() }))
    }

    /// Copies what is left, and makes sure that it is the same.
    async fn last(&self, copy: &mut Copy<'_>) -> Result<()> {
        let Move { cluster, target, .. } = self.of;
        if cluster.view().behind.contains(&target.name) {
            return Err(Error::Other(format!("node `{}` has missed an operation", target.name)));
        }
        let dirty = self.recording.take();
        copy.again(&dirty).await?;
        copy.indexed().await?;
        let sent = copy.cost;
        copy.again(&dirty).await?;
        if (copy.cost.documents, copy.cost.deleted) != (sent.documents, sent.deleted) {
            return Err(Error::Other(format!("node `{}` does not keep what it is sent", target.name)));
        }
        delete_strays(cluster, copy).await
    }
}

/// An index that was deleted while it was copied may have been made again by a late page.
async fn delete_strays(cluster: &Cluster, copy: &Copy<'_>) -> Result<()> {
    let known: BTreeSet<String> = cluster.view().indexes.keys().cloned().collect();
    for index in copy.written.difference(&known) {
        let _one = cluster.creating.lock(index).await;
        if !cluster.view().indexes.contains_key(index) {
            copy.delete_index(index).await?;
        }
    }
    Ok(())
}
