//! Nodes that have left the cluster, and that may still have its indexes and internal keys.

use super::{meta_json, set_meta};
use crate::base::{config::NodeConfig, error::Result};
use rusqlite::Connection;
use url::Url;

/// The key of the `meta` table.
const DEPARTED: &str = "departed";

/// All of them; none where the ledger has no such row, as before the first node leaves.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn all(connection: &Connection) -> Result<Vec<NodeConfig>> {
    Ok(meta_json(connection, DEPARTED)?.unwrap_or_default())
}

/// Adds nodes that are about to leave, each once.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn add(connection: &Connection, leaving: Vec<NodeConfig>) -> Result<()> {
    let mut nodes = all(connection)?;
    nodes.retain(|node| !leaving.iter().any(|new| new.url == node.url));
    nodes.extend(leaving);
    store(connection, &nodes)
}

/// Forgets the node with this URL: it has nothing of the cluster any more, or has joined again.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn remove(connection: &Connection, url: &Url) -> Result<()> {
    let mut nodes = all(connection)?;
    nodes.retain(|node| node.url != *url);
    store(connection, &nodes)
}

fn store(connection: &Connection, nodes: &[NodeConfig]) -> Result<()> {
    set_meta(connection, DEPARTED, &serde_json::to_string(nodes)?)
}
