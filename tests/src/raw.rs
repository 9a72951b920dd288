//! Sends requests with a raw request target: usual HTTP clients resolve dots and backslashes first.

use crate::Answer;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long to wait for the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request with exactly this target, and reads the whole answer.
///
/// # Errors
/// No answer came, or the answer is not HTTP.
pub fn ask_raw(
    url: &str,
    key: Option<&str>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    head.extend(key.map(|key| format!("authorization: Bearer {key}\r\n")));
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A server that answers before it has read the whole request may reset the connection after its answer.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !bytes.is_empty() => {}
        read => drop(read?),
    }
    read(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let rest = &bytes[end + 4..];
    let bytes = if is_chunked { chunks(rest)? } else { rest.to_vec() };
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Some(Answer { status, headers, body, bytes })
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(line + 2..line + 2 + length)?);
        rest = rest.get(line + 4 + length..)?;
    }
}
