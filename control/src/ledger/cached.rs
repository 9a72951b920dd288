//! Statements that a connection parses once and keeps.

use rusqlite::{Connection, Params, Result, Row};

/// Runs statements, and keeps them parsed: calls of the ledger run the same few again and again.
pub(super) trait Cached {
    /// Like [`Connection::execute`].
    fn execute_cached(&self, sql: &str, params: impl Params) -> Result<usize>;

    /// Like [`Connection::query_row`].
    fn query_row_cached<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T>;
}

impl Cached for Connection {
    fn execute_cached(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    fn query_row_cached<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(params, read)
    }
}
