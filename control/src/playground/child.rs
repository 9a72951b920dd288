//! `miroir child`: asks the kernel to be killed when its parent dies, and becomes another program.
//!
//! It takes a program between, since what runs between fork and exec in one process would need unsafe code.

use crate::base::error::Error;
use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use std::os::unix::process::{CommandExt, parent_id};

/// Arguments of `miroir child`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChildArgs {
    /// The parent's pid, as it sees itself
    #[arg(long)]
    pub parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Becomes the program; returns only what went wrong.
#[must_use]
pub fn exec(args: &ChildArgs) -> Error {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return Error::Other(format!("cannot be tied to its parent: {error}"));
    }
    // The parent may have died before the kernel was told.
    if parent_id() != args.parent {
        return Error::Other("its parent is gone".to_owned());
    }
    let Some((program, rest)) = args.command.split_first() else {
        return Error::Other("there is no program".to_owned());
    };
    Error::file(program)(std::process::Command::new(program).args(rest).exec())
}
