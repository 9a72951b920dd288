//! The `miroir` binary: the control plane and its command line.

use anyhow::Context;
use clap::Parser;
use miroir_control::{
    base::{error::chain, log},
    cli::{Cli, Command, run},
};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log::subscriber(cli.log_format(), std::io::stderr().is_terminal(), std::io::stderr).init();
    let mut builder = match cli.command {
        // Children are told to die with the thread that made them: it must be one that lives as long as the process.
        Command::Playground(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().context("the async runtime could not be started")?;
    runtime.block_on(run(cli)).map_err(anyhow::Error::from)
}
