//! A development node: implements the part of Meilisearch's API that Miroir uses, with Meilisearch's own engine.
//!
//! With it, the demo and the tests run on a machine without a Meilisearch binary. It is not Meilisearch.

mod auth;
mod cli;
mod documents;
mod embedders;
mod error;
mod filter;
mod http;
mod indexes;
mod locale;
mod node;
mod process;
mod search;
mod settings;
mod store;
mod tasks;
mod uid;
mod validate;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::Options;
use crate::error::{ApiError, Result};
use crate::node::Node;

// `smartstring` and `arroy` are in the manifest only to pin their versions.
use {arroy as _, smartstring as _};

fn main() -> ExitCode {
    let options = Options::read();
    let filter = EnvFilter::try_new(format!("warn,miroir_devnode={}", options.log_level.to_lowercase()))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let weak = options.master_key.as_ref().is_none_or(|key| key.len() < 16);
    if options.env == "production" && weak {
        return Err(ApiError::internal(
            "in production, give a master key of at least 16 bytes with --master-key",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let address = options.http_addr.clone();
    let node = Arc::new(Node::open(options)?);
    let worker = worker::start(node.clone())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&address).await?;
        let address = listener.local_addr()?;
        // Launchers read the port from this line, so it must not depend on the log level.
        eprintln!("miroir-devnode: listening on http://{address}");
        let mut terminate = signal(SignalKind::terminate())?;
        let serve = axum::serve(listener, http::router(node.clone()));
        tokio::select! {
            ended = serve => ended?,
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok::<_, ApiError>(())
    })?;
    node.queue.close();
    // If the worker has panicked, its thread has logged that already.
    let _ = worker.join();
    tracing::info!("stopped");
    Ok(())
}
