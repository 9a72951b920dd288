//! A client that controls when each part of its body is sent.

use crate::{MASTER_KEY, PATIENCE};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// A request whose body is being sent. The client disconnects when this value is dropped.
#[derive(Debug)]
pub struct Upload(TcpStream);

impl Upload {
    /// Connects, and sends the head of a request with a JSON payload of `length` bytes and the master key.
    ///
    /// # Panics
    /// No server listens at `url`.
    #[must_use]
    pub fn start(url: &str, path: &str, length: usize) -> Self {
        Self::under(url, path, length, MASTER_KEY)
    }

    /// Like [`Self::start`], with another key.
    ///
    /// # Panics
    /// No server listens at `url`.
    #[must_use]
    pub fn under(url: &str, path: &str, length: usize, key: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a gateway");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the head is sent");
        Self(stream)
    }

    /// Sends a part of the body.
    ///
    /// # Panics
    /// The gateway has closed the connection.
    pub fn send(&mut self, part: &[u8]) {
        self.0.write_all(part).expect("a part is sent");
    }

    /// Sends a part of the body; `false` if the gateway has closed the connection.
    pub fn try_send(&mut self, part: &[u8]) -> bool {
        self.0.write_all(part).is_ok()
    }

    /// The part of the answer that arrives within `time`; empty if nothing does.
    ///
    /// # Panics
    /// The connection cannot be read.
    #[must_use]
    pub fn answered_within(&mut self, time: Duration) -> String {
        self.0.set_read_timeout(Some(time)).expect("a timeout");
        let mut answer = [0; 4096];
        let length = self.0.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).to_lowercase()
    }

    /// Reads the whole answer.
    ///
    /// # Panics
    /// There is none within [`PATIENCE`].
    #[must_use]
    pub fn answer(mut self) -> String {
        // It may be shorter since an earlier look.
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).expect("an answer");
        answer
    }
}
