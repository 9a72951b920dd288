//! A small HTTP server inside a test, used as an embedder, as the target of a webhook, or as a fake node.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// Answers every request with status 200 and the JSON that `answer` returns for its head (in lower case) and its body. Returns
/// the URL. The server runs until the test's process ends.
///
/// # Panics
/// The server cannot listen.
pub fn serve(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> String {
    serve_at(Ipv4Addr::LOCALHOST, answer)
}

/// Like [`serve`], on another loopback address.
///
/// # Panics
/// The server cannot listen.
pub fn serve_at(address: Ipv4Addr, answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // Errors are ignored: a client that has disconnected needs no answer.
            thread::spawn(move || one(stream, &*answer).ok());
        }
    });
    url
}

fn one(stream: TcpStream, answer: &impl Fn(&str, &[u8]) -> String) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            stream.by_ref().take(size).read_to_end(&mut body)?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    } else {
        stream.by_ref().take(length.unwrap_or(0)).read_to_end(&mut body)?;
    }
    let body = answer(&head, &body);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    write!(stream.get_mut(), "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
