//! Which version of the published resources each subscriber has: Envoys connected by gRPC, and the Kubernetes resource.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The current subscribers, by an internal number.
#[derive(Clone, Debug, Default)]
pub struct Subscribers {
    all: Arc<Mutex<(u64, BTreeMap<u64, Subscriber>)>>,
}

/// A subscriber: it gets every published version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// The Envoy's `node.id`, or the name of the Kubernetes resource.
    pub name: String,
    /// How it gets versions: `gRPC`, `delta gRPC` or `Kubernetes`.
    pub by: String,
    /// The version that it last accepted, by kind of resource.
    pub accepted: BTreeMap<String, String>,
    /// What it last refused, until it accepts another version.
    pub refused: Option<Refused>,
}

/// A version that a subscriber refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The kind of resource.
    pub kind: String,
    /// The version in the last answer.
    pub version: String,
    /// The subscriber's error message.
    pub reason: String,
}

/// A subscriber's entry in the list. Dropping this removes it.
#[derive(Debug)]
pub struct Subscription {
    subscribers: Subscribers,
    number: u64,
}

impl Subscribers {
    /// Adds a subscriber.
    #[must_use]
    pub fn join(&self, by: &str) -> Subscription {
        let mut all = self.all();
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, Subscriber { by: by.to_owned(), ..Subscriber::default() });
        Subscription { subscribers: self.clone(), number }
    }

    /// All current subscribers.
    #[must_use]
    pub fn list(&self) -> Vec<Subscriber> {
        self.all().1.values().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Subscriber>)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Sets the subscriber's name.
    pub fn name(&self, name: &str) {
        self.change(|subscriber| name.clone_into(&mut subscriber.name));
    }

    /// Notes that the subscriber accepted a version.
    pub fn accepted(&self, kind: &str, version: &str) {
        self.change(|subscriber| {
            subscriber.accepted.insert(kind.to_owned(), version.to_owned());
            subscriber.refused.take_if(|refused| refused.kind == kind);
        });
    }

    /// Notes that the subscriber refused a version and keeps its previous one.
    pub fn refused(&self, kind: &str, version: &str, reason: &str) {
        self.change(|subscriber| {
            tracing::error!(
                subscriber.name,
                kind,
                version,
                reason,
                "a subscriber refused the published version"
            );
            let (kind, version, reason) = (kind.to_owned(), version.to_owned(), reason.to_owned());
            subscriber.refused = Some(Refused { kind, version, reason });
        });
    }

    /// Notes a version that changes nothing for the subscriber: what it has counts as that version.
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
