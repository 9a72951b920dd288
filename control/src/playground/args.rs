//! Flags of `miroir playground`.

use serde_json::{Map, Value};
use std::{net::SocketAddr, path::PathBuf};

/// Clap would take the text itself for a JSON value.
fn object(text: &str) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_str(text)
}

/// Flags of `miroir playground`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PlaygroundArgs {
    /// What to do with one that runs
    #[command(subcommand)]
    pub action: Option<Action>,
    /// How to run one
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do with a playground that runs.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// List its processes
    Ps(OfArgs),
    /// Kill a process (SIGKILL), to watch the cluster survive
    Kill {
        /// meili-0, gateway-0, control
        name: String,
        /// Which playground
        #[command(flatten)]
        of: OfArgs,
    },
    /// Start a process that was killed
    Start {
        /// meili-0, gateway-0, control
        name: String,
        /// Which playground
        #[command(flatten)]
        of: OfArgs,
    },
    /// Start another node, to be taken in with `miroir node add`
    Add(OfArgs),
}

/// Which playground.
#[derive(Clone, Debug, clap::Args)]
pub struct OfArgs {
    /// Its data folder
    #[arg(long, env = "MIROIR_DATA")]
    pub data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How to run a playground.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Meilisearch nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,
    /// Replicas a shard [default: 2, or 1 with one node]
    #[arg(long)]
    pub replication: Option<usize>,
    /// Shards
    #[arg(long, default_value_t = crate::base::config::default_shards())]
    pub shards: u16,
    /// Where clients connect; port 0 takes any
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Gateways; the others listen on the ports that follow
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub gateways: u16,
    /// How long a node may take for its part of a read, milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub search_timeout_ms: u64,
    /// How long a node may take to acknowledge its part of a write, milliseconds; writes that a gateway leaves open are
    /// recovered after twice as long and 5 s
    #[arg(long, default_value_t = 10_000)]
    pub write_timeout_ms: u64,
    /// How long a gateway that is silent keeps old copies from being deleted, milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub lease_ms: u64,
    /// More of the limits that gateways have, as JSON: `{"bodyTimeoutMs": 60000}`
    #[arg(long, value_parser = object)]
    pub limits: Option<Map<String, Value>>,
    /// What a read answers where a shard has no replica left
    #[arg(long, default_value = "partial", value_parser = ["partial", "error"])]
    pub on_missing_shards: String,
    /// A collector of traces (OTLP over HTTP), HOST:PORT
    #[arg(long)]
    pub otlp: Option<String>,
    /// Private networks that webhooks, exports and embedders may go to: addresses, CIDR, or `any` [default: none]
    #[arg(long, env = "MEILI_EXPERIMENTAL_ALLOWED_IP_NETWORKS")]
    pub allowed_ip_networks: Option<String>,
    /// The master key that clients know; without one, they need no key
    #[arg(long, env = "MEILI_MASTER_KEY", hide_env_values = true)]
    pub master_key: Option<String>,
    /// Where data is kept; without it, a temporary folder that is removed at the end
    #[arg(long, env = "MIROIR_DATA")]
    pub data: Option<PathBuf>,
    /// A real `meilisearch`; without it, the development node beside this program
    #[arg(long, env = "MEILISEARCH_BIN")]
    pub node_bin: Option<PathBuf>,
    /// Envoy; without it, .venv/bin/envoy, then `envoy` on the PATH
    #[arg(long, env = "ENVOY_BIN")]
    pub envoy: Option<PathBuf>,
    /// The filter's module [default: the workspace's release build]
    #[arg(long, env = "MIROIR_WASM")]
    pub wasm: Option<PathBuf>,
    /// Leaves the filter out, to try everything around it
    #[arg(long, env = "MIROIR_PLAYGROUND_NO_FILTER", hide = true)]
    pub no_filter: bool,
}
