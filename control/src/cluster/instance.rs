//! This process among the control planes that have served the cluster, and whether it must not serve it any more.

use crate::base::error::{Error, Result};
use tokio::sync::watch;
use uuid::Uuid;

/// This start of a control plane.
#[derive(Debug)]
pub struct Instance {
    /// Its random id.
    pub id: Uuid,
    /// Why it must not serve the cluster.
    stopped: watch::Sender<Option<String>>,
}

impl Instance {
    /// An instance that may serve the cluster as far as is known.
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self { id, stopped: watch::Sender::default() }
    }

    /// Notes why it must not serve the cluster: the process ends. The first reason stays.
    pub fn stop(&self, why: impl Into<String>) {
        let why = why.into();
        self.stopped.send_if_modified(|stopped| {
            let is_first = stopped.is_none();
            if is_first {
                tracing::error!(why, "this control plane must not serve the cluster");
                *stopped = Some(why);
            }
            is_first
        });
    }

    /// Whether it must not serve the cluster.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    /// # Errors
    /// It must not serve the cluster.
    pub fn check(&self) -> Result<()> {
        self.stopped.borrow().clone().map_or(Ok(()), |why| Err(Error::Superseded(why)))
    }

    /// Waits until it must not serve the cluster.
    pub async fn stopped(&self) -> Error {
        let mut stopped = self.stopped.subscribe();
        loop {
            let why = stopped.borrow_and_update().clone();
            if let Some(why) = why {
                return Error::Superseded(why);
            }
            if stopped.changed().await.is_err() {
                // The sender is here.
                std::future::pending::<()>().await;
            }
        }
    }
}
