//! Routes for operators: `/_miroir/operations`, `/_miroir/topology`, `/_miroir/verify`, `/_miroir/repair`.

use super::{Shared, admin::TOKEN_HEADER, internal::require};
use crate::{
    base::{
        config::Pace,
        error::{Error, Result},
    },
    cluster::Cluster,
    membership::{
        self,
        change::{TopologyFile, topology},
        plan::Plan,
    },
    verify::{self, Findings, SilentReplica},
};
use axum::{Json, body::Bytes, http::HeaderMap};
use miroir_core::shard::Shard;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The shards whose copies are to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyRequest {
    /// The shards.
    pub shards: Vec<Shard>,
}

/// The replicas to be repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairRequest {
    /// Replicas to be rebuilt from others.
    pub replicas: Vec<SilentReplica>,
    /// Shards of which a node has misplaced documents, which are to be deleted.
    #[serde(default, rename = "strays")]
    pub misplaced: Vec<SilentReplica>,
    /// The pace of moves, until another operation changes it.
    #[serde(default)]
    pub pace: Pace,
}

fn read<T: DeserializeOwned>(cluster: &Cluster, headers: &HeaderMap, body: &Bytes) -> Result<T> {
    require(headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    serde_json::from_slice(body).map_err(|error| Error::Refused(vec![format!("unreadable request: {error}")]))
}

/// `POST /_miroir/operations`.
///
/// # Errors
/// The token is wrong, or the operation is refused.
pub async fn run(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Plan>> {
    let wanted = read(&cluster, &headers, &body)?;
    membership::run(&cluster, wanted).await.map(Json)
}

/// `GET /_miroir/topology`.
///
/// # Errors
/// The token is wrong.
pub async fn show(cluster: Shared, headers: HeaderMap) -> Result<Json<TopologyFile>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    Ok(Json(topology(&cluster.cluster_state())))
}

/// `POST /_miroir/verify`.
///
/// # Errors
/// The token is wrong, or a node does not answer.
pub async fn verify(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Findings>> {
    let VerifyRequest { shards } = read(&cluster, &headers, &body)?;
    verify::verify(&cluster, &shards).await.map(Json)
}

/// `POST /_miroir/repair`.
///
/// # Errors
/// The token is wrong; a replica is the only complete one of its shard; or documents are not misplaced.
pub async fn repair(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<RepairRequest>> {
    let repair: RepairRequest = read(&cluster, &headers, &body)?;
    if repair.pace.is_said() {
        membership::set_pace(&cluster, repair.pace).await?;
    }
    cluster
        .try_change(|cluster_state| {
            let mut errors = Vec::new();
            for SilentReplica { shard, node } in &repair.replicas {
                if !cluster_state.mark_stale(*shard, node) {
                    errors.push(format!(
                        "shard {} on node `{node}` cannot be rebuilt: no other replica of the shard is complete",
                        shard.0
                    ));
                }
            }
            for SilentReplica { shard, node } in &repair.misplaced {
                if cluster_state.member(node).is_none() || !cluster_state.mark_misplaced(*shard, node) {
                    errors.push(format!(
                        "documents of shard {} on node `{node}` cannot be deleted: the node has, or will get, a replica of this shard",
                        shard.0
                    ));
                }
            }
            if errors.is_empty() { Ok(()) } else { Err(Error::Refused(errors)) }
        })
        .await?;
    Ok(Json(repair))
}
