//! `playground.json`: what a restart keeps and what other commands look up.

use crate::base::{
    error::{Error, Result},
    files,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// File name in the data folder.
const FILE: &str = "playground.json";

/// A playground's addresses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The playground's process.
    pub pid: u32,
    /// Where clients connect.
    pub url: String,
    /// The control plane.
    pub control: String,
    /// The playground's own address.
    pub admin: String,
    /// Opens the playground's own address.
    pub token: String,
    /// Clients use keys.
    pub master_key: bool,
    /// Nodes that were added to those that it started with.
    #[serde(default)]
    pub added: u16,
    /// All ports, by what they are for: a restart takes the same ones, where they are free.
    pub ports: BTreeMap<String, u16>,
}

impl State {
    /// Reads it.
    ///
    /// # Errors
    /// There is none.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes it, for the owner only: it holds a token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, data: &Path) -> Result<()> {
        files::replace(&data.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}
