//! Free ports on the loopback address, below the range that the kernel uses for outgoing connections.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

const RANGE: std::ops::Range<u16> = 10_000..30_000;
/// How many ports in a row a playground has for itself: as many as one usually needs, also if nodes are added to it.
const ROW: u16 = 40;
/// The folder with a file for each row of ports, in the folder for temporary files. A playground locks the file of its row.
const FOLDER: &str = "miroir-playground-ports";

/// Hands out free ports, each one once.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    given: BTreeSet<u16>,
    /// The lock of its row, which is released when the process ends.
    _row: Option<File>,
}

impl Ports {
    /// Starts at a random row of ports that no other playground has. So a port stays free for a process that is killed and started again.
    #[must_use]
    pub fn new() -> Self {
        Self::locked_in(&std::env::temp_dir().join(FOLDER))
    }

    fn locked_in(folder: &Path) -> Self {
        let rows = (RANGE.end - RANGE.start) / ROW;
        let first = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(rows)).unwrap_or(0);
        let mut rows = (0..rows).map(|row| (first + row) % rows).peekable();
        let of_row = |row: u16| RANGE.start + row * ROW;
        let next = rows.peek().map_or(RANGE.start, |row| of_row(*row));
        // Without the files, the ports are only likely to be its own.
        let locked = rows.find_map(|row| Some((of_row(row), lock(folder, row)?)));
        let (next, row) = locked.map_or((next, None), |(next, file)| (next, Some(file)));
        Self { next, given: BTreeSet::new(), _row: row }
    }

    /// The wanted port if it is free, else another one.
    pub fn take(&mut self, wanted: Option<u16>) -> u16 {
        if let Some(port) = wanted.filter(|port| *port != 0 && is_free(*port) && !self.given.contains(port)) {
            self.given.insert(port);
            return port;
        }
        loop {
            let port = self.next;
            self.next = if port + 1 >= RANGE.end { RANGE.start } else { port + 1 };
            if !self.given.contains(&port) && is_free(port) {
                self.given.insert(port);
                return port;
            }
        }
    }

    /// The first free port from this one on.
    pub fn following(&mut self, first: u16) -> u16 {
        let free = (first..u16::MAX).find(|port| !self.given.contains(port) && is_free(*port));
        self.take(free)
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

/// Locks a row of ports; `None` if another process has it, or the file cannot be opened.
fn lock(folder: &Path, row: u16) -> Option<File> {
    fs::create_dir_all(folder).ok()?;
    let file =
        File::options().create(true).truncate(false).write(true).open(folder.join(row.to_string())).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Whether no process listens on the port.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playgrounds_do_not_take_each_others_ports() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows: Vec<Ports> = (0..100).map(|_| Ports::locked_in(folder.path())).collect();
        let mut taken = BTreeSet::new();
        for ports in &mut rows {
            assert!((0..10).all(|_| taken.insert(ports.take(None))), "a port is taken twice");
        }
        drop(rows);
        assert!(lock(folder.path(), 0).is_some());
        assert!(Ports::locked_in(&folder.path().join("absent\0")).take(None) >= RANGE.start);
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut ports = Ports::new();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().port();
        let first = ports.take(Some(taken));
        assert_ne!(first, taken, "somebody listens there");
        assert_ne!(ports.take(Some(first)), first);
        assert_ne!(ports.following(first), first);
    }
}
