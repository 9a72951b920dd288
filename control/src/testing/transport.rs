//! A transport that answers by a script.

use crate::node::{Call, NoAnswer, NodeAnswer, Transport};
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::{
    fmt,
    io::{Error, ErrorKind},
    sync::{Arc, Mutex},
};

/// What becomes of a request.
pub enum Reply {
    /// The node answers: status and body.
    Answer(u16, Value),
    /// Nobody listens.
    NoConnection,
    /// The node takes it, and does not answer before the request's timeout.
    Silence,
}

type Answers = dyn Fn(&Call) -> Reply + Send + Sync;

/// Answers by a script, and keeps what it was asked.
pub struct Script {
    answers: Box<Answers>,
    calls: Mutex<Vec<Call>>,
}

impl fmt::Debug for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Script").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Script {
    /// A transport with this script.
    pub fn new(answers: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answers: Box::new(answers), calls: Mutex::default() })
    }

    /// What it was asked, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

impl Transport for Script {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<NodeAnswer, NoAnswer>> {
        let reply = (self.answers)(&call);
        let timeout = call.timeout;
        self.calls.lock().unwrap().push(call);
        let failed = |is_unsent, kind: ErrorKind| NoAnswer { is_unsent, source: Error::from(kind).into() };
        Box::pin(async move {
            match reply {
                Reply::Answer(status, body) => Ok(NodeAnswer {
                    status,
                    content_type: Some("application/json".into()),
                    allow: None,
                    body: body.to_string().into(),
                }),
                Reply::NoConnection => Err(failed(true, ErrorKind::ConnectionRefused)),
                Reply::Silence => {
                    tokio::time::sleep(timeout).await;
                    Err(failed(false, ErrorKind::TimedOut))
                }
            }
        })
    }
}
