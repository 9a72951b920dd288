//! Values of rows that stand for something: what cannot be read is an error that names its row, and is never taken for nothing, which
//! would be stored in its place.

use crate::base::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// A value of a row, as errors name it.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    /// Its table.
    pub table: &'static str,
    /// The key of its row.
    pub row: &'a dyn Display,
    /// Its column.
    pub column: &'static str,
}

impl Cell<'_> {
    /// The error that names it.
    pub fn unreadable(self, problem: impl Display) -> Error {
        let Self { table, row, column } = self;
        Error::UnreadableRow { table, row: row.to_string(), column, problem: problem.to_string() }
    }

    /// Reads a short text as what it stands for.
    ///
    /// # Errors
    /// It stands for nothing.
    pub fn parse<T, E: Display>(
        self,
        text: &str,
        parse: impl FnOnce(&str) -> std::result::Result<T, E>,
    ) -> Result<T> {
        parse(text).map_err(|error| self.unreadable(format!("`{text}`: {error}")))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// It is none, or of another form. The error does not show it: settings and webhooks have secrets in them.
    pub fn json<T: DeserializeOwned>(self, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.unreadable(format!("unreadable JSON: {error}")))
    }
}
