//! Flags of `miroir playground`.

use serde_json::{Map, Value};
use std::{net::SocketAddr, path::PathBuf};

/// Without this parser, clap would make the text a JSON string.
fn object(text: &str) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_str(text)
}

/// Flags of `miroir playground`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PlaygroundArgs {
    /// Action on a running playground
    #[command(subcommand)]
    pub action: Option<Action>,
    /// How to run a playground
    #[command(flatten)]
    pub run: RunArgs,
}

/// An action on a running playground.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// List its processes
    Ps(OfArgs),
    /// Kill a process (SIGKILL), to watch the cluster survive
    Kill {
        /// Name of the process: meili-0, gateway-0, control
        name: String,
        /// Which playground
        #[command(flatten)]
        of: OfArgs,
    },
    /// Start a process that was killed
    Start {
        /// Name of the process: meili-0, gateway-0, control
        name: String,
        /// Which playground
        #[command(flatten)]
        of: OfArgs,
    },
    /// Start another node, which `miroir node add` can add to the cluster
    Add(OfArgs),
}

/// Which playground.
#[derive(Clone, Debug, clap::Args)]
pub struct OfArgs {
    /// The playground's data folder
    #[arg(long, env = "MIROIR_DATA")]
    pub data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How to run a playground.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Number of Meilisearch nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,
    /// Replicas of each shard [default: 2, or 1 with one node]
    #[arg(long)]
    pub replication: Option<usize>,
    /// Number of shards
    #[arg(long, default_value_t = crate::base::config::default_shards())]
    pub shards: u16,
    /// Address on which clients connect; port 0 for any free port
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Number of gateways; the first listens on --listen, the others on the following ports
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub gateways: u16,
    /// Zones that nodes and gateways are spread over; each gateway reads from nodes of its own
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub zones: Option<u16>,
    /// Timeout of a node's part of a read, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub search_timeout_ms: u64,
    /// Timeout of a node's part of a write, in milliseconds; writes that a gateway leaves open are recovered after twice this
    /// time plus 5 s
    #[arg(long, default_value_t = 10_000)]
    pub write_timeout_ms: u64,
    /// Lease of gateways, in milliseconds: how long a silent gateway keeps old copies from being deleted
    #[arg(long, default_value_t = 5_000)]
    pub lease_ms: u64,
    /// More limits of gateways, as JSON, for example `{"bodyTimeoutMs": 60000}`
    #[arg(long, value_parser = object)]
    pub limits: Option<Map<String, Value>>,
    /// What a read answers if a shard has no replica left
    #[arg(long, default_value = "partial", value_parser = ["partial", "error"])]
    pub on_missing_shards: String,
    /// HOST:PORT of a trace collector (OTLP over HTTP)
    #[arg(long)]
    pub otlp: Option<String>,
    /// Private networks that webhooks, exports and embedders may connect to: addresses, CIDR, or `any` [default: none]
    #[arg(long, env = "MEILI_EXPERIMENTAL_ALLOWED_IP_NETWORKS")]
    pub allowed_ip_networks: Option<String>,
    /// Master key for clients; without one, clients need no key
    #[arg(long, env = "MEILI_MASTER_KEY", hide_env_values = true)]
    pub master_key: Option<String>,
    /// Data folder; without it, a temporary folder that is removed at the end
    #[arg(long, env = "MIROIR_DATA")]
    pub data: Option<PathBuf>,
    /// Path of a real `meilisearch`; without it, the development node next to this program is used
    #[arg(long, env = "MEILISEARCH_BIN")]
    pub node_bin: Option<PathBuf>,
    /// Path of Envoy; without it, .venv/bin/envoy, then `envoy` on the PATH
    #[arg(long, env = "ENVOY_BIN")]
    pub envoy: Option<PathBuf>,
    /// The filter's module [default: the workspace's release build]
    #[arg(long, env = "MIROIR_WASM")]
    pub wasm: Option<PathBuf>,
    /// Leave the filter out, to try everything else
    #[arg(long, env = "MIROIR_PLAYGROUND_NO_FILTER", hide = true)]
    pub no_filter: bool,
}
