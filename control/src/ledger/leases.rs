//! Which VMs of gateways may have a lease.

use super::{meta, set_meta};
use crate::base::error::Result;
use rusqlite::Connection;

/// Where it is noted that all gateways' VMs are known that have a lease.
const LEASES: &str = "leases";

/// The VMs of gateways that may have a lease; `None` where nobody knows, since an older build has given them.
///
/// # Errors
/// The database failed.
pub fn leases(connection: &Connection) -> Result<Option<Vec<String>>> {
    if meta(connection, LEASES)?.is_none() {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT vm FROM leases ORDER BY vm")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(Some(names.collect::<rusqlite::Result<_>>()?))
}

/// From now on all that have a lease are known.
///
/// # Errors
/// The database failed.
pub fn know_leases(connection: &Connection) -> Result<()> {
    set_meta(connection, LEASES, "known")
}

/// Stores which VMs have, or are about to get, a lease.
///
/// # Errors
/// The database failed.
pub fn store_leases(connection: &Connection, vms: &[String]) -> Result<()> {
    connection.execute("DELETE FROM leases", [])?;
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO leases (vm) VALUES (?1)")?;
    for vm in vms {
        insert.execute([vm])?;
    }
    Ok(())
}
