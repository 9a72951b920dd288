//! The processes of a playground, with their arguments and ports.

use super::{
    args::RunArgs,
    ports::{self, Ports},
    programs::Programs,
    state::State,
    supervisor::Spec,
};
use crate::{
    base::{
        error::{Error, Result},
        files,
        secrets::{Secrets, random},
    },
    publish::bootstrap::{Bootstrap, MAX_HEAP_BYTES, OTLP_CLUSTER, Source, host_and_port},
};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

/// Meilisearch's environment variable for the memory that indexing may use.
const INDEXING_MEMORY: &str = "MEILI_MAX_INDEXING_MEMORY";

/// Meilisearch's environment variable for the private networks that it may connect to.
const ALLOWED_NETWORKS: &str = "MEILI_EXPERIMENTAL_ALLOWED_IP_NETWORKS";

/// All that is decided before the first process starts.
pub(super) struct Plan {
    pub(super) data: PathBuf,
    pub(super) programs: Programs,
    pub(super) secrets: Secrets,
    pub(super) state: State,
    pub(super) listen: Vec<SocketAddr>,
    /// Kept as long as the playground runs: nobody else gets its ports.
    pub(super) ports: Mutex<Ports>,
    /// Private networks that nodes may connect to.
    networks: Option<String>,
}

impl Plan {
    pub(super) fn new(args: &RunArgs, data: &Path) -> Result<Self> {
        let programs = Programs::find(args)?;
        for folder in ["logs", "control", "xds", "envoy", "nodes"] {
            let folder = data.join(folder);
            files::make_folder(&folder, files::PRIVATE)?;
        }
        let mut secrets = Secrets::load(&data.join("control"))?;
        if let Some(key) = &args.master_key {
            secrets.master_key.clone_from(key);
            secrets.store(&data.join("control"))?;
        }
        let before = State::read(data).unwrap_or_default();
        if before.pid != 0 && before.pid != std::process::id() && is_playground(&before) {
            return Err(Error::Other(format!(
                "a playground is already running in {}, pid {}",
                data.display(),
                before.pid
            )));
        }
        let mut ports = Ports::new();
        let mut state = State {
            pid: std::process::id(),
            token: random(),
            master_key: args.master_key.is_some(),
            added: before.added,
            ..State::default()
        };
        let mut take = |name: String, wanted: Option<u16>| {
            let port = ports.take(wanted.or_else(|| before.ports.get(&name).copied()));
            state.ports.insert(name, port);
            port
        };
        let wanted = Some(args.listen.port()).filter(|port| *port != 0);
        let first = take("gateway-0".to_owned(), wanted);
        if wanted.is_some_and(|wanted| wanted != first) {
            return Err(Error::Other(format!("{} is already in use: choose another --listen", args.listen)));
        }
        let mut listen = vec![SocketAddr::new(args.listen.ip(), first)];
        for gateway in 0..args.gateways {
            take(format!("admin-{gateway}"), None);
            if gateway > 0 {
                let name = format!("gateway-{gateway}");
                let next = (first.saturating_add(gateway)..=u16::MAX).find(|port| ports::is_free(*port));
                let port = take(name, before.ports.get(&format!("gateway-{gateway}")).copied().or(next));
                listen.push(SocketAddr::new(args.listen.ip(), port));
            }
        }
        for node in 0..args.nodes + before.added {
            take(format!("meili-{node}"), None);
        }
        let control = take("control".to_owned(), None);
        let admin = take("playground".to_owned(), None);
        state.url = format!("http://{}", connectable(SocketAddr::new(args.listen.ip(), first)));
        state.control = format!("http://127.0.0.1:{control}");
        state.admin = format!("http://127.0.0.1:{admin}");
        state.write(data)?;
        Ok(Self {
            data: data.to_owned(),
            programs,
            secrets,
            state,
            listen,
            ports: Mutex::new(ports),
            networks: args.allowed_ip_networks.clone(),
        })
    }

    pub(super) fn port(&self, name: &str) -> u16 {
        self.state.ports.get(name).copied().unwrap_or(0)
    }

    fn spec(
        &self,
        name: String,
        program: &Path,
        args: Vec<String>,
        folder: PathBuf,
        address: String,
    ) -> Spec {
        let log = self.data.join("logs").join(format!("{name}.log"));
        Spec { name, program: program.to_owned(), args, env: Vec::new(), folder, log, address }
    }

    pub(super) fn node(&self, node: u16) -> Spec {
        self.node_at(node, self.port(&format!("meili-{node}")))
    }

    pub(super) fn node_at(&self, node: u16, port: u16) -> Spec {
        let name = format!("meili-{node}");
        let folder = self.data.join("nodes").join(&name);
        let address = format!("127.0.0.1:{port}");
        let args = [
            "--db-path",
            &folder.join("data.ms").display().to_string(),
            "--http-addr",
            &address,
            "--env",
            "development",
            "--no-analytics",
        ];
        let args = args.map(ToOwned::to_owned).to_vec();
        let mut spec = self.spec(name, &self.programs.node, args, folder, format!("http://{address}"));
        spec.env.push(("MEILI_MASTER_KEY".to_owned(), self.secrets.master_key.clone()));
        if let Some(networks) = &self.networks {
            spec.env.push((ALLOWED_NETWORKS.to_owned(), networks.clone()));
        }
        // By default, each node would use up to two thirds of the machine's memory.
        if std::env::var_os(INDEXING_MEMORY).is_none() {
            spec.env.push((INDEXING_MEMORY.to_owned(), "512MiB".to_owned()));
        }
        spec
    }

    pub(super) fn control(&self, args: &RunArgs) -> Result<Spec> {
        // Nodes that were added later are in the ledger only once they have joined the cluster.
        let nodes: Vec<_> = (0..args.nodes + self.state.added)
            .map(|node| {
                let name = format!("meili-{node}");
                let url = format!("http://127.0.0.1:{}", self.port(&name));
                json!({"name": name, "url": url, "zone": zone(args, node)})
            })
            .collect();
        let replication = args.replication.unwrap_or(2.min(usize::from(args.nodes)));
        // The timeouts are short, so that one can watch how the cluster recovers the writes of a killed gateway.
        let mut limits = json!({
            "searchTimeoutMs": args.search_timeout_ms, "writeTimeoutMs": args.write_timeout_ms,
            "controlTimeoutMs": 30000, "leaseMs": args.lease_ms
        });
        if let (Some(limits), Some(more)) = (limits.as_object_mut(), &args.limits) {
            limits.extend(more.clone());
        }
        let cluster = json!({
            "nodes": nodes, "shards": args.shards, "replication": replication, "limits": limits,
            "onMissingShards": args.on_missing_shards,
            "readZone": if args.zones.is_some() { "prefer" } else { "any" },
            "tracing": args.otlp.as_ref().map(|_| json!({"cluster": OTLP_CLUSTER}))
        });
        let config = self.data.join("cluster.json");
        std::fs::write(&config, serde_json::to_vec_pretty(&cluster)?).map_err(Error::file(&config))?;
        let folder = self.data.join("control");
        let path = |path: &Path| path.display().to_string();
        let listen = format!("127.0.0.1:{}", self.port("control"));
        let mut flags = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--listen", listen),
            ("--data", path(&folder)),
            ("--config", path(&config)),
            ("--publish-dir", path(&self.data.join("xds"))),
            ("--wasm", path(&self.programs.wasm)),
        ] {
            flags.extend([flag.to_owned(), value]);
        }
        if let Some(networks) = &args.allowed_ip_networks {
            flags.extend(["--allowed-ip-networks".to_owned(), networks.clone()]);
        }
        if args.master_key.is_none() {
            flags.push("--no-master-key".to_owned());
        }
        let mut spec =
            self.spec("control".to_owned(), &self.programs.own, flags, folder, self.state.control.clone());
        spec.env.push(("MIROIR_MASTER_KEY".to_owned(), self.secrets.master_key.clone()));
        Ok(spec)
    }

    pub(super) fn gateway(&self, args: &RunArgs, gateway: u16) -> Result<Spec> {
        let name = format!("gateway-{gateway}");
        let listen = self.listen.get(usize::from(gateway)).copied().unwrap_or(args.listen);
        let folder = self.data.join("envoy");
        let config = folder.join(format!("{name}.yaml"));
        let zone = zone(args, gateway);
        let bootstrap = Bootstrap {
            name: &name,
            zone: zone.as_deref(),
            listen,
            admin_port: self.port(&format!("admin-{gateway}")),
            max_heap_bytes: MAX_HEAP_BYTES,
            source: Source::Files(&self.data.join("xds")),
            otlp: args.otlp.as_deref().map(|address| host_and_port("--otlp", address)).transpose()?,
            no_filter: args.no_filter,
        };
        std::fs::write(&config, bootstrap.render()).map_err(Error::file(&config))?;
        let flags = [
            "--config-path",
            &config.display().to_string(),
            "--concurrency",
            "2",
            // Without hot restarts, gateways on one machine share nothing.
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ];
        let flags = flags.map(ToOwned::to_owned).to_vec();
        Ok(self.spec(name, &self.programs.envoy, flags, folder, format!("http://{}", connectable(listen))))
    }
}

/// The zone of a node or gateway with this number.
fn zone(args: &RunArgs, number: u16) -> Option<String> {
    args.zones.map(|zones| format!("zone-{}", number % zones))
}

/// Whether the playground of this state still runs: it accepts connections on its own address.
fn is_playground(state: &State) -> bool {
    let Ok(address) = state.admin.trim_start_matches("http://").parse::<SocketAddr>() else { return false };
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
}

/// The address to connect to, for a listening address that may be unspecified.
pub(super) fn connectable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())) } else { listen }
}
