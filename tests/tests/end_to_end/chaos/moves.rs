//! A node joins the cluster and leaves it, again and again.

use super::{World, history::History};
use miroir_tests::{Random, pass, wait_until};
use serde_json::Value;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// The node that comes and goes.
pub struct Moves<'w> {
    world: &'w World,
    history: &'w History,
    name: String,
    url: String,
    /// Held while it joins or leaves.
    moving: Mutex<()>,
    count: AtomicU32,
}

impl<'w> Moves<'w> {
    /// Starts the node, outside of the cluster.
    pub fn new(world: &'w World, history: &'w History) -> Self {
        let name = world.cluster.add_node();
        let url = world.url_of(&name);
        Self { world, history, name, url, moving: Mutex::default(), count: AtomicU32::new(0) }
    }

    /// How often it has joined or left.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The nodes of the cluster that stay in it.
    pub fn nodes(&self) -> Vec<String> {
        let status = self.world.cluster.status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let is_in = nodes.iter().any(|node| node["name"] == self.name.as_str());
        let mut names: Vec<String> = (0..3).map(|number| format!("meili-{number}")).collect();
        names.extend(is_in.then(|| self.name.clone()));
        names
    }

    /// No node joins or leaves as long as the guard is held; `None` if one does now.
    pub fn may_lose_nothing(&self) -> Option<MutexGuard<'_, ()>> {
        self.moving.try_lock().ok()
    }

    /// Joins and leaves until all is over.
    pub fn join_and_leave(&self, mut random: Random, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            random.pause(4_000);
            let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
            if self.member().is_null() {
                self.run(&["node", "add", &format!("{}={}", self.name, self.url)]);
            } else {
                self.run(&["node", "drain", &self.name]);
                self.run(&["node", "remove", &self.name]);
            }
            // The command may have failed, where the control plane was killed; what it began goes on.
            while !over.load(Ordering::Relaxed) && !self.is_over() {
                pass(Duration::from_millis(100));
            }
        }
    }

    fn run(&self, arguments: &[&str]) {
        self.history.happened(arguments.join(" "));
        let output = self.world.cluster.miroir(arguments);
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        self.history.happened(format!("{}: {} {said}", arguments.join(" "), output.status));
        self.count.fetch_add(u32::from(output.status.success()), Ordering::Relaxed);
    }

    fn member(&self) -> Value {
        self.world.cluster.member(&self.name)
    }

    /// Whether the node is whole, or is outside of the cluster and has forgotten it.
    fn is_over(&self) -> bool {
        let status = self.world.cluster.status();
        let member = self.member();
        if member.is_null() {
            let number = self.name.trim_start_matches("meili-").parse().unwrap();
            let indexes = self.world.cluster.node(number).try_send("GET", "/indexes", None, Vec::new());
            return status["ready"] == true && indexes.is_ok_and(|indexes| indexes.body["total"] == 0);
        }
        status["moving"] == false
            && member["behind"] == false
            && member["stale"] == 0
            && member["leaving"] == false
    }

    /// Waits until the node is in the cluster or outside, and nothing moves.
    pub fn finish(&self) {
        wait_until("nothing moves", || self.is_over() && self.world.cluster.status()["moving"] == false);
    }
}
