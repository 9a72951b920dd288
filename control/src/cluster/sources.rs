//! Which nodes are asked for what any of them can tell, or for the documents of some shards.

use super::Cluster;
use crate::{
    base::error::{Error, Result},
    node::{Node, NodeAnswer, Request, SHORT_QUESTION, TIMEOUT},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use std::{collections::BTreeMap, sync::Arc};

impl Cluster {
    /// Nodes that are up and not behind, in the topology's order.
    #[must_use]
    pub fn current(&self) -> Vec<Arc<Node>> {
        let cluster_state = self.cluster_state();
        self.nodes()
            .iter()
            .filter(|node| node.is_up() && !cluster_state.behind.contains(&node.name))
            .cloned()
            .collect()
    }

    /// Nodes that are up, each with shards of which it has a replica that misses nothing of an index, so that each shard occurs
    /// once. Shards without such a node are left out.
    #[must_use]
    pub fn sources(
        &self,
        index: &str,
        shards: impl IntoIterator<Item = Shard>,
    ) -> Vec<(Arc<Node>, Vec<Shard>)> {
        let cluster_state = self.cluster_state();
        let mut sources: BTreeMap<NodeName, (Arc<Node>, Vec<Shard>)> = BTreeMap::new();
        for shard in shards {
            let node = cluster_state
                .whole(index, shard)
                .filter_map(|name| self.node(name))
                .find(|node| node.is_up());
            if let Some(node) = node {
                sources.entry(node.name.clone()).or_insert_with(|| (node, Vec::new())).1.push(shard);
            }
        }
        sources.into_values().collect()
    }

    /// Sends a request to one current node after another until one answers. Only the last one may take long.
    ///
    /// # Errors
    /// No node answered.
    pub async fn ask_any(&self, request: &Request) -> Result<NodeAnswer> {
        let (nodes, mut failure) = (self.current(), Error::NoNode);
        for (place, node) in nodes.iter().enumerate() {
            let patience = if place + 1 < nodes.len() { SHORT_QUESTION } else { TIMEOUT };
            match node.send_within(request, patience).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}
