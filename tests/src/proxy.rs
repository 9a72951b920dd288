//! A proxy to a node that simulates a node unreachable for Envoy: it forwards Envoy's connections only after it was opened.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A TCP proxy. It runs until the test's process ends.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    is_open: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy to `http://host:port` that refuses Envoy's connections.
    ///
    /// # Panics
    /// The server cannot listen.
    #[must_use]
    pub fn closed_to_envoy(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let is_open = Arc::new(AtomicBool::new(false));
        let (to, open) = (to.trim_start_matches("http://").to_owned(), is_open.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, open) = (to.clone(), open.clone());
                // A broken connection is noticed by its two ends.
                thread::spawn(move || pass(stream, &to, &open).ok());
            }
        });
        Self { url, is_open }
    }

    /// The URL of the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on, forwards Envoy's connections too.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, to: &str, is_open: &AtomicBool) -> std::io::Result<()> {
    let mut first = vec![0; 4096];
    let read = from.read(&mut first)?;
    first.truncate(read);
    // These headers mark Envoy's health checks and callouts.
    let head = String::from_utf8_lossy(&first).to_lowercase();
    let is_envoys = head.contains("user-agent: envoy") || head.contains("x-envoy-");
    if is_envoys && !is_open.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut node = TcpStream::connect(to)?;
    node.write_all(&first)?;
    let (mut back_from, mut back_to) = (node.try_clone()?, from.try_clone()?);
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
        back_to.shutdown(Shutdown::Both)
    });
    let _ = std::io::copy(&mut from, &mut node);
    let _ = node.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}
