//! One direction of a TLS connection: from segments to record headers (RFC 8446 §5.1).
//!
//! [`RecordWalk::place`] places a segment in the stream. Then [`RecordWalk::step`] is called until it
//! returns [`RecordStep::End`], at most [`RECORD_STEPS`] times. Each step does a bounded amount of work and
//! reads at most one field, so the kernel can run it under `bpf_loop` and a test in a plain loop.
//!
//! A walk comes into step at a segment that begins with a hello, or with a header that leads to another
//! one: two headers are 40 bits of evidence.

use super::{
    hello::{Hello, HelloFact, field},
    ping_inference::MAX_HEARTBEAT_LEN,
};
use crate::{
    frame::Head,
    stream::{MAX_WINDOW, Payload},
};

/// Maximum number of steps per segment: enough for the small records of a full GSO segment.
pub const RECORD_STEPS: u32 = 4096;

/// Bytes of a record header.
const HEADER_LEN: u32 = 5;

/// The longest ciphertext that a record may announce (RFC 8446 §5.2).
const MAX_RECORD_LEN: u16 = (1 << 14) + 256;

/// Bytes at the beginning of a segment that show a hello.
const HELLO_BEGIN: u32 = 11;

/// Content types (RFC 8446 §5.1, RFC 5246 §6.2.1).
pub mod content_type {
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const APPLICATION_DATA: u8 = 23;
}

/// The header of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// A [`content_type`].
    pub content_type: u8,
    /// Bytes after the header, as on the wire.
    pub len: u16,
}

impl RecordHeader {
    /// Parses the five bytes of a header, the lowest of a little-endian word. `None` if no endpoint would
    /// accept them.
    #[inline(always)]
    fn parse(word: u64) -> Option<Self> {
        let (content_type, major, minor) = (word as u8, (word >> 8) as u8, (word >> 16) as u8);
        let len = ((word >> 24) as u16).swap_bytes();
        let is_legal = matches!(
            content_type,
            content_type::CHANGE_CIPHER_SPEC..=content_type::APPLICATION_DATA
        ) && major == 3
            && matches!(minor, 1..=4)
            && len <= MAX_RECORD_LEN;
        is_legal.then_some(Self { content_type, len })
    }

    /// Whether its length is one from which heartbeats are inferred, so that its time matters.
    #[inline(always)]
    pub const fn may_be_ping_or_pong(&self) -> bool {
        self.len <= MAX_HEARTBEAT_LEN
    }

    /// Whether a segment may begin with a record.
    #[inline(always)]
    pub fn may_begin(payload: &impl Payload, len: u32) -> bool {
        len >= HEADER_LEN
            && payload.readable(0) >= HEADER_LEN
            && payload
                .read(0, HEADER_LEN)
                .is_some_and(|head| Self::parse(head.0[0]).is_some())
    }
}

/// Bits of [`RecordWalk::flags`].
mod flag {
    /// `next_seq` is known.
    pub(super) const STARTED: u8 = 1;
    /// The trial began in the current segment.
    pub(super) const FRESH: u8 = 2;
}

/// The parse state of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RecordWalk {
    /// The first bytes of a field that straddles segments, followed by zeros; valid only if `carry_len` is
    /// not 0.
    carry: u64,
    /// The next unseen sequence number.
    next_seq: u32,
    /// Bytes before the next field.
    skip: u32,
    hello: Hello,
    /// The next [`field`].
    field: u8,
    /// Bytes in `carry`.
    carry_len: u8,
    /// A set of [`flag`].
    flags: u8,
    _pad: u8,
}

const _: () = assert!(size_of::<RecordWalk>() == 24);

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordStep {
    /// A record begins.
    Record(RecordHeader),
    /// The hello says this.
    Hello(HelloFact),
    /// Nothing to report; continue.
    Again,
    /// The segment is done.
    End,
}

impl RecordWalk {
    /// All zero: nothing seen.
    pub const EMPTY: Self = Self {
        carry: 0,
        next_seq: 0,
        skip: 0,
        hello: Hello::EMPTY,
        field: field::UNSYNCED,
        carry_len: 0,
        flags: 0,
        _pad: 0,
    };

    /// Places `len` bytes at `seq` in the stream. Returns the offset of the first unseen one; `None` if
    /// there is none, or if they do not belong to this stream.
    ///
    /// A hole that may hide a header ends the synchronisation. What fills it later is old.
    #[inline(always)]
    pub fn place(&mut self, seq: u32, len: u32) -> Option<u32> {
        self.flags &= !flag::FRESH;
        let end = seq.wrapping_add(len);
        let ahead = seq.wrapping_sub(self.next_seq);
        let mut begin = 0;
        if self.flags & flag::STARTED == 0 {
            self.flags |= flag::STARTED;
        } else if ahead as i32 <= 0 {
            begin = ahead.wrapping_neg();
            if begin >= len {
                return None;
            }
        } else if ahead > MAX_WINDOW {
            return None;
        } else if self.carry_len == 0 && self.skip >= ahead {
            self.skip -= ahead;
        } else {
            self.lose_sync();
        }
        self.next_seq = end;
        Some(begin)
    }

    /// Does one bounded piece of work on a segment of `len` payload bytes, of which those before `begin`
    /// are old and those before `at` are done.
    #[inline(always)]
    pub fn step(
        &mut self,
        at: &mut u32,
        begin: u32,
        len: u32,
        payload: &impl Payload,
    ) -> RecordStep {
        if *at >= len {
            return RecordStep::End;
        }
        if self.field == field::UNSYNCED {
            return self.begin_trial(at, begin, len, payload);
        }
        self.pass_skipped(at, len);
        if *at >= len {
            return RecordStep::End;
        }
        let carried = self.carry_len as u32;
        let needed = field::len(self.field);
        // A field that straddles segments is completed one byte at a time, as in the walk over frames.
        let wanted = if carried == 0 {
            needed.min(len - *at)
        } else {
            1
        };
        let readable = payload.readable(*at) >= wanted;
        let Some(head) = readable.then(|| payload.read(*at, wanted)).flatten() else {
            self.lose_sync();
            return RecordStep::End;
        };
        *at += wanted;
        let [mut word, _] = head.0;
        if carried != 0 {
            word = self.carry | (word & 0xff) << (8 * (carried & 7));
        }
        if carried + wanted < needed {
            self.carry = word;
            self.carry_len = (carried + wanted) as u8;
            return RecordStep::Again;
        }
        self.carry_len = 0;
        let step = match self.field {
            field::TRIAL | field::RECORD => self.take_header(word, at, begin, len),
            _ => self.take_hello_field(word),
        };
        // A segment with one record is then done in one step.
        self.pass_skipped(at, len);
        step
    }

    /// Passes the bytes before the next field, as far as they are in the segment.
    #[inline(always)]
    fn pass_skipped(&mut self, at: &mut u32, len: u32) {
        let passed = self.skip.min(len - *at);
        self.skip -= passed;
        *at += passed;
    }

    /// Gives up the rest of the segment.
    #[inline(always)]
    pub fn lose_sync(&mut self) {
        self.field = field::UNSYNCED;
        self.skip = 0;
        self.carry_len = 0;
    }

    /// Looks for a hello or a header at the beginning of the segment.
    #[inline(always)]
    fn begin_trial(
        &mut self,
        at: &mut u32,
        begin: u32,
        len: u32,
        payload: &impl Payload,
    ) -> RecordStep {
        let start = *at;
        let have = HELLO_BEGIN.min(len - start).min(payload.readable(start));
        *at = len;
        if start != begin || have < HEADER_LEN {
            return RecordStep::End;
        }
        let Some(head) = payload.read(start, have) else {
            return RecordStep::End;
        };
        let Some(header) = RecordHeader::parse(head.0[0]) else {
            return RecordStep::End;
        };
        *at = start + HEADER_LEN;
        if have == HELLO_BEGIN && begins_hello(&head, &header) {
            self.hello = Hello::of_record(header.len);
            self.field = field::HELLO;
            return RecordStep::Record(header);
        }
        self.field = field::TRIAL;
        self.skip = header.len as u32;
        self.flags |= flag::FRESH;
        RecordStep::Again
    }

    #[inline(always)]
    fn take_header(&mut self, word: u64, at: &mut u32, begin: u32, len: u32) -> RecordStep {
        let Some(header) = RecordHeader::parse(word) else {
            // A chain from an earlier segment was wrong, but one that begins here may be right.
            let retry = self.field == field::TRIAL && self.flags & flag::FRESH == 0;
            self.lose_sync();
            *at = if retry { begin } else { len };
            return RecordStep::Again;
        };
        self.field = field::RECORD;
        self.skip = header.len as u32;
        RecordStep::Record(header)
    }

    #[inline(always)]
    fn take_hello_field(&mut self, word: u64) -> RecordStep {
        let (next, skip, fact) = self.hello.take(self.field, word);
        self.field = next;
        self.skip = skip;
        if fact.is_some() {
            RecordStep::Hello(fact)
        } else {
            RecordStep::Again
        }
    }
}

/// Whether the beginning of a record is that of a ClientHello or a ServerHello (RFC 8446 §4): a handshake
/// message of that type, of less than 64 KiB, with a version. This is more evidence than a second header.
#[inline(always)]
fn begins_hello(head: &Head, header: &RecordHeader) -> bool {
    header.content_type == content_type::HANDSHAKE
        && matches!(head.byte(5), 1 | 2)
        && head.byte(6) == 0
        && head.byte(9) == 3
        && matches!(head.byte(10), 1..=4)
}
