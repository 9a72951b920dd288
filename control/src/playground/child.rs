//! `miroir child`: asks the kernel to kill it when its parent dies, and then executes another program.
//!
//! It is a program of its own because code that runs between fork and exec in one process needs `unsafe`.

use crate::base::error::Error;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use std::os::unix::process::{CommandExt, parent_id};

/// Arguments of `miroir child`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChildArgs {
    /// The parent's pid
    #[arg(long)]
    pub parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Executes the program. Returns only if that fails.
#[must_use]
pub fn exec(args: &ChildArgs) -> Error {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return Error::Other(format!("cannot ask to be killed when the parent dies: {error}"));
    }
    // The parent may have died before the call.
    if parent_id() != args.parent {
        return Error::Other("the parent process has ended".to_owned());
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Error::Other("no program is given".to_owned());
    };
    Error::file(program)(std::process::Command::new(program).args(rest).exec())
}
