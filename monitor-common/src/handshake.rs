//! Recognises the HTTP/1.1 upgrade (RFC 6455 §4) and TLS by the first bytes of a segment.

use crate::frame::Head;

/// What the first bytes of a segment indicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A request line: the connection speaks HTTP/1.
    Request,
    /// A status line of `101 Switching Protocols`.
    Switching,
    /// Any other HTTP/1 status line.
    Response,
    /// A TLS handshake record (RFC 8446 §5.1).
    Tls,
    Other,
}

/// Bytes that [`Opening::of`] needs to distinguish all cases.
pub const OPENING_LEN: u32 = 12;

/// The status code of a status line that begins `HTTP/1.x NNN`, of which `have` bytes are available; 0
/// unless it is between 100 and 599 (RFC 9112 §4).
#[inline(always)]
pub fn status(head: &Head, have: u32) -> u16 {
    let digits = (head.0[1] >> 8) as u32 & 0x00ff_ffff;
    let value = digits.wrapping_sub(0x0030_3030);
    let code = (value & 0xff) * 100 + (value >> 8 & 0xff) * 10 + (value >> 16 & 0xff);
    let decimal =
        digits & 0x00f0_f0f0 == 0x0030_3030 && value.wrapping_add(0x0006_0606) & 0x00f0_f0f0 == 0;
    if have >= OPENING_LEN && decimal && matches!(code, 100..=599) {
        code as u16
    } else {
        0
    }
}

/// Searches the head of a request or response for the one header field that makes it a WebSocket handshake
/// (RFC 6455 §4.1, §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Needle(u64);

impl Needle {
    /// Part of `Sec-WebSocket-Key:`. The drafts before RFC 6455 had `Sec-WebSocket-Key1` or no such field.
    pub const KEY: Self = Self(word(b"ket-key:"));
    /// Part of `Sec-WebSocket-Accept`.
    pub const ACCEPT: Self = Self(word(b"ocket-ac"));

    /// Bytes of a segment that are searched: the head size that common servers accept.
    pub const REACH: u32 = 8192;
    /// Bytes by which each step advances.
    pub const STRIDE: u32 = 7;
    /// Steps needed to search all of it.
    pub const MAX_STEPS: u32 = Self::REACH / Self::STRIDE;

    /// Whether it begins at one of the first [`Needle::STRIDE`] of 14 bytes, in any case.
    #[inline(always)]
    pub fn is_in(self, bytes: &Head) -> bool {
        const LOWER: u64 = 0x2020_2020_2020_2020;
        let [low, high] = bytes.0;
        let mut missing = 1;
        let mut i = 0;
        // The trip count is constant and there is no branch, so the verifier sees no loop.
        while i < Self::STRIDE {
            let window = if i == 0 {
                low
            } else {
                (low >> (8 * i)) | (high << (64 - 8 * i))
            };
            missing &= ((window | LOWER) ^ self.0 != 0) as u8;
            i += 1;
        }
        missing == 0
    }
}

impl Opening {
    /// Classifies the first `have` bytes of a segment's payload.
    #[inline(always)]
    pub fn of(head: &Head, have: u32) -> Self {
        const TLS_HANDSHAKE: u64 = 0x0316;
        let first = head.0[0];
        if have >= 3 && first & 0xffff == TLS_HANDSHAKE {
            return Self::Tls;
        }
        if have >= 8 && first & 0x00ff_ffff_ffff_ffff == word(b"HTTP/1.\0") {
            let switching = have >= OPENING_LEN && head.0[1] & 0xffff_ffff == word(b" 101\0\0\0\0");
            return if switching {
                Self::Switching
            } else {
                Self::Response
            };
        }
        if have >= 4 && is_method(first) {
            return Self::Request;
        }
        Self::Other
    }
}

/// The methods of RFC 9110 §9.3 that a browser or a health check sends before an upgrade.
#[inline(always)]
fn is_method(first: u64) -> bool {
    let four = first & 0xffff_ffff;
    four == word(b"GET \0\0\0\0")
        || four == word(b"POST\0\0\0\0")
        || four == word(b"HEAD\0\0\0\0")
        || four == word(b"PUT \0\0\0\0")
        || four == word(b"OPTI\0\0\0\0")
        || four == word(b"DELE\0\0\0\0")
        || four == word(b"PATC\0\0\0\0")
}

#[inline(always)]
const fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Searches for the blank line that ends an HTTP head, across any number of segments.
///
/// Holds the last four bytes seen, so that CRLF CRLF is found however it is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct HeadEnd(pub(crate) u32);

impl HeadEnd {
    /// Nothing seen yet.
    pub const START: Self = Self(0);

    /// Bytes that [`HeadEnd::scan`] examines in one call.
    pub const CHUNK: u32 = 8;

    /// Scans up to [`HeadEnd::CHUNK`] bytes. Returns how many belong to the head and whether the head ended
    /// with them.
    #[inline(always)]
    pub fn scan(&mut self, chunk: u64, have: u32) -> (u32, bool) {
        const CRLF_CRLF: u32 = u32::from_le_bytes(*b"\r\n\r\n");
        // A window of twelve bytes: the four seen before, then the chunk.
        let low = self.0 as u64 | (chunk << 32);
        let high = chunk >> 32;
        let mut end = 0;
        let mut i = Self::CHUNK;
        // Backwards, so that the first end wins. The trip count is constant and there is no early exit, so
        // the compiler unrolls the loop and the verifier sees none.
        while i > 0 {
            let word = if i == 8 {
                high as u32
            } else {
                ((low >> (8 * i)) | (high << (64 - 8 * i))) as u32
            };
            if word == CRLF_CRLF && i <= have {
                end = i;
            }
            i -= 1;
        }
        if end != 0 {
            self.0 = 0;
            return (end, true);
        }
        self.0 = if have <= 4 {
            (low >> (8 * have)) as u32
        } else {
            (chunk >> (8 * ((have - 4) & 7))) as u32
        };
        (have, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(bytes: &[u8]) -> Opening {
        let mut head = Head::default();
        let have = bytes.len().min(14);
        for (i, byte) in bytes.iter().take(have).enumerate() {
            head.put(i as u8, *byte);
        }
        Opening::of(&head, have as u32)
    }

    #[test]
    fn openings_are_distinguished() {
        assert_eq!(opening(b"GET /chat HTTP/1.1\r\n"), Opening::Request);
        assert_eq!(opening(b"OPTIONS * HTTP/1.1\r\n"), Opening::Request);
        assert_eq!(opening(b"HTTP/1.1 101 Switching"), Opening::Switching);
        assert_eq!(opening(b"HTTP/1.1 1012"), Opening::Switching);
        assert_eq!(opening(b"HTTP/1.1 200 OK"), Opening::Response);
        assert_eq!(opening(b"HTTP/1.1 10"), Opening::Response);
        assert_eq!(opening(&[0x16, 0x03, 0x01, 0x02]), Opening::Tls);
        assert_eq!(opening(&[0x16]), Opening::Other);
        assert_eq!(opening(&[0x81, 0x85, 1, 2, 3, 4]), Opening::Other);
        assert_eq!(opening(b""), Opening::Other);
    }

    #[test]
    fn a_status_code_is_three_digits_from_100_to_599() {
        for (line, expected) in [
            (&b"HTTP/1.1 101 Switching"[..], 101),
            (b"HTTP/1.0 599", 599),
            (b"HTTP/1.1 429 Too Many", 429),
            (b"HTTP/1.1 099 ", 0),
            (b"HTTP/1.1 600 ", 0),
            (b"HTTP/1.1 4 9 ", 0),
            (b"HTTP/1.1 4:9 ", 0),
            (b"HTTP/1.1 2/0 ", 0),
            (b"HTTP/1.1 10", 0),
        ] {
            let mut head = Head::default();
            for (i, byte) in (0..).zip(&line[..line.len().min(14)]) {
                head.put(i, *byte);
            }
            assert_eq!(status(&head, line.len() as u32), expected, "{line:?}");
        }
    }

    #[test]
    fn a_whole_needle_is_found_at_each_offset_in_any_case() {
        let find = |needle: Needle, text: &[u8]| {
            (0..text.len()).step_by(Needle::STRIDE as usize).any(|at| {
                let mut head = Head::default();
                for (i, byte) in (0..14).zip(&text[at..]) {
                    head.put(i, *byte);
                }
                needle.is_in(&head)
            })
        };
        for before in 0..20 {
            for name in [
                "Sec-WebSocket-Key: x",
                "sec-websocket-key:",
                "SEC-WEBSOCKET-KEY: ",
            ] {
                let text = [&vec![b'.'; before][..], name.as_bytes()].concat();
                assert!(find(Needle::KEY, &text), "{before} {name}");
                assert!(!find(Needle::ACCEPT, &text), "{before} {name}");
            }
        }
        assert!(find(Needle::ACCEPT, b"\r\nSec-WebSocket-Accept: abc"));
        assert!(!find(
            Needle::KEY,
            b"\r\nSec-WebSocket-Key1: 4 @1  46546xW%0l 1 5"
        ));
        assert!(!find(
            Needle::KEY,
            b"GET /websocket-k HTTP/1.1\r\nUpgrade: websocket\r\n"
        ));
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        let response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let head_len = response.len() - 2;
        for cut in 1..8 {
            let mut end = HeadEnd::default();
            let mut at = 0;
            let found = loop {
                let have = cut.min(response.len() - at);
                let mut chunk = [0; 8];
                chunk[..have].copy_from_slice(&response[at..at + have]);
                let (taken, done) = end.scan(u64::from_le_bytes(chunk), have as u32);
                at += taken as usize;
                if done {
                    break at;
                }
                assert!(at < response.len(), "not found with cuts of {cut}");
            };
            assert_eq!(found, head_len);
        }
    }
}
