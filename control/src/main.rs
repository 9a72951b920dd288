//! The `miroir` binary: the control plane and its command line.

use anyhow::Context;
use clap::Parser;
use miroir_control::cli::{Cli, run};
use std::io::IsTerminal;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("MIROIR_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime could not be started")?;
    runtime.block_on(run(cli)).map_err(anyhow::Error::from)
}
