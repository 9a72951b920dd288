//! `miroir serve`: runs the control plane.

mod load;
mod start;

pub use load::{Loaded, load};
pub use start::start;

use crate::{
    api,
    base::{
        config::{CONTROL_CLUSTER, ClusterConfig, ClusterFile},
        error::{Error, Result, chain},
        files::{self, Claim},
        listener,
        log::LogFormat,
        outbound::{Outbound, Policy},
        random::SystemRandom,
        secrets::Secrets,
        time::SystemClock,
        tls::{ControlTls, NodeTls},
    },
    cluster::{Cluster, Options, TaskLimits, World},
    ledger::{self, Ledger},
    node::Http,
    publish::{
        Publisher,
        folder::Folder,
        kubernetes::{self, Kubernetes},
        subscribers::Subscribers,
    },
};
use cidr::AnyIpCidr;
use miroir_core::trace::TracingConfig;
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;

/// Flags of `miroir serve`. Secrets come from the environment (`MIROIR_MASTER_KEY`, `MIROIR_SECRET`, `MIROIR_TOKEN`) or from
/// the data folder. Missing secrets are generated and kept there.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Address on which gateways and the command line connect
    #[arg(long, env = "MIROIR_LISTEN", default_value = "127.0.0.1:7799")]
    pub listen: SocketAddr,
    /// Folder of the ledger and of the secrets
    #[arg(long, env = "MIROIR_DATA", default_value = "miroir-data")]
    pub data: PathBuf,
    /// The cluster's description, JSON or YAML
    #[arg(long, env = "MIROIR_CONFIG")]
    pub config: Option<PathBuf>,
    /// A node, NAME=URL; repeat for each node, instead of --config
    #[arg(long = "node", conflicts_with = "config")]
    pub nodes: Vec<String>,
    /// Number of shards; used at the first start only
    #[arg(long)]
    pub shards: Option<u16>,
    /// Replicas of each shard; used at the first start only
    #[arg(long)]
    pub replication: Option<usize>,
    /// Folder that Envoy watches; the control plane writes cds.json and ecds.json to it
    #[arg(long, env = "MIROIR_PUBLISH_DIR")]
    pub publish_dir: Option<PathBuf>,
    /// Mode of these files, octal. They contain the gateways' secret, and Envoy must be able to read them: 0600 if Envoy runs
    /// as the same user, 0640 if it is in the folder's group
    #[arg(long, env = "MIROIR_PUBLISH_MODE", default_value = "0600", value_parser = publish_mode)]
    pub publish_mode: u32,
    /// The filter's module: its path on the gateways, or its URL
    #[arg(long, env = "MIROIR_WASM", default_value = "/etc/miroir/miroir_filter.wasm")]
    pub wasm: String,
    /// HOST:PORT at which Envoy reaches this control plane [default: the listening address]
    #[arg(long, env = "MIROIR_ADVERTISE")]
    pub advertise: Option<String>,
    /// The Envoy cluster that reaches this control plane, if you define your own
    #[arg(long, env = "MIROIR_CONTROL_CLUSTER", default_value = CONTROL_CLUSTER)]
    pub control_cluster: String,
    /// The Envoy cluster of a trace collector (OTLP over HTTP), if the description names none
    #[arg(long, env = "MIROIR_TRACING_CLUSTER")]
    pub tracing_cluster: Option<String>,
    /// NAMESPACE/NAME of the EnvoyFilter that carries the filter's configuration to Istio's gateways; in a Kubernetes pod only
    #[arg(long, env = "MIROIR_ENVOY_FILTER")]
    pub envoy_filter: Option<String>,
    /// URL of the Kubernetes API
    #[arg(long, env = "MIROIR_KUBERNETES_API", default_value = "https://kubernetes.default.svc")]
    pub kubernetes_api: String,
    /// The folder of the service account, with `token` and `ca.crt`
    #[arg(long, default_value = kubernetes::ACCOUNT)]
    pub service_account: PathBuf,
    /// TLS to nodes
    #[command(flatten)]
    pub tls: NodeTls,
    /// TLS on the control plane's own port
    #[command(flatten)]
    pub control_tls: ControlTls,
    /// Private networks that webhooks and exports may connect to: addresses, CIDR, or `any`; others are refused [default: none]
    #[arg(long, env = "MIROIR_ALLOWED_IP_NETWORKS", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub allowed_ip_networks: Vec<AnyIpCidr>,
    /// Clients use the cluster without keys
    #[arg(long, env = "MIROIR_NO_MASTER_KEY")]
    pub no_master_key: bool,
    /// Milliseconds after which a begin without a commit is recovered [default: the write timeout plus 5 s]
    #[arg(long)]
    pub commit_timeout_ms: Option<u64>,
    /// Milliseconds for which a gateway's callout may still be under way after its key was deleted [default: the write timeout]
    #[arg(long)]
    pub callout_timeout_ms: Option<u64>,
    /// The form of the log, on standard error: lines of text, or a JSON object a line
    #[arg(long, env = "MIROIR_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Runs the control plane until SIGTERM or Ctrl-C.
///
/// # Errors
/// The configuration is invalid, the ledger cannot be opened, or the port cannot be bound.
pub async fn serve(args: ServeArgs) -> Result<()> {
    let acceptor = args.control_tls.acceptor()?;
    let listener = TcpListener::bind(args.listen).await.map_err(Error::file(args.listen.to_string()))?;
    let address = listener.local_addr().map_err(Error::file("listener"))?;
    let mut claims = Vec::new();
    for folder in make_folders(&args)? {
        claims.push(Claim::of(folder).await?);
    }
    let cluster = open(&args, address).await?;
    if let Some(resource) = &args.envoy_filter {
        let publisher = publisher_id(&cluster).await?;
        let kubernetes = Kubernetes::new(resource, &args.kubernetes_api, &args.service_account, publisher)?;
        let publisher = cluster.publisher.clone();
        cluster.supervisor.keep("kubernetes", move || kubernetes.clone().run(publisher.clone()));
    }
    let state = json!({"control": format!("{}://{}", args.control_tls.scheme(), reachable(address)), "pid": std::process::id()});
    let path = args.data.join("control.json");
    std::fs::write(&path, state.to_string()).map_err(Error::file(&path))?;
    let app = api::router(cluster.clone());
    let server = listener::serve(listener, acceptor, app);
    tracing::info!(%address, "listening");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(Error::file("SIGTERM"))?;
    let failed = async {
        match start(cluster.clone()).await {
            Ok(()) => cluster.instance.stopped().await,
            Err(error) => error,
        }
    };
    // Nothing has to be drained: the next start resumes what is in the ledger.
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        error = failed => Err(error),
        ended = server => ended.map_err(Error::file("server")),
    }
}

/// Creates the missing folders that the control plane writes to, and returns all of them.
fn make_folders(args: &ServeArgs) -> Result<Vec<&Path>> {
    files::make_folder(&args.data, files::PRIVATE)?;
    let mut folders = vec![args.data.as_path()];
    if let Some(folder) = &args.publish_dir {
        files::make_folder(folder, args.publish_mode)?;
        folders.push(folder);
    }
    Ok(folders)
}

/// Reads a file mode, in octal.
fn publish_mode(text: &str) -> std::result::Result<u32, String> {
    let mode =
        u32::from_str_radix(text, 8).map_err(|error| format!("`{text}` is not an octal number: {error}"))?;
    match (mode & 0o600, mode & !0o644) {
        (0o600, 0) => Ok(mode),
        _ => Err(format!(
            "`{text}`: the owner must be able to read and write (0600), and others may only read (0644)"
        )),
    }
}

/// The random identifier of this ledger. It distinguishes control planes that publish to the same resource.
async fn publisher_id(cluster: &Cluster) -> Result<String> {
    let random = cluster.random.clone();
    cluster
        .ledger
        .call(move |connection| match ledger::meta(connection, "publisher")? {
            Some(id) => Ok(id),
            None => {
                let id = random.uuid().hyphenated().to_string();
                ledger::set_meta(connection, "publisher", &id)?;
                Ok(id)
            }
        })
        .await
}

/// The cluster's description, from the configuration file and flags.
///
/// # Errors
/// All errors in the configuration.
pub fn describe(args: &ServeArgs) -> Result<ClusterConfig> {
    let mut file = match &args.config {
        Some(path) => ClusterFile::read(path)?,
        None => ClusterFile::from_flags(&args.nodes)?,
    };
    if args.config.is_none() {
        file.replication = file.replication.min(file.nodes.len().max(1));
    }
    file.shards = args.shards.unwrap_or(file.shards);
    file.replication = args.replication.unwrap_or(file.replication);
    file.tracing = file.tracing.or_else(|| args.tracing_cluster.as_ref().map(TracingConfig::new));
    let config = file.validate()?;
    match config.nodes.iter().position(|node| node.cluster == args.control_cluster) {
        Some(node) => {
            let cluster = &args.control_cluster;
            Err(Error::Config(vec![format!("nodes[{node}].cluster: `{cluster}` is the control plane's")]))
        }
        None => Ok(config),
    }
}

/// Opens the ledger, initializes it at the first start, and assembles the cluster's shared state.
///
/// # Errors
/// The configuration is invalid, or the ledger cannot be opened.
pub async fn open(args: &ServeArgs, address: SocketAddr) -> Result<Arc<Cluster>> {
    let config = describe(args)?;
    make_folders(args)?;
    let secrets = Secrets::load(&args.data)?;
    let world = World {
        transport: Arc::new(Http::new(args.tls.client()?)),
        ledger: Ledger::open(&args.data)?,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let found = load(&world, &config).await?;
    if found.cluster_state.replicas.len() != usize::from(config.shards) {
        tracing::warn!(
            ledger = found.cluster_state.replicas.len(),
            configured = config.shards,
            "the number of shards cannot change: the ledger's number is used"
        );
    }
    let publisher = Publisher {
        folder: args.publish_dir.clone().map(|path| Folder::new(path, args.publish_mode)),
        wasm: absolute(&args.wasm),
        control: args.advertise.clone().unwrap_or_else(|| reachable(address)),
        control_cluster: args.control_cluster.clone(),
        tls: args.tls.upstream(),
        control_tls: args.control_tls.upstream(),
        secret: secrets.gateway_secret.clone(),
        read_key: args.no_master_key.then(|| secrets.key_text(found.read_key)),
        internal_key: secrets.key_text(found.read_key),
        snapshots: tokio::sync::watch::Sender::default(),
        subscribers: Subscribers::default(),
    };
    let write_timeout = config.limits.write_timeout_ms;
    let place = files::place(&[&args.data.join(ledger::FILE), &files::lock_of(&args.data)]);
    let options = Options {
        place,
        task_limits: TaskLimits::default(),
        read_key: found.read_key,
        user_master_key: !args.no_master_key,
        commit_timeout: Duration::from_millis(args.commit_timeout_ms.unwrap_or(write_timeout + 5_000)),
        callout_timeout: Duration::from_millis(args.callout_timeout_ms.unwrap_or(write_timeout)),
        outbound: Outbound::new(Policy::new(&args.allowed_ip_networks)).map_err(|error| {
            Error::Other(format!("the client for webhooks and exports cannot be made: {}", chain(&error)))
        })?,
    };
    Ok(Arc::new(Cluster::new(
        options,
        world,
        config,
        secrets,
        publisher,
        found.cluster_state,
        found.gateways,
    )))
}

/// An address that others can connect to: an unspecified one becomes the loopback address.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
}

fn absolute(path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    std::path::absolute(Path::new(path)).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_files_are_written_by_their_owner_only() {
        assert_eq!(["0600", "640", "0644"].map(publish_mode), [Ok(0o600), Ok(0o640), Ok(0o644)]);
        for wrong in ["0440", "0660", "0646", "0755", "4600", "rw", ""] {
            assert!(publish_mode(wrong).is_err(), "{wrong}");
        }
    }
}
