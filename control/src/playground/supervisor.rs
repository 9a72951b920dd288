//! Starts, watches, kills and restarts the playground's processes. None outlives the playground.

use crate::base::error::{Error, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `meili-0`, `gateway-0`, `control`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables that are added to the environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub folder: PathBuf,
    /// The file for its output.
    pub log: PathBuf,
    /// Its URL.
    pub address: String,
}

/// The status of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// Its name.
    pub name: String,
    /// `running`, `killed`, `exited: …`.
    pub state: String,
    /// Its pid while it runs.
    pub pid: Option<u32>,
    /// Its URL.
    pub address: String,
    /// Seconds since its start or its end.
    pub seconds: u64,
}

#[derive(Debug)]
struct Process {
    spec: Spec,
    child: Option<Child>,
    state: String,
    since: Instant,
}

/// All processes, in the order of their start.
#[derive(Debug)]
pub struct Supervisor {
    /// This program's path, resolved at the start, because a newer build may replace the file while it runs.
    own: PathBuf,
    processes: Mutex<Vec<Process>>,
}

impl Supervisor {
    /// A supervisor without processes.
    ///
    /// # Errors
    /// This program cannot be found.
    pub fn new() -> Result<Self> {
        let own = std::env::current_exe().map_err(Error::file("this program"))?;
        Ok(Self { own, processes: Mutex::default() })
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn add(&self, spec: Spec) -> Result<()> {
        let child = spawn(&self.own, &spec)?;
        let state = "running".to_owned();
        self.processes().push(Process { spec, child: Some(child), state, since: Instant::now() });
        Ok(())
    }

    /// Kills a process with SIGKILL.
    ///
    /// # Errors
    /// No process of that name runs.
    pub fn kill(&self, name: &str) -> Result<()> {
        let mut processes = self.processes();
        let process = find(&mut processes, name)?;
        let child = process.child.as_mut().ok_or_else(|| Error::Other(format!("`{name}` is not running")))?;
        child.kill().map_err(Error::file(name))?;
        child.wait().map_err(Error::file(name))?;
        process.child = None;
        process.state = "killed".to_owned();
        process.since = Instant::now();
        Ok(())
    }

    /// Starts a process that is not running.
    ///
    /// # Errors
    /// There is no process of that name, or it is running, or it cannot be started.
    pub fn start(&self, name: &str) -> Result<()> {
        let mut processes = self.processes();
        let process = find(&mut processes, name)?;
        if process.child.is_some() {
            return Err(Error::Other(format!("`{name}` is already running")));
        }
        process.child = Some(spawn(&self.own, &process.spec)?);
        process.state = "running".to_owned();
        process.since = Instant::now();
        Ok(())
    }

    /// All processes: nodes, the control plane, gateways, each kind sorted by number.
    #[must_use]
    pub fn list(&self) -> Vec<ProcessView> {
        let processes = self.processes();
        let view = |process: &Process| ProcessView {
            name: process.spec.name.clone(),
            state: process.state.clone(),
            pid: process.child.as_ref().map(Child::id),
            address: process.spec.address.clone(),
            seconds: process.since.elapsed().as_secs(),
        };
        let mut views: Vec<ProcessView> = processes.iter().map(view).collect();
        // Gateways start in reverse order, so the list is sorted.
        views.sort_by_key(|view| {
            (view.name.starts_with("gateway-"), view.name == "control", view.name.len(), view.name.clone())
        });
        views
    }

    /// The log file of each process.
    #[must_use]
    pub fn logs(&self) -> BTreeMap<String, PathBuf> {
        self.processes().iter().map(|process| (process.spec.name.clone(), process.spec.log.clone())).collect()
    }

    /// The processes that have ended by themselves since the last call.
    pub fn reap(&self) -> Vec<ProcessView> {
        let mut ended = Vec::new();
        for process in self.processes().iter_mut() {
            let Some(child) = &mut process.child else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                process.child = None;
                process.state = format!("exited: {status}");
                process.since = Instant::now();
                ended.push(process.spec.name.clone());
            }
        }
        self.list().into_iter().filter(|view| ended.contains(&view.name)).collect()
    }

    /// Ends all processes, the last one first: with SIGTERM, and after some seconds with SIGKILL.
    pub async fn stop(&self) {
        let mut last = self.list();
        last.reverse();
        for process in &last {
            if let Some(pid) = process.pid.and_then(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            self.reap();
            if self.list().iter().all(|process| process.pid.is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for process in self.list().iter().filter(|process| process.pid.is_some()) {
            let _ = self.kill(&process.name);
        }
    }
}

/// Kills the processes, however the playground's function ends.
impl Drop for Supervisor {
    fn drop(&mut self) {
        for process in self.processes().iter_mut() {
            if let Some(child) = &mut process.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn find<'a>(processes: &'a mut [Process], name: &str) -> Result<&'a mut Process> {
    let names: Vec<String> = processes.iter().map(|process| process.spec.name.clone()).collect();
    processes
        .iter_mut()
        .find(|process| process.spec.name == name)
        .ok_or_else(|| Error::Other(format!("there is no `{name}`; there are {}", names.join(", "))))
}

/// Starts a process in its own process group, so that a terminal's Ctrl-C does not reach it. The kernel kills it when this
/// process dies.
fn spawn(own: &Path, spec: &Spec) -> Result<Child> {
    std::fs::create_dir_all(&spec.folder).map_err(Error::file(&spec.folder))?;
    let log = OpenOptions::new().create(true).append(true).open(&spec.log).map_err(Error::file(&spec.log))?;
    let errors = log.try_clone().map_err(Error::file(&spec.log))?;
    Command::new(own)
        .arg("child")
        .args(["--parent", &std::process::id().to_string(), "--"])
        .arg(&spec.program)
        .args(&spec.args)
        // Variables that configure this program must not configure the programs that it starts.
        .env_remove("MIROIR_DATA")
        .env_remove("MEILI_MASTER_KEY")
        .envs(spec.env.iter().cloned())
        .current_dir(&spec.folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(Error::file(&spec.program))
}
