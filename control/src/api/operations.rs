//! What operators ask for: `/_miroir/operations`, `/_miroir/topology`, `/_miroir/verify`, `/_miroir/repair`.

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
    verify::{self, Findings, Silent},
};
use axum::{Json, body::Bytes, http::HeaderMap};
use miroir_core::shard::Shard;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// Which shards.
    pub shards: Vec<Shard>,
}

/// What to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repair {
    /// Replicas that are to be made again from others.
    pub replicas: Vec<Silent>,
    /// Shards of which nodes have documents without a replica: these are to be deleted.
    #[serde(default)]
    pub strays: Vec<Silent>,
    /// How fast, until an operation says otherwise.
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
/// The token is not right, or the operation is refused.
pub async fn run(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Plan>> {
    let wanted = read(&cluster, &headers, &body)?;
    membership::run(&cluster, wanted).await.map(Json)
}

/// `GET /_miroir/topology`.
///
/// # Errors
/// The token is not right.
pub async fn show(cluster: Shared, headers: HeaderMap) -> Result<Json<TopologyFile>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    Ok(Json(topology(&cluster.view())))
}

/// `POST /_miroir/verify`.
///
/// # Errors
/// The token is not right, or a node does not answer.
pub async fn verify(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Findings>> {
    let Verify { shards } = read(&cluster, &headers, &body)?;
    verify::verify(&cluster, &shards).await.map(Json)
}

/// `POST /_miroir/repair`.
///
/// # Errors
/// The token is not right, or a replica is the last of its shard.
pub async fn repair(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Repair>> {
    let repair: Repair = read(&cluster, &headers, &body)?;
    if repair.pace.is_said() {
        membership::set_pace(&cluster, repair.pace).await?;
    }
    cluster
        .try_change(|view| {
            let mut errors = Vec::new();
            for Silent { shard, node } in &repair.replicas {
                if !view.mark_stale(*shard, node) {
                    errors.push(format!(
                        "shard {} on node `{node}` cannot be made again: no other copy of it is whole",
                        shard.0
                    ));
                }
            }
            for Silent { shard, node } in &repair.strays {
                if view.member(node).is_none() || !view.clear_away(*shard, node) {
                    errors.push(format!(
                        "documents of shard {} on node `{node}` cannot be deleted: it has, or is to have, a replica of it",
                        shard.0
                    ));
                }
            }
            if errors.is_empty() { Ok(()) } else { Err(Error::Refused(errors)) }
        })
        .await?;
    Ok(Json(repair))
}
