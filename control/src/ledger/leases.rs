//! Which VMs of gateways may have a lease.

use super::{cached::Cached, meta, set_meta};
use crate::base::error::Result;
use rusqlite::Connection;

/// The `meta` key that is set once the table `leases` has every VM that may have a lease.
const LEASES: &str = "leases";

/// The gateways' VMs that may have a lease. `None` if they are unknown, because an older build, which did not store them,
/// granted leases.
///
/// # Errors
/// The database failed.
pub fn leases(connection: &Connection) -> Result<Option<Vec<String>>> {
    if meta(connection, LEASES)?.is_none() {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT vm FROM leases ORDER BY vm")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(Some(names.collect::<rusqlite::Result<_>>()?))
}

/// Notes that the table `leases` is complete from now on.
///
/// # Errors
/// The database failed.
pub fn know_leases(connection: &Connection) -> Result<()> {
    set_meta(connection, LEASES, "known")
}

/// Stores which VMs have a lease, or are about to get one.
///
/// # Errors
/// The database failed.
pub fn store_leases(connection: &Connection, vms: &[String]) -> Result<()> {
    connection.execute_cached("DELETE FROM leases", [])?;
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO leases (vm) VALUES (?1)")?;
    for vm in vms {
        insert.execute([vm])?;
    }
    Ok(())
}
