//! A client that sends its body as it likes.

use crate::MASTER_KEY;
use std::{
    io::{Read, Write},
    net::TcpStream,
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
        let address = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a gateway");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {MASTER_KEY}\r\n\
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

    /// Reads the whole answer.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn answer(mut self) -> String {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).expect("an answer");
        answer
    }
}
