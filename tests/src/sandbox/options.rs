//! What a cluster is like.

/// What a cluster is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Meilisearch nodes.
    pub nodes: u16,
    /// Replicas a shard.
    pub replication: u16,
    /// Shards.
    pub shards: u16,
    /// Gateways.
    pub gateways: u16,
    /// Zones that nodes and gateways are in by turns; 0 for none.
    pub zones: u16,
    /// Whether clients need `MASTER_KEY`.
    pub master_key: bool,
    /// How long a node may take to acknowledge its part of a write, in milliseconds. Recoveries wait this long too.
    pub write_timeout_ms: u64,
    /// The lease of gateways, in milliseconds: how long old copies are kept for a gateway that does not report.
    pub lease_ms: u64,
    /// How long a node may take for its part of a read, in milliseconds.
    pub search_timeout_ms: u64,
    /// The answer to a read when a shard has no replica left: `partial` or `error`.
    pub on_missing_shards: &'static str,
    /// More limits of gateways, as JSON.
    pub limits: &'static str,
    /// The collector of traces, as `host:port`.
    pub otlp: Option<&'static str>,
    /// More environment variables of all processes. Each node runs in its own folder.
    pub env: &'static [(&'static str, &'static str)],
    /// The size of each node's disk, in mebibytes, where mounting is permitted: for [`Sandbox::fill_disk`](crate::Sandbox::fill_disk).
    pub disk_mib: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            replication: 2,
            shards: 16,
            gateways: 1,
            zones: 0,
            master_key: true,
            write_timeout_ms: 10_000,
            lease_ms: 2_000,
            search_timeout_ms: 5_000,
            on_missing_shards: "partial",
            limits: "{}",
            otlp: None,
            env: &[],
            disk_mib: None,
        }
    }
}
