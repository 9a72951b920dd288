//! `miroir shards`.

use super::{QueryArgs, client};
use crate::base::output::say;
use crate::{
    api::admin::ShardStatus,
    base::{error::Result, table::table},
};

/// Prints where each shard's replicas are.
///
/// # Errors
/// The control plane does not answer.
pub async fn run(args: &QueryArgs) -> Result<()> {
    let shards: Vec<ShardStatus> = client::get(args, "/_miroir/shards").await?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&shards)?);
        return Ok(());
    }
    let mut rows = table(&["shard", "active", "stale", "old"]);
    for shard in shards {
        rows.add_row([
            shard.shard.to_string(),
            shard.active.join(" "),
            shard.stale.join(" "),
            shard.old.join(" "),
        ]);
    }
    say!("{rows}");
    Ok(())
}
