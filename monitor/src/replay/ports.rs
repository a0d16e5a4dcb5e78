//! Finds the WebSocket ports of a recording.

use std::{collections::BTreeSet, io::Read};

use monitor_common::{
    frame::Head,
    handshake::{OPENING_LEN, Opening},
    replay::behind_proxy_header,
};

use super::{capture::Capture, headers};

/// The ports that receive a request to upgrade to WebSocket, or send a 101. Reads the recording up to
/// its end or its first error; a second read ends at the same point.
pub fn websocket_ports<R: Read>(capture: &mut Capture<R>) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    loop {
        let Ok(Some(packet)) = capture.next_packet() else {
            return ports;
        };
        let Ok(tcp) = headers::tcp(&packet) else {
            continue;
        };
        let payload = behind_proxy_header(tcp.payload);
        match opening(payload) {
            Opening::Request if requests_websocket(payload) => {
                ports.insert(tcp.destination.port());
            }
            Opening::Switching => {
                ports.insert(tcp.source.port());
            }
            _ => {}
        }
    }
}

fn opening(payload: &[u8]) -> Opening {
    let mut head = Head::default();
    for (i, byte) in (0_u8..).zip(payload.iter().take(OPENING_LEN as usize)) {
        head.put(i, *byte);
    }
    Opening::of(&head, OPENING_LEN.min(payload.len() as u32))
}

/// Whether a payload begins with the status line of a 101.
pub(super) fn is_switching(payload: &[u8]) -> bool {
    opening(payload) == Opening::Switching
}

/// Whether the captured part of a request has the header `Upgrade: websocket` (RFC 6455 §4.1).
fn requests_websocket(request: &[u8]) -> bool {
    let mut lines = request.split(|byte| *byte == b'\n').skip(1);
    lines.any(|line| {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let mut protocols = value.split(|byte| *byte == b',');
        name.trim_ascii().eq_ignore_ascii_case(b"upgrade")
            && protocols.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_request_is_found_in_any_spelling_of_the_header() {
        for request in [
            &b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nupgrade:WebSocket\r\n",
            b"GET / HTTP/1.1\r\nUpgrade: h2c, websocket\r\n\r\n",
        ] {
            assert!(requests_websocket(request), "{}", request.escape_ascii());
        }
        for request in [
            &b"GET /upgrade:websocket HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n",
            b"",
        ] {
            assert!(!requests_websocket(request), "{}", request.escape_ascii());
        }
    }
}
