//! Changes of the cluster state: first in the ledger, then in memory, then for gateways.

use super::Cluster;
use crate::{base::error::Result, domain::cluster_state::ClusterState, ledger::catalogue};
use miroir_core::{node_name::NodeName, shard::Shard};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::MutexGuard;

/// How long to wait until something is stored that could not be.
const PAUSE: Duration = Duration::from_secs(1);

impl Cluster {
    /// Changes the cluster state: first in the ledger, then in memory, then for gateways. The version increases only if the
    /// change concerns gateways.
    ///
    /// # Errors
    /// The ledger failed, and nothing has changed. If only publishing fails, that is logged and not returned, because the
    /// change is made; the next publication contains it.
    pub async fn change(&self, change: impl FnOnce(&mut ClusterState)) -> Result<()> {
        self.try_change(|cluster_state| {
            change(cluster_state);
            Ok(())
        })
        .await
    }

    /// Like [`Self::change`], for a change that may fail. If it fails, nothing changes.
    ///
    /// # Errors
    /// The error of `change`; or as [`Self::change`].
    pub async fn try_change(&self, change: impl FnOnce(&mut ClusterState) -> Result<()>) -> Result<()> {
        let mut may_be_abandoned = self.lock_changes().await?;
        let old = self.cluster_state();
        let mut new = ClusterState::clone(&old);
        change(&mut new)?;
        new.follow(&old);
        if new == *old {
            return Ok(());
        }
        new.version += u64::from(!new.is_but_for_dates(&old));
        let (before, stored) = (old.clone(), new.clone());
        *may_be_abandoned = true;
        let stored = self.ledger.call(move |connection| catalogue::store(connection, &before, &stored)).await;
        *may_be_abandoned = false;
        stored?;
        self.take_up(&old, new);
        Ok(())
    }

    /// Like [`Self::try_change`], for a change that belongs to other rows of the ledger: they are stored in one transaction, all or
    /// nothing. `change` runs on the ledger's thread; what it returns is returned.
    ///
    /// # Errors
    /// The error of `change`; or as [`Self::change`].
    pub async fn change_stored<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut ClusterState) -> Result<T> + Send + 'static,
    {
        let mut may_be_abandoned = self.lock_changes().await?;
        let old = self.cluster_state();
        let before = old.clone();
        let stored = self.ledger.call(move |connection| {
            let mut new = ClusterState::clone(&before);
            let result = change(connection, &mut new)?;
            new.follow(&before);
            if new == *before {
                return Ok((result, None));
            }
            new.version += u64::from(!new.is_but_for_dates(&before));
            catalogue::store(connection, &before, &new)?;
            Ok((result, Some(new)))
        });
        *may_be_abandoned = true;
        let stored = stored.await;
        *may_be_abandoned = false;
        let (result, new) = stored?;
        if let Some(new) = new {
            self.take_up(&old, new);
        }
        Ok(result)
    }

    /// Like [`Self::change_stored`], for what nodes have done already: it is stored as soon as the ledger can. The caller keeps its locks
    /// meanwhile.
    pub async fn store_what_is_done<T, F>(&self, change: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut ClusterState) -> Result<T> + Clone + Send + 'static,
    {
        loop {
            match self.change_stored(change.clone()).await {
                Ok(stored) => return stored,
                Err(error) => {
                    tracing::error!(error = %error.chain(), "it could not be stored yet what nodes have done");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes sure that no other change is under way until the guard is dropped, and that what the ledger has is taken up.
    async fn lock_changes(&self) -> Result<MutexGuard<'_, bool>> {
        let mut may_be_abandoned = self.changing.lock().await;
        if *may_be_abandoned {
            let stored = self.ledger.call(catalogue::load).await?;
            *may_be_abandoned = false;
            let old = self.cluster_state();
            // Only memory has the changes of settings that are under way.
            let stored = stored.map(|stored| ClusterState { changing: old.changing.clone(), ..stored });
            if let Some(stored) = stored.filter(|stored| *stored != *old) {
                tracing::info!(version = stored.version, "a change is taken up whose maker has left");
                self.take_up(&old, stored);
            }
        }
        Ok(may_be_abandoned)
    }

    /// Takes up a change that the ledger has, and whose maker left before it was taken up, such as at a timeout.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn take_up_abandoned(&self) -> Result<()> {
        self.lock_changes().await.map(drop)
    }

    /// Takes up a cluster state that the ledger has: in memory, then for gateways.
    fn take_up(&self, before: &ClusterState, new: ClusterState) {
        self.note_replicas(before, &new);
        let new = Arc::new(new);
        let gone = before.indexes.keys().filter(|index| !new.indexes.contains_key(*index));
        gone.for_each(|index| self.fields.forget(index));
        self.follow(&new);
        if new.has_lost_since(before) {
            *self.lost() = Some((new.version, self.clock.monotonic()));
        }
        let told = new.changed_names(before);
        self.unconfirmed_changes()
            .extend(told.into_iter().map(|name| (name, (new.version, self.clock.monotonic()))));
        let is_told = new.version != before.version;
        *self.cluster_state.lock().unwrap_or_else(PoisonError::into_inner) = new;
        if is_told && let Err(error) = self.publish() {
            tracing::error!(error = %error.chain(), "the topology could not be published");
        }
    }

    /// Notes and logs each replica that changes: its history explains what it has.
    fn note_replicas(&self, before: &ClusterState, new: &ClusterState) {
        self.note_what_is_missed(before, new);
        if before.replicas == new.replicas {
            return;
        }
        let shards: BTreeSet<Shard> = before.shards().chain(new.shards()).collect();
        for shard in shards {
            let replicas = before.of(shard).iter().chain(new.of(shard));
            let nodes: BTreeSet<&NodeName> = replicas.map(|replica| &replica.node).collect();
            for node in nodes {
                let state = |of: &ClusterState| of.replica(shard, node).map(|replica| replica.state);
                let (was, is, version) = (state(before), state(new), new.version);
                if was != is {
                    self.mover.changes.changes_now(shard, node, None);
                    tracing::debug!(
                        shard = shard.0,
                        node = node.as_str(),
                        ?was,
                        ?is,
                        version,
                        "a replica changes"
                    );
                }
            }
        }
    }

    fn note_what_is_missed(&self, before: &ClusterState, new: &ClusterState) {
        if before.stale == new.stale {
            return;
        }
        let all = before.stale.iter().chain(new.stale.iter());
        let all: BTreeSet<_> = all.map(|(index, node, shard, _)| (index, node, shard)).collect();
        for (index, node, shard) in all {
            let missed = |of: &ClusterState| of.stale.get(index, node, shard);
            let (was, is, version) = (missed(before), missed(new), new.version);
            if was != is {
                self.mover.changes.changes_now(shard, node, Some(index));
                tracing::debug!(
                    index,
                    shard = shard.0,
                    node = node.as_str(),
                    ?was,
                    ?is,
                    version,
                    "a replica misses something else of an index"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ClusterBuilder;

    #[tokio::test]
    async fn nothing_is_kept_of_a_node_that_is_no_member() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = ClusterBuilder::new(folder.path()).build();
        let before = cluster.cluster_state();
        // Its tasks were still examined when it left.
        let late = |cluster_state: &mut ClusterState| {
            cluster_state.mark_behind("gone");
            cluster_state.distrust("movies", Shard(0), "gone");
        };
        cluster.change(late).await.unwrap();
        let stored = move |_: &Connection, cluster_state: &mut ClusterState| {
            late(cluster_state);
            Ok(())
        };
        cluster.change_stored(stored).await.unwrap();
        assert_eq!(cluster.cluster_state(), before);
    }
}
