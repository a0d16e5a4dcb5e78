//! The opening handshake of RFC 6455 §1.3 and §4.

use std::io::{self, Read, Write};

/// A client's request.
pub const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\n\
    Host: 10.0.0.2:8080\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The answer to [`REQUEST`].
pub const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Upgrades a client's new connection with [`REQUEST`]; the headers of the 101 are not checked.
///
/// # Errors
/// The stream's error, or `InvalidData` for another answer.
pub fn upgrade(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut head = Vec::new();
    // Byte by byte, because frames may follow at once.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    Err(io::Error::new(io::ErrorKind::InvalidData, head))
}
