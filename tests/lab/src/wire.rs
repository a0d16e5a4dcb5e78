//! Bytes of a WebSocket connection for peers of minimal cost: no parser, no random mask, always the
//! same bytes.

use std::io::{self, Read, Write};

use crate::Opcode;

/// A browser's opening handshake (RFC 6455 §4.1), with the example key of §1.3.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The answer to [`REQUEST`] (§4.2.2).
pub const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

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

/// The sender of a frame: a client masks (§5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

/// A whole unfragmented frame (§5.2) with a `payload` of zeros; a client's mask is zero too.
pub fn frame(sender: Sender, opcode: Opcode, payload: usize) -> Vec<u8> {
    let mask = match sender {
        Sender::Client => 0x80,
        Sender::Server => 0,
    };
    let mut frame = vec![0x80 | code(opcode)];
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short @ 0..=125), _) => frame.push(mask | short),
        (_, Ok(medium)) => {
            frame.push(mask | 126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend((payload as u64).to_be_bytes());
        }
    }
    let key = if mask == 0 { 0 } else { 4 };
    frame.resize(frame.len() + key + payload, 0);
    frame
}

fn code(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_has_its_shortest_encoding() {
        for (payload, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let bytes = frame(Sender::Server, Opcode::Binary, payload);
            assert_eq!(bytes[..header.len()], *header);
            assert_eq!(bytes.len(), header.len() + payload);
        }
    }

    #[test]
    fn a_client_frame_is_masked() {
        let pong = frame(Sender::Client, Opcode::Pong, 4);
        assert_eq!(pong, [0x8a, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
