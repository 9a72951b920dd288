//! A client that sends its body as it likes.

use crate::{MASTER_KEY, PATIENCE};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// A request whose body is on its way; the client leaves when this is dropped.
#[derive(Debug)]
pub struct Upload(TcpStream);

impl Upload {
    /// Connects, and sends the head of a JSON payload of so many bytes, under the master key.
    ///
    /// # Panics
    /// Nobody listens at `url`.
    #[must_use]
    pub fn start(url: &str, path: &str, length: usize) -> Self {
        Self::under(url, path, length, MASTER_KEY)
    }

    /// The same under another key.
    ///
    /// # Panics
    /// Nobody listens at `url`.
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
    /// The gateway has hung up.
    pub fn send(&mut self, part: &[u8]) {
        self.0.write_all(part).expect("a part is sent");
    }

    /// Sends a part of the body; `false` where the gateway has hung up.
    pub fn try_send(&mut self, part: &[u8]) -> bool {
        self.0.write_all(part).is_ok()
    }

    /// What has been answered after so long; nothing where nothing was.
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
