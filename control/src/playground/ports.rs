//! Free ports on the loopback address, below the range that the kernel uses for outgoing connections.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

const RANGE: std::ops::Range<u16> = 10_000..30_000;

/// Hands out free ports, each one once.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    given: BTreeSet<u16>,
}

impl Ports {
    /// Starts at a random port of the range, so that playgrounds that start at the same time do not compete for the same ports.
    #[must_use]
    pub fn new() -> Self {
        let seed = uuid::Uuid::new_v4().as_u128() % u128::from(RANGE.end - RANGE.start);
        Self { next: RANGE.start + u16::try_from(seed).unwrap_or(0), given: BTreeSet::new() }
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

/// Whether no process listens on the port.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
