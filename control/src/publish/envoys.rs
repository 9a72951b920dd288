//! Who has which version of what is published: Envoys by gRPC, and others that are told.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Subscribers, by a number of their own.
#[derive(Clone, Debug, Default)]
pub struct Subscribers {
    all: Arc<Mutex<(u64, BTreeMap<u64, Subscriber>)>>,
}

/// One that is told of every version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// An Envoy's `node.id`, or a resource's name.
    pub name: String,
    /// How it is told: `gRPC`, `delta gRPC`, `Kubernetes`.
    pub by: String,
    /// The version that it has taken, by the kind of resource.
    pub accepted: BTreeMap<String, String>,
    /// What it refused last, until it takes a newer one.
    pub refused: Option<Refused>,
}

/// What a subscriber refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The kind of resource.
    pub kind: String,
    /// Its version.
    pub version: String,
    /// In the subscriber's own words.
    pub reason: String,
}

/// A subscriber's place in the list; it leaves with this value.
#[derive(Debug)]
pub struct Subscription {
    subscribers: Subscribers,
    number: u64,
}

impl Subscribers {
    /// One that comes.
    #[must_use]
    pub fn join(&self, by: &str) -> Subscription {
        let mut all = self.all();
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, Subscriber { by: by.to_owned(), ..Subscriber::default() });
        Subscription { subscribers: self.clone(), number }
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<Subscriber> {
        self.all().1.values().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Subscriber>)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// It has told its name.
    pub fn name(&self, name: &str) {
        self.change(|subscriber| name.clone_into(&mut subscriber.name));
    }

    /// It has taken a version.
    pub fn accepted(&self, kind: &str, version: &str) {
        self.change(|subscriber| {
            subscriber.accepted.insert(kind.to_owned(), version.to_owned());
            subscriber.refused.take_if(|refused| refused.kind == kind);
        });
    }

    /// It has refused a version, and keeps what it had.
    pub fn refused(&self, kind: &str, version: &str, reason: &str) {
        self.change(|subscriber| {
            tracing::error!(subscriber.name, kind, version, reason, "what was published is refused");
            let (kind, version, reason) = (kind.to_owned(), version.to_owned(), reason.to_owned());
            subscriber.refused = Some(Refused { kind, version, reason });
        });
    }

    /// Nothing in a version concerns it: what it had is that version too.
    pub fn unchanged(&self, kind: &str, version: &str) {
        self.change(|subscriber| {
            let is_refused = subscriber.refused.as_ref().is_some_and(|refused| refused.kind == kind);
            if let Some(accepted) = subscriber.accepted.get_mut(kind).filter(|_| !is_refused) {
                version.clone_into(accepted);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Subscriber)) {
        self.subscribers.all().1.get_mut(&self.number).map(change);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.all().1.remove(&self.number);
    }
}
