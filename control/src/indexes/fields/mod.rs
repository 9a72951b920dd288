//! The fields of each index, which all nodes must know in the same order.
//!
//! A node learns the fields of the documents that it receives, and its answers depend on them: a condition on a field that it
//! does not know matches nothing, and it returns a document's fields in the order in which it learnt them. So before a document
//! with a new field is sent to any node, the field is *registered* on every node: [`registration`].

mod completion;
pub mod indexable;
pub mod registration;

pub use completion::{complete, complete_unknown, missed};

use crate::{
    base::error::Result,
    cluster::{Cluster, fields::Known},
    ledger::fields as stored,
};
use std::sync::Arc;

/// The fields of an index.
///
/// # Errors
/// The ledger failed.
pub async fn known(cluster: &Cluster, index: &str) -> Result<Arc<Known>> {
    let forgotten = {
        let cache = cluster.fields.cache();
        if let Some(known) = cache.known.get(index) {
            return Ok(known.clone());
        }
        cache.forgotten
    };
    let uid = index.to_owned();
    let names = cluster.ledger.call(move |connection| stored::of(connection, &uid)).await?;
    let known = Arc::new(Known::new(names));
    let mut cache = cluster.fields.cache();
    if cache.forgotten != forgotten {
        return Ok(known);
    }
    // If another caller has stored an entry meanwhile, that entry is newer.
    Ok(cache.known.entry(index.to_owned()).or_insert(known).clone())
}

/// Stores fields that were registered on all nodes. The caller must hold the lock of [`Cluster::creating`].
///
/// # Errors
/// The ledger failed.
pub async fn keep(cluster: &Cluster, index: &str, new: Vec<String>) -> Result<()> {
    let mut known = known(cluster, index).await?;
    let from = known.names.len();
    Arc::make_mut(&mut known).add(new);
    let added: Vec<String> = known.names.iter().skip(from).map(ToString::to_string).collect();
    let uid = index.to_owned();
    cluster.ledger.call(move |connection| stored::add(connection, &uid, from, &added)).await?;
    cluster.fields.cache().known.insert(index.to_owned(), known);
    Ok(())
}

/// Removes the stored fields of an index that no longer exists, before a new index gets its name.
///
/// # Errors
/// The ledger failed.
pub async fn forget(cluster: &Cluster, index: &str) -> Result<()> {
    let uid = index.to_owned();
    cluster.ledger.call(move |connection| stored::forget(connection, &uid)).await?;
    cluster.fields.forget(index);
    Ok(())
}
