//! What has happened, in order: faults, operations and what was heard of them.

use miroir_tests::{model::Change, tell};
use std::{
    env, fs,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

#[derive(Debug)]
struct Event {
    at: Duration,
    /// What it concerns: an index and an id, or nothing in particular.
    about: String,
    what: String,
}

/// All events of a run. Where the run fails, what concerns the failure is told, and the whole is kept in a file.
#[derive(Debug)]
pub struct History {
    seed: u64,
    begun: Instant,
    events: Mutex<Vec<Event>>,
    /// Of what the run has found to be wrong: events about it are told.
    wrong: Mutex<Vec<String>>,
}

impl History {
    pub fn begin(seed: u64) -> Self {
        Self { seed, begun: Instant::now(), events: Mutex::default(), wrong: Mutex::default() }
    }

    /// Something that concerns all: a fault, an operation on a whole index or on the cluster.
    pub fn happened(&self, what: impl Into<String>) {
        self.note(String::new(), what.into());
    }

    /// A write of one document, or a read.
    pub fn note(&self, about: String, what: String) {
        let event = Event { at: self.begun.elapsed(), about, what };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Something is not as it must be.
    pub fn is_wrong(&self, about: &str, what: &str) {
        self.note(about.to_owned(), format!("WRONG: {what}"));
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{about}: {what}"));
    }

    /// Something about a change: it concerns the documents that it names, or all.
    pub fn note_change(&self, change: &Change, what: &str) {
        let ids = change.ids();
        ids.iter().for_each(|id| self.note((*id).to_owned(), what.to_owned()));
        if ids.is_empty() {
            self.happened(what);
        }
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self) {
        let wrong = self.wrong();
        let mut whole = String::new();
        for event in self.events.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let line = format!("{:9.3} {} {}", event.at.as_secs_f32(), event.about, event.what);
            let concerns = |wrong: &String| wrong.starts_with(&format!("{}: ", event.about));
            if event.about.is_empty() || wrong.iter().any(concerns) {
                tell!("{line}");
            }
            whole.push_str(&line);
            whole.push('\n');
        }
        let path = env::temp_dir().join(format!("miroir-chaos-{}.log", self.seed));
        match fs::write(&path, whole) {
            Ok(()) => tell!("the whole history: {}", path.display()),
            Err(error) => tell!("{}: {error}", path.display()),
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
    }
}
