//! `miroir playground`: runs a whole cluster on one machine with one command.

pub mod args;
pub mod child;
mod logs;
mod plan;
pub mod ports;
mod programs;
pub mod socket;
pub mod state;
pub mod supervisor;

pub use args::PlaygroundArgs;

use crate::base::error::{Error, Result, chain};
use crate::base::output::{say, warn_user};
use args::RunArgs;
use indicatif::{ProgressBar, ProgressStyle};
use plan::{Plan, connectable};
use serde_json::json;
use state::State;
use std::{
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use supervisor::Supervisor;

/// How long all processes may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// The index of probe searches; it does not exist.
const PROBE_INDEX: &str = "miroir-probe";

/// Runs a playground, or acts on a running one.
///
/// # Errors
/// A process does not start, or the action fails.
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
                    warn_user!("stopping: {reason}");
                    Ok(())
                }
            };
            supervisor.stop().await;
            result
        }
    }
}

/// The data folder. Dropping the guard removes a temporary folder.
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

/// Waits for Ctrl-C, SIGTERM, SIGHUP or the end of the parent process, and returns the reason.
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

/// Starts everything, prints the addresses, and then watches the processes.
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
    let http = local_client()?;
    let nodes = args.nodes + plan.state.added;
    for node in 0..nodes {
        supervisor.add(plan.node(node))?;
    }
    for node in 0..nodes {
        let address = format!("http://127.0.0.1:{}", plan.port(&format!("meili-{node}")));
        until_ok(&http, &format!("{address}/health"), None, &format!("meili-{node}")).await?;
    }
    progress.set_message("control plane");
    supervisor.add(plan.control(args)?)?;
    until_ok(&http, &format!("{}/health", plan.state.control), None, "control").await?;
    progress.set_message("Envoy");
    // Start the first gateway last: its address answers only when everything runs.
    for gateway in (0..args.gateways).rev() {
        supervisor.add(plan.gateway(args, gateway)?)?;
        let Some(listen) = plan.listen.get(usize::from(gateway)) else { continue };
        let name = format!("gateway-{gateway}");
        if args.no_filter {
            until_ok(&http, &format!("http://{}/health", connectable(*listen)), None, &name).await?;
        } else {
            let url = format!("http://{}/indexes/{PROBE_INDEX}/search", connectable(*listen));
            until_ok(&http, &url, Some(&plan.secrets.master_key), &name).await?;
        }
    }
    Ok(())
}

/// A client of the playground's own processes, which listen on the loopback address without TLS: it reads no authorities, which
/// takes OpenSSL, if another crate of the build enables it in reqwest, 70 ms of processor time for each client.
fn local_client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().use_rustls_tls().tls_built_in_root_certs(false).no_proxy();
    client.build().map_err(|error| Error::Other(chain(&error).to_string()))
}

/// Waits until a request succeeds: a `GET`, or with a key a search, for which a node's `index_not_found` counts as success.
async fn until_ok(http: &reqwest::Client, url: &str, search_key: Option<&str>, name: &str) -> Result<()> {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        let request = match search_key {
            Some(key) => http.post(url).bearer_auth(key).json(&json!({})),
            None => http.get(url),
        };
        last = match request.timeout(Duration::from_secs(5)).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) if search_key.is_some() => match answer.text().await {
                Ok(text) if text.contains("index_not_found") => return Ok(()),
                Ok(text) => text,
                Err(error) => error.to_string(),
            },
            Ok(answer) => answer.status().to_string(),
            Err(error) => chain(&error).to_string(),
        };
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Err(Error::Other(format!("`{name}` did not start at {url}: {last}")))
}

/// Waits for a process that ends while others are starting. The error has the end of its log.
async fn failure(supervisor: &Supervisor) -> Error {
    loop {
        if let Some(process) = supervisor.reap().into_iter().next() {
            let log = supervisor.logs().remove(&process.name).unwrap_or_default();
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let words = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
            return Error::Other(format!(
                "`{}` {}; the end of its log:\n{words}",
                process.name, process.state
            ));
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
    let mut table = crate::base::table::table(&["what", "where"]);
    for process in supervisor.list() {
        table.add_row([process.name, process.address]);
    }
    let data = plan.data.display();
    let key = if args.master_key.is_some() { " -H 'Authorization: Bearer YOUR_KEY'" } else { "" };
    let url = &plan.state.url;
    say!("{table}");
    say!("One Meilisearch, at {url}. Try:");
    say!("  curl {url}/indexes/movies/documents -H 'Content-Type: application/json'{key} \\");
    say!("    --data '[{{\"id\": 1, \"title\": \"Carol\"}}, {{\"id\": 2, \"title\": \"Wonder Woman\"}}]'");
    say!("  curl '{url}/indexes/movies/search?q=wonder'{key}");
    say!("  miroir status --data {data}");
    say!("  miroir playground kill meili-0 --data {data}    # and search again");
    say!("  miroir playground start meili-0 --data {data}");
    say!("Logs are in {data}/logs. Ctrl-C stops everything.");
}

/// Starts more nodes later.
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
        let port = self.plan.ports.lock().unwrap_or_else(PoisonError::into_inner).take(None);
        supervisor.add(self.plan.node_at(number, port))?;
        *added += 1;
        let mut state = State::read(&self.plan.data)?;
        state.added = *added;
        state.ports.insert(format!("meili-{number}"), port);
        state.write(&self.plan.data)
    }
}
