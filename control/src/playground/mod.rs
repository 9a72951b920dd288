//! `miroir playground`: a whole cluster on one machine, in one command.

pub mod args;
pub mod child;
mod logs;
pub mod ports;
mod programs;
pub mod socket;
pub mod state;
pub mod supervisor;

pub use args::PlaygroundArgs;

use crate::{
    bootstrap::{Bootstrap, Source},
    error::{Error, Result},
    secrets::{Secrets, random},
};
use args::RunArgs;
use indicatif::{ProgressBar, ProgressStyle};
use ports::Ports;
use programs::Programs;
use serde_json::json;
use state::State;
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use supervisor::{Spec, Supervisor};

/// How long everything may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asked for to see whether a search goes through; nobody has such an index.
const PROBE_INDEX: &str = "miroir-probe";

/// Runs a playground, or acts on one that runs.
///
/// # Errors
/// Something does not start.
pub async fn run(args: PlaygroundArgs) -> Result<()> {
    match &args.action {
        Some(action) => socket::act(action).await,
        None => {
            let (folder, _temporary) = folder(args.run.data.as_deref())?;
            let supervisor = Arc::new(Supervisor::new()?);
            let parent = parent_id();
            let result = tokio::select! {
                result = up(&args.run, &folder, &supervisor) => result,
                reason = asked_to_stop(parent) => {
                    eprintln!("stopping: {reason}");
                    Ok(())
                }
            };
            supervisor.stop().await;
            result
        }
    }
}

/// Where data goes; a temporary folder goes away with the guard.
fn folder(data: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match data {
        Some(data) => {
            std::fs::create_dir_all(data).map_err(Error::file(data))?;
            Ok((data.canonicalize().map_err(Error::file(data))?, None))
        }
        None => {
            let folder = tempfile::Builder::new()
                .prefix("miroir-")
                .tempdir()
                .map_err(Error::file("temporary folder"))?;
            Ok((folder.path().to_owned(), Some(folder)))
        }
    }
}

/// Ctrl-C, SIGTERM, SIGHUP, or a parent that is gone.
async fn asked_to_stop(parent: u32) -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    let orphaned = async {
        while parent_id() == parent {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => "interrupted",
        () = wait(SignalKind::terminate()) => "terminated",
        () = wait(SignalKind::hangup()) => "hung up",
        () = orphaned => "the parent is gone",
    }
}

/// Everything that is known before the first process starts.
struct Plan {
    data: PathBuf,
    programs: Programs,
    secrets: Secrets,
    state: State,
    listen: Vec<SocketAddr>,
}

/// Starts everything, says so, and watches it for ever.
async fn up(args: &RunArgs, data: &Path, supervisor: &Arc<Supervisor>) -> Result<()> {
    let plan = Arc::new(Plan::new(args, data)?);
    let socket = tokio::net::TcpListener::bind(plan.state.admin.trim_start_matches("http://"))
        .await
        .map_err(Error::file(&plan.state.admin))?;
    let more = NewNodes { plan: plan.clone(), started: args.nodes, added: Mutex::new(plan.state.added) };
    let router = socket::router(supervisor.clone(), more, plan.state.token.clone());
    tokio::spawn(async move { axum::serve(socket, router).await });
    let progress = spinner();
    let starting = start(args, &plan, supervisor, &progress);
    tokio::select! {
        result = starting => result?,
        error = failure(supervisor) => return Err(error),
    }
    progress.finish_and_clear();
    introduce(args, &plan, supervisor);
    logs::stream(supervisor).await;
    Ok(())
}

async fn start(args: &RunArgs, plan: &Plan, supervisor: &Supervisor, progress: &ProgressBar) -> Result<()> {
    progress.set_message("nodes");
    let nodes = args.nodes + plan.state.added;
    for node in 0..nodes {
        supervisor.add(plan.node(node))?;
    }
    for node in 0..nodes {
        let address = format!("http://127.0.0.1:{}", plan.port(&format!("meili-{node}")));
        until_ok(&format!("{address}/health"), None, &format!("meili-{node}")).await?;
    }
    progress.set_message("control plane");
    supervisor.add(plan.control(args)?)?;
    until_ok(&format!("{}/health", plan.state.control), None, "control").await?;
    progress.set_message("Envoy");
    // The first gateway comes last: its address answers only when everything is there.
    for gateway in (0..args.gateways).rev() {
        supervisor.add(plan.gateway(args, gateway)?)?;
        let Some(listen) = plan.listen.get(usize::from(gateway)) else { continue };
        let name = format!("gateway-{gateway}");
        if args.no_filter {
            until_ok(&format!("http://{}/health", connectable(*listen)), None, &name).await?;
        } else {
            let url = format!("http://{}/indexes/{PROBE_INDEX}/search", connectable(*listen));
            until_ok(&url, Some(&plan.secrets.master_key), &name).await?;
        }
    }
    Ok(())
}

/// Waits until a request succeeds: `GET`; or, under a key, a search, which a node answers for an index that is not there.
async fn until_ok(url: &str, search_key: Option<&str>, name: &str) -> Result<()> {
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap_or_default();
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        let request = match search_key {
            Some(key) => http.post(url).bearer_auth(key).json(&json!({})),
            None => http.get(url),
        };
        last = match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) if search_key.is_some() => match answer.text().await {
                Ok(text) if text.contains("index_not_found") => return Ok(()),
                Ok(text) => text,
                Err(error) => error.to_string(),
            },
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        };
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Err(Error::Other(format!("`{name}` did not come up at {url}: {last}")))
}

/// The first process that ends while others are still starting: its last words.
async fn failure(supervisor: &Supervisor) -> Error {
    loop {
        if let Some(process) = supervisor.reap().into_iter().next() {
            let log = supervisor.logs().remove(&process.name).unwrap_or_default();
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let words = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
            return Error::Other(format!("`{}` {}, its log ends so:\n{words}", process.name, process.state));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} starting: {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

fn introduce(args: &RunArgs, plan: &Plan, supervisor: &Supervisor) {
    let mut table = crate::cli::table(&["what", "where"]);
    for process in supervisor.list() {
        table.add_row([process.name, process.address]);
    }
    let data = plan.data.display();
    let key = if args.master_key.is_some() { " -H 'Authorization: Bearer YOUR_KEY'" } else { "" };
    let url = &plan.state.url;
    println!("{table}");
    println!("One Meilisearch, at {url}. Try:");
    println!("  curl {url}/indexes/movies/documents -H 'Content-Type: application/json'{key} \\");
    println!(
        "    --data '[{{\"id\": 1, \"title\": \"Carol\"}}, {{\"id\": 2, \"title\": \"Wonder Woman\"}}]'"
    );
    println!("  curl '{url}/indexes/movies/search?q=wonder'{key}");
    println!("  miroir status --data {data}");
    println!("  miroir playground kill meili-0 --data {data}    # and search again");
    println!("  miroir playground start meili-0 --data {data}");
    println!("Logs are in {data}/logs. Ctrl-C ends it all.");
}

/// An address that can be connected to, for one that is listened on.
fn connectable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())) } else { listen }
}

/// Nodes that are started later.
struct NewNodes {
    plan: Arc<Plan>,
    started: u16,
    added: Mutex<u16>,
}

impl NewNodes {
    /// Starts one more node.
    fn add(&self, supervisor: &Supervisor) -> Result<()> {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.started + *added;
        let port = Ports::new().take(None);
        supervisor.add(self.plan.node_at(number, port))?;
        *added += 1;
        let mut state = State::read(&self.plan.data)?;
        state.added = *added;
        state.ports.insert(format!("meili-{number}"), port);
        state.write(&self.plan.data)
    }
}

impl Plan {
    fn new(args: &RunArgs, data: &Path) -> Result<Self> {
        let programs = Programs::find(args)?;
        for folder in ["logs", "control", "xds", "envoy", "nodes"] {
            let folder = data.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        }
        let mut secrets = Secrets::load(&data.join("control"))?;
        if let Some(key) = &args.master_key {
            secrets.master_key.clone_from(key);
            secrets.store(&data.join("control"))?;
        }
        let before = State::read(data).unwrap_or_default();
        if before.pid != 0 && before.pid != std::process::id() && is_playground(&before) {
            return Err(Error::Other(format!(
                "a playground runs in {} already, pid {}",
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
            return Err(Error::Other(format!(
                "somebody listens on {} already: choose another --listen",
                args.listen
            )));
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
        Ok(Self { data: data.to_owned(), programs, secrets, state, listen })
    }

    fn port(&self, name: &str) -> u16 {
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

    fn node(&self, node: u16) -> Spec {
        self.node_at(node, self.port(&format!("meili-{node}")))
    }

    fn node_at(&self, node: u16, port: u16) -> Spec {
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
        spec
    }

    fn control(&self, args: &RunArgs) -> Result<Spec> {
        // Those that were added are in the ledger only once they have been taken in.
        let nodes: Vec<_> = (0..args.nodes + self.state.added)
            .map(|node| {
                let name = format!("meili-{node}");
                json!({"name": name, "url": format!("http://127.0.0.1:{}", self.port(&name))})
            })
            .collect();
        let replication = args.replication.unwrap_or(2.min(usize::from(args.nodes)));
        // A gateway that is killed here is meant to be watched: its writes are not waited for long.
        let limits = json!({
            "searchTimeoutMs": args.search_timeout_ms, "writeTimeoutMs": args.write_timeout_ms,
            "controlTimeoutMs": 30000, "leaseMs": args.lease_ms
        });
        let cluster = json!({
            "nodes": nodes, "shards": args.shards, "replication": replication, "limits": limits,
            "onMissingShards": args.on_missing_shards
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
        if args.master_key.is_none() {
            flags.push("--no-master-key".to_owned());
        }
        let mut spec =
            self.spec("control".to_owned(), &self.programs.own, flags, folder, self.state.control.clone());
        spec.env.push(("MIROIR_MASTER_KEY".to_owned(), self.secrets.master_key.clone()));
        Ok(spec)
    }

    fn gateway(&self, args: &RunArgs, gateway: u16) -> Result<Spec> {
        let name = format!("gateway-{gateway}");
        let listen = self.listen.get(usize::from(gateway)).copied().unwrap_or(args.listen);
        let folder = self.data.join("envoy");
        let config = folder.join(format!("{name}.yaml"));
        let bootstrap = Bootstrap {
            name: &name,
            listen,
            admin_port: self.port(&format!("admin-{gateway}")),
            source: Source::Files(&self.data.join("xds")),
            no_filter: args.no_filter,
        };
        std::fs::write(&config, bootstrap.render()).map_err(Error::file(&config))?;
        let flags = [
            "--config-path",
            &config.display().to_string(),
            "--concurrency",
            "2",
            // No hot restarts: gateways on one machine then share nothing.
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ];
        let flags = flags.map(ToOwned::to_owned).to_vec();
        Ok(self.spec(name, &self.programs.envoy, flags, folder, format!("http://{}", connectable(listen))))
    }
}

/// Whether the playground of that state still runs: it answers at its own address.
fn is_playground(state: &State) -> bool {
    let Ok(address) = state.admin.trim_start_matches("http://").parse::<SocketAddr>() else { return false };
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
}
