//! The network of a cluster, which can be cut between any two of its processes.
//!
//! Connections to nodes and to the control plane go through proxies. A proxy finds out which process of the playground opened a
//! connection, by the connection's port (on Linux), so that it can hold up the connections of one process and not those of another.

use crate::sandbox::read_json;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

/// How a connection that is cut behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is closed at once, and so is every new one.
    Closed,
    /// Nothing arrives while it is cut. What was sent arrives afterwards: late, but whole.
    Silent,
}

/// The processes at the two ends of a connection: the one that opened it, and the one that accepted it.
type Ends = (String, String);

/// A network with proxies. They run until the test's process ends.
#[derive(Clone, Debug, Default)]
pub struct Network(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The playground's data folder, whose state file says where its processes listen, and whose children they are.
    playground: OnceLock<PathBuf>,
    cuts: Mutex<BTreeMap<Ends, Cut>>,
}

impl Network {
    /// Says whose processes it connects.
    pub fn connect(&self, data: PathBuf) {
        self.0.playground.get_or_init(|| data);
    }

    /// A proxy to the process of this name: `host:port`.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn way_to(&self, name: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shared, name) = (self.0.clone(), name.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, name) = (shared.clone(), name.clone());
                // A broken connection is noticed by its two ends.
                thread::spawn(move || shared.pass(stream, address, name).ok());
            }
        });
        address.to_string()
    }

    /// Cuts the connections that `from` opens to `to`.
    pub fn cut(&self, from: &str, to: &str, how: Cut) {
        self.0.cuts().insert((from.to_owned(), to.to_owned()), how);
    }

    /// Ends a cut.
    pub fn heal(&self, from: &str, to: &str) {
        self.0.cuts().remove(&(from.to_owned(), to.to_owned()));
    }
}

impl Shared {
    fn cuts(&self) -> MutexGuard<'_, BTreeMap<Ends, Cut>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a connection is silent. `false` if it is closed.
    fn is_open(&self, ends: &Ends) -> bool {
        loop {
            match self.cuts().get(ends) {
                None => return true,
                Some(Cut::Closed) => return false,
                Some(Cut::Silent) => {}
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn pass(self: &Arc<Self>, from: TcpStream, proxy: SocketAddr, name: String) -> std::io::Result<()> {
        let state =
            self.playground.get().map(|data| read_json(&data.join("playground.json"))).unwrap_or_default();
        let owner = owner(from.peer_addr()?, proxy, &state["pid"]).unwrap_or_default();
        let ends = (owner, name);
        let port = state["ports"][&ends.1].as_u64().and_then(|port| u16::try_from(port).ok());
        let Some(port) = port.filter(|_| self.is_open(&ends)) else { return Ok(()) };
        let to = TcpStream::connect(("127.0.0.1", port))?;
        // Small answers must not wait for acknowledgements.
        from.set_nodelay(true)?;
        to.set_nodelay(true)?;
        let (shared, back, answers, requests) =
            (self.clone(), ends.clone(), to.try_clone()?, from.try_clone()?);
        let back = thread::spawn(move || shared.copy(answers, requests, &back));
        self.copy(from, to, &ends);
        let _ = back.join();
        Ok(())
    }

    /// Passes on what comes, as long as the connection is not cut.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, ends: &Ends) {
        // A connection that is closed while nothing comes is closed here.
        let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
        let mut buffer = vec![0; 64 << 10];
        let is_idle = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        };
        loop {
            let read = match from.read(&mut buffer) {
                Err(error) if is_idle(&error) && self.is_open(ends) => continue,
                Ok(read) if read > 0 => read,
                _ => break,
            };
            if !self.is_open(ends) || to.write_all(&buffer[..read]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
        // An end of a silent connection hears of the other end's close only afterwards.
        let both = if self.is_open(ends) { Shutdown::Write } else { Shutdown::Both };
        let _ = to.shutdown(both);
    }
}

/// Which child of the playground has the socket whose port the proxy sees.
fn owner(peer: SocketAddr, proxy: SocketAddr, playground: &Value) -> Option<String> {
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let ends = (format!(":{:04X}", peer.port()), format!(":{:04X}", proxy.port()));
    let inode = sockets.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_it = fields.next()?.ends_with(&ends.0) && fields.next()?.ends_with(&ends.1);
        // State, queues, timer, retransmissions, user and timeout lie between.
        is_it.then(|| fields.nth(6)).flatten()
    })?;
    let socket = format!("socket:[{inode}]");
    // Each thread has the children that it has started.
    let threads = fs::read_dir(format!("/proc/{playground}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let mut children = children.iter().flat_map(|children| children.split_ascii_whitespace());
    children.find(|child| has(child, &socket)).and_then(name)
}

fn has(process: &str, socket: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket))
}

/// How the playground calls a process.
fn name(process: &str) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
    let mut arguments = line.split('\0');
    if arguments.nth(1) == Some("serve") {
        return Some("control".to_owned());
    }
    let file = arguments.find_map(|argument| argument.strip_suffix(".yaml"))?;
    Some(file.rsplit('/').next()?.to_owned())
}
