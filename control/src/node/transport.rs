//! The edge of a node's client: whole requests go out, whole answers come in. Everything that the control plane asks of a node goes
//! through [`Transport`], so that a test or a simulation can put a model node behind it.

use super::NodeAnswer;
use crate::base::error::Cause;
use axum::{body::Bytes, http::Method};
use futures_util::future::BoxFuture;
use std::{fmt, time::Duration};

/// One HTTP request to a node, with all that is sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: url::Url,
    /// `Authorization`, unless the request has none.
    pub authorization: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The body.
    pub body: Bytes,
    /// How long the whole of it may take, from the connection to the last byte of the answer.
    pub timeout: Duration,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// There was no connection, so that the node has nothing of the request. Where this is not known, it is `false`.
    pub is_unsent: bool,
    /// What went wrong; it names no path, since paths may hold clients' keys.
    pub source: Cause,
}

/// Carries requests to nodes.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// No whole answer came within the request's timeout.
    fn send(&self, call: Call) -> BoxFuture<'_, Result<NodeAnswer, NoAnswer>>;
}
