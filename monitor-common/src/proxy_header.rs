//! The PROXY protocol header, which a load balancer sends before the forwarded bytes (proxy-protocol.txt of
//! haproxy, §2): often in one segment with the request or the ClientHello.

use crate::{
    frame::{HEADER_MAX, Head},
    stream::Payload,
};

/// The longest header of version 1, with its CRLF (§2.1).
const LINE_MAX: u32 = 107;
/// The fixed part of a version 2 header (§2.2).
const FIXED_LEN: u32 = 16;

/// Finds the end of a header in the first segment of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProxyHeader {
    /// Length of the header, once its end is found.
    pub len: u32,
    /// Offset at which the search for the end of the line continues; 0 = no search.
    pub at: u32,
}

impl ProxyHeader {
    /// Bytes per step. Less than the 14 bytes read, so that CRLF is found however the steps divide it.
    const STRIDE: u32 = HEADER_MAX - 1;
    /// Steps needed to search a whole line.
    pub const MAX_STEPS: u32 = LINE_MAX.div_ceil(Self::STRIDE);

    /// Examines the first of `len` bytes of payload. The length is known immediately with version 2, and
    /// after up to [`ProxyHeader::MAX_STEPS`] calls of [`ProxyHeader::search`] with version 1.
    #[inline(always)]
    pub fn of(payload: &impl Payload, len: u32) -> Self {
        const LINE: u64 = u64::from_le_bytes(*b"PROXY \0\0");
        const SIGNATURE: [u64; 2] = [
            u64::from_le_bytes(*b"\r\n\r\n\0\r\nQ"),
            u64::from_le_bytes(*b"UIT\n\0\0\0\0"),
        ];
        let none = Self { len: 0, at: 0 };
        if len < FIXED_LEN || payload.readable(0) < FIXED_LEN {
            return none;
        }
        let Some(Head([low, high])) = payload.read(0, 12) else {
            return none;
        };
        if low & 0x0000_ffff_ffff_ffff == LINE {
            return Self { len: 0, at: 6 };
        }
        if [low, high] != SIGNATURE {
            return none;
        }
        let Some(Head([length, _])) = payload.read(FIXED_LEN - 2, 2) else {
            return none;
        };
        Self {
            len: (FIXED_LEN + (length as u16).swap_bytes() as u32).min(len),
            at: 0,
        }
    }

    /// The length of the header at the start of `len` bytes of payload; 0 if there is none.
    pub fn len_in(payload: &impl Payload, len: u32) -> u32 {
        let mut header = Self::of(payload, len);
        let mut steps = 0..Self::MAX_STEPS;
        while steps.next().is_some() && header.search(payload, len) {}
        header.len
    }

    /// Continues the search for the end of a line in `len` bytes of payload; true to continue.
    #[inline(always)]
    pub fn search(&mut self, payload: &impl Payload, len: u32) -> bool {
        if self.at == 0 || self.at >= len {
            return false;
        }
        let have = HEADER_MAX.min(len - self.at).min(payload.readable(self.at));
        if have == 0 {
            return false;
        }
        let Some(bytes) = payload.read(self.at, have) else {
            return false;
        };
        let end = line_end(&bytes);
        if end == 0 {
            self.at += Self::STRIDE;
            return true;
        }
        self.len = self.at + end;
        false
    }
}

/// How many of 14 bytes precede or belong to the first CRLF; 0 if there is none.
#[inline(always)]
fn line_end(bytes: &Head) -> u32 {
    const CRLF: u16 = u16::from_le_bytes(*b"\r\n");
    let [low, high] = bytes.0;
    let mut end = 0;
    let mut i = ProxyHeader::STRIDE;
    // Backwards, so that the first end wins. The trip count is constant and there is no early exit, so the
    // verifier sees no loop.
    while i > 0 {
        i -= 1;
        let window = match i {
            0 => low,
            1..=7 => (low >> (8 * i)) | (high << (64 - 8 * i)),
            8 => high,
            _ => high >> (8 * (i - 8)),
        };
        if window as u16 == CRLF {
            end = i + 2;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    struct LineBytes<'a>(&'a [u8]);

    impl Payload for LineBytes<'_> {
        fn read(&self, offset: u32, len: u32) -> Option<Head> {
            let mut head = Head::default();
            let bytes = self.0.get(offset as usize..(offset + len) as usize)?;
            for (i, byte) in (0_u8..).zip(bytes) {
                head.put(i, *byte);
            }
            Some(head)
        }
    }

    fn len_of(bytes: &[u8]) -> usize {
        ProxyHeader::len_in(&LineBytes(bytes), bytes.len() as u32) as usize
    }

    #[test]
    fn a_line_of_any_length_ends_with_its_first_crlf() {
        for middle in 0..=LINE_MAX as usize - 8 {
            let line = [b"PROXY ", &vec![b'x'; middle][..], b"\r\n"].concat();
            let whole = [&line[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(len_of(&whole), line.len(), "{middle}");
        }
        let endless = [b"PROXY ", &[b'x'; 200][..], b"\r\n"].concat();
        assert_eq!(len_of(&endless), 0, "longer than the longest line");
        assert_eq!(len_of(b"PROXY TCP4 192.0.2.7 192"), 0, "no end of line");
        assert_eq!(len_of(b"PROXY UNKNOWN\r\n\r"), 15);
    }

    #[test]
    fn a_binary_header_contains_its_length() {
        for variable in [0, 12, 36, 300] {
            let header = [
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
                &(variable as u16).to_be_bytes()[..],
                &vec![7; variable],
            ]
            .concat();
            let whole = [&header[..], b"\x16\x03\x01 and so on"].concat();
            assert_eq!(len_of(&whole), header.len(), "{variable}");
            assert_eq!(len_of(&header), header.len(), "header only");
            assert_eq!(len_of(&header[..16]), 16, "truncated");
        }
        assert_eq!(len_of(b"\r\n\r\n\0\r\nQUIT!\x21\x11\0\0 "), 0);
        assert_eq!(len_of(b"GET / HTTP/1.1\r\n\r\n"), 0);
        assert_eq!(len_of(b""), 0);
    }
}
