//! What commands print. Nobody may read it any more, as with `| head`: `println!` would panic then.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
};

/// The exit code of a command whose output is not read to its end, as a shell tells that of a program that SIGPIPE has ended.
const NOT_READ: i32 = 141;

/// Prints to standard output, like `println!`. If nobody reads it any more, the process ends.
macro_rules! say {
    ($($text:tt)*) => { $crate::base::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints to standard error, like `eprintln!`. If nobody reads it any more, nothing happens.
macro_rules! warn_user {
    ($($text:tt)*) => { $crate::base::output::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {say, warn_user};

/// Prints to standard output. If nobody reads it any more, the process ends.
pub fn print(text: Arguments<'_>) {
    let mut output = io::stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(NOT_READ),
        // There is nowhere to tell of a full disk, for example, but the exit code.
        Err(_) => std::process::exit(1),
        Ok(()) => {}
    }
}

/// Prints to standard error, if somebody reads it.
pub fn print_error(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
