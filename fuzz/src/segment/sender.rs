//! One end's stream: the bytes it wrote, and which of them the monitor was shown.

use std::ops::Range;

use monitor_common::frame::Header;

use super::script::frame_len;

/// Writing stops after this many bytes: longer streams only make runs slow.
const ENOUGH: usize = 100_000;

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Sender {
    masked: bool,
    pub(super) bytes: Vec<u8>,
    /// By offset in `bytes`: whether the monitor was shown it.
    shown: Vec<bool>,
    /// How far the monitor was shown it without a gap.
    pub(super) arrived: usize,
    /// How far the sender has sent, lost bytes included.
    pub(super) sent: usize,
    /// Frames written, in order.
    pub(super) frames: Vec<Frame>,
    /// Only frames were written from `first_frame` on.
    pub(super) only_frames: bool,
    pub(super) first_frame: usize,
    /// Inside a fragmented message.
    in_message: bool,
    closed: bool,
}

/// What a test compares of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// FIN, RSV and opcode as on the wire.
    pub(super) first: u8,
    pub(super) payload_len: u64,
    /// 0 if there is none.
    pub(super) close_code: u16,
}

impl From<&Header> for Frame {
    fn from(header: &Header) -> Self {
        Self {
            first: header.first_byte(),
            payload_len: header.payload_len,
            close_code: header.close_code(),
        }
    }
}

impl Sender {
    pub(super) fn new(masked: bool) -> Self {
        Self {
            masked,
            bytes: Vec::new(),
            shown: Vec::new(),
            arrived: 0,
            sent: 0,
            frames: Vec::new(),
            only_frames: true,
            first_frame: 0,
            in_message: false,
            closed: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() > ENOUGH
    }

    pub(super) fn write_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.shown.resize(self.bytes.len(), false);
        self.only_frames &= bytes.is_empty();
    }

    /// Writes a frame that is legal at this place in the stream (RFC 6455 §5.4, §5.5).
    pub(super) fn write_frame(&mut self, first: u8, len: u8, fill: u8) {
        let mut len = frame_len(len);
        if self.closed {
            return;
        }
        let control = first & 8 != 0;
        let opcode = match first & 7 {
            _ if !control && self.in_message => 0,
            n if !control => 1 + n % 2,
            n => 8 + n % 3,
        };
        let is_close = opcode == 8;
        let fin = control || first & 0x80 != 0;
        if control {
            len = len.min(125);
        } else {
            self.in_message = !fin;
        }
        if is_close && len == 1 {
            len = 2;
        }
        self.closed |= is_close;
        let rsv1 = if matches!(opcode, 1 | 2) {
            first & 0x40
        } else {
            0
        };
        let close_code = if is_close && len > 0 {
            3000 + u16::from(fill)
        } else {
            0
        };
        let first = u8::from(fin) << 7 | rsv1 | opcode;
        self.put(first, len, fill, close_code);
        self.frames.push(Frame {
            first,
            payload_len: len as u64,
            close_code,
        });
    }

    fn put(&mut self, first: u8, len: usize, fill: u8, close_code: u16) {
        // On the wire, the payload is `fill`, masked or not.
        let key = self.masked.then_some([fill; 4]);
        let mut payload = vec![if self.masked { 0 } else { fill }; len];
        if close_code != 0 {
            payload[..2].copy_from_slice(&close_code.to_be_bytes());
        }
        let start = self.bytes.len();
        self.bytes.extend(wire::frame(first, &payload, key));
        self.bytes[start] = first;
        self.shown.resize(self.bytes.len(), false);
    }

    /// The next `len` bytes, or as many as there are; they count as sent.
    pub(super) fn send(&mut self, len: usize) -> Range<usize> {
        let range = self.sent..self.bytes.len().min(self.sent + len);
        self.sent = range.end;
        range
    }

    /// `len` bytes from `back` before the end of the sent bytes, or as many as there are.
    pub(super) fn send_again(&mut self, back: usize, len: usize) -> Range<usize> {
        let start = self.sent.saturating_sub(back);
        let range = start..self.bytes.len().min(start + len);
        self.sent = self.sent.max(range.end);
        range
    }

    /// Marks a range as shown; returns true if part of it is new.
    pub(super) fn show(&mut self, range: Range<usize>) -> bool {
        let part = &mut self.shown[range];
        let fresh = part.contains(&false);
        part.fill(true);
        let gap = self.shown[self.arrived..].iter().position(|shown| !shown);
        self.arrived = gap.map_or(self.shown.len(), |gap| self.arrived + gap);
        fresh
    }
}
