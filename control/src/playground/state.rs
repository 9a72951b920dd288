//! `playground.json`: what a restart keeps and other commands read.

use crate::base::{
    error::{Error, Result},
    files,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// File name in the data folder.
const FILE: &str = "playground.json";

/// A playground's state, in its data folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The playground's pid.
    pub pid: u32,
    /// The URL for clients.
    pub url: String,
    /// The control plane's URL.
    pub control: String,
    /// The URL of the playground's own API.
    pub admin: String,
    /// The token of the playground's own API.
    pub token: String,
    /// Whether clients need keys.
    pub master_key: bool,
    /// The number of nodes that were added since the first start.
    #[serde(default)]
    pub added: u16,
    /// All ports, by process. A restart uses the same ones if they are free.
    pub ports: BTreeMap<String, u16>,
}

impl State {
    /// Reads the state.
    ///
    /// # Errors
    /// The file does not exist, or cannot be read.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes the state, readable by the owner only, because it contains a token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, data: &Path) -> Result<()> {
        files::replace(&data.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}
