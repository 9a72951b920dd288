//! The `miroir` binary: the control plane and its command line.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads: see base/output.rs"
)]

use anyhow::Context;
use clap::Parser;
use miroir_control::{
    base::{
        error::chain,
        log::{self, LogFormat},
        output,
    },
    cli::{Cli, Command, run},
};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.log_format();
    log::subscriber(format, std::io::stderr().is_terminal(), std::io::stderr).init();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = chain(&*error);
            match format {
                LogFormat::Text => output::print_error(format_args!("error: {error}\n")),
                LogFormat::Json => tracing::error!(%error, "the process ends"),
            }
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let mut builder = match cli.command {
        // The kernel kills a child when the thread that started it ends, so children must be started by a thread that lives as
        // long as the process.
        Command::Playground(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().context("the async runtime could not be started")?;
    runtime.block_on(run(cli)).map_err(anyhow::Error::from)
}
