//! One direction of a TCP stream: from segments to frame headers, without copying payload.
//!
//! [`Walk::admit`] places a segment in the stream; then [`Walk::step`] is called until it returns
//! [`Step::End`]. Each step does a bounded amount of work and reads at most one header, so the kernel can
//! run it under `bpf_loop` and a test in a plain loop.

mod trial;

use crate::{
    frame::{HEADER_MAX, Head, Header},
    handshake::{HeadEnd, OPENING_LEN},
    message::MessageState,
    segment::{Segment, after},
};
pub use trial::ENOUGH;

/// Maximum number of steps per segment. The smallest client frame has 6 bytes, so a 64 KiB segment of them
/// fits. The rest is reported, never skipped silently.
pub const MAX_STEPS: u32 = 16_384;

/// A sequence number further ahead than the largest window (RFC 7323 §2.3) does not belong to this stream.
pub(crate) const MAX_WINDOW: u32 = 1 << 30;

/// Consecutive illegal headers after which a direction is not WebSocket, even if it was followed from its
/// first byte.
const MAX_ILLEGAL: u8 = 3;

/// The payload of the current segment.
pub trait Payload {
    /// The `len` bytes (1 to 14) at `offset`, followed by zeros; `None` if they cannot be read.
    fn read(&self, offset: u32, len: u32) -> Option<Head>;

    /// How many bytes from `offset` on can be read; fewer if the payload was truncated.
    #[inline(always)]
    fn readable(&self, offset: u32) -> u32 {
        let _ = offset;
        u32::MAX
    }
}

/// How the bytes of a direction are interpreted.
pub mod mode {
    /// HTTP, or nothing yet: segments are placed, bytes are not examined.
    pub const HANDSHAKE: u8 = 0;
    /// Inside the head of the 101 response; frames begin right after it.
    pub const HEAD: u8 = 1;
    /// In step with the frames.
    pub const FRAMES: u8 = 2;
    /// Somewhere between frames: waits for a segment that starts like a frame.
    pub const UNSYNCED: u8 = 3;
    /// The client's request is complete and has no answer yet. The following bytes are walked over as
    /// frames, but none of them is accounted for.
    pub const EARLY: u8 = 5;
    /// A segment started like a frame. The chain of headers from there on is followed until there is
    /// [`ENOUGH`] evidence.
    ///
    /// [`ENOUGH`]: super::ENOUGH
    pub const TRIAL: u8 = 4;
}

/// Bits of [`Walk::flags`].
mod flag {
    /// `next_seq` is known.
    pub(super) const STARTED: u8 = 1;
    /// In step since the handshake, every byte accounted for: an illegal header is the endpoint's fault,
    /// not ours.
    pub(super) const CERTAIN: u8 = 2;
    /// Only followed on trial: its frames are kept until they are proven. See [`crate::holes`].
    pub(super) const PENDING_RUN: u8 = 4;
    /// There are pending runs ahead.
    pub(super) const HOLES: u8 = 8;
    /// A close frame passed.
    pub(super) const CLOSED: u8 = 0x40;
    /// The trial began in the current segment.
    pub(super) const FRESH: u8 = 0x80;
    /// The two bits of a [`MessageState`](super::MessageState).
    pub(super) const MESSAGE: u8 = 0x30;
    pub(super) const MESSAGE_SHIFT: u8 = 4;
}

/// The parse state of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Walk {
    /// Remaining payload bytes of the current frame.
    pub skip: u64,
    /// The first bytes of a header that straddles segments, followed by zeros; valid only if `carry_len` is
    /// not 0.
    carry: Head,
    /// The next unseen sequence number.
    pub next_seq: u32,
    /// In [`mode::HEAD`], the last bytes seen. In [`mode::EARLY`], the sequence number after the request.
    /// On a pending run, where the last header begins, counted from the start of its segment.
    pub(crate) mark: u32,
    /// A [`mode`].
    pub mode: u8,
    /// Bytes in `carry`.
    pub carry_len: u8,
    /// In [`mode::TRIAL`], the evidence in bits; in [`mode::FRAMES`], the number of consecutive illegal
    /// headers.
    trial: u8,
    /// A set of [`flag`].
    flags: u8,
    /// Notable facts of the current segment; see [`crate::flow::notable`]. On a pending run, the number of
    /// the current chain.
    notes: u32,
}

const _: () = assert!(size_of::<Walk>() == 40);

/// Where a segment lies in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing in it is new, or it does not belong to this stream.
    Old,
    New {
        /// Offset of the first unseen byte.
        offset: u32,
        /// Missing bytes in front of it that may have held a header.
        lost: u32,
    },
    /// After a hole that may hide a header and may still be filled.
    Ahead,
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame begins.
    Frame(Header),
    /// Nothing to report; continue.
    Again,
    /// In step again, after this many bytes of the segment that belong to no known frame; continue.
    Synced(u32),
    /// These bytes belong to no known frame; continue.
    Unsynced(u32),
    /// The segment is done.
    End,
    /// The payload could not be read; the segment is done and the direction unsynced.
    Unreadable,
}

impl Walk {
    /// All zero: nothing seen.
    pub const EMPTY: Self = Self {
        skip: 0,
        carry: Head([0; 2]),
        next_seq: 0,
        mark: 0,
        mode: mode::HANDSHAKE,
        carry_len: 0,
        trial: 0,
        flags: 0,
        notes: 0,
    };

    /// A part of a stream from `seq` on, of which nothing is known yet. Its chains are numbered from
    /// `chain` on.
    pub(crate) const fn pending_run(seq: u32, chain: u32) -> Self {
        Self {
            next_seq: seq,
            mode: mode::UNSYNCED,
            flags: flag::STARTED | flag::PENDING_RUN,
            notes: chain,
            ..Self::EMPTY
        }
    }

    /// The number of the current chain on a pending run.
    #[inline(always)]
    pub(crate) const fn chain(&self) -> u32 {
        self.notes
    }

    /// Appends the first bytes of a segment to those of an answer that arrived in pieces. `None` while they
    /// are too few to recognise it.
    #[inline(always)]
    pub(crate) fn gather(&mut self, head: Head, have: u32) -> Option<(Head, u32)> {
        if self.mode != mode::HANDSHAKE {
            return Some((head, have));
        }
        let (mut head, mut have) = (head, have);
        if self.carry_len != 0 {
            head = head.behind(&self.carry, self.carry_len);
            have += self.carry_len as u32;
        }
        if have < OPENING_LEN && head.byte(0) == b'H' {
            self.carry = head;
            self.carry_len = have as u8;
            return None;
        }
        self.carry_len = 0;
        Some((head, have))
    }

    /// The head of the 101 begins; frames follow right after it.
    #[inline(always)]
    pub(crate) fn begin_head(&mut self) {
        self.carry_len = 0;
        self.mode = mode::HEAD;
        self.mark = HeadEnd::START.0;
        self.flags |= flag::CERTAIN;
    }

    /// The request ends with a segment that is not placed yet, and never has to be.
    #[inline(always)]
    pub(crate) fn begin_early(&mut self, segment: &Segment) {
        self.next_seq = segment.payload_seq().wrapping_add(segment.payload_len);
        self.flags |= flag::STARTED;
        self.mark = self.next_seq;
        self.mode = mode::EARLY;
        self.skip = 0;
        self.carry_len = 0;
        self.trial = 0;
    }

    /// The bytes after a request turn out to be something else.
    #[inline(always)]
    pub(crate) fn end_early(&mut self) {
        if self.mode == mode::EARLY {
            self.lose_sync();
        }
    }

    /// Frames begin with the next byte, or have begun after the request. Returns the bytes of the frames
    /// that have begun, which are accounted for nowhere else. `ack` is the acknowledgement number of the
    /// answer, used where the request was not seen.
    #[inline(always)]
    pub(crate) fn begin_frames(&mut self, ack: u32) -> u64 {
        let mut early = 0;
        if self.mode == mode::EARLY {
            // An incomplete header will be reported when it is complete.
            let passed = self.next_seq.wrapping_sub(self.mark) - self.carry_len as u32;
            early = (passed as u64).saturating_add(self.skip);
        } else {
            self.skip = 0;
            self.carry_len = 0;
            self.trial = 0;
        }
        if !self.is_live() {
            self.flags |= flag::STARTED;
            self.next_seq = ack;
        }
        self.mode = mode::FRAMES;
        self.flags |= flag::CERTAIN;
        early
    }

    /// Continues at the position of `other`.
    #[inline(always)]
    pub(crate) fn continue_as(&mut self, other: &Self) {
        self.skip = other.skip;
        self.carry = other.carry;
        self.carry_len = other.carry_len;
        self.next_seq = other.next_seq;
    }

    /// Whether the position in the stream is known.
    #[inline(always)]
    pub const fn is_live(&self) -> bool {
        self.flags & flag::STARTED != 0
    }

    /// Where the next header begins, if known.
    #[inline(always)]
    pub(crate) const fn expected_header(&self) -> Option<u32> {
        if self.mode == mode::FRAMES && self.carry_len == 0 {
            Some(self.next_seq.wrapping_add(self.skip as u32))
        } else {
            None
        }
    }

    /// Whether the next `len` bytes are known to be payload.
    #[inline(always)]
    pub(crate) const fn covers(&self, len: u64) -> bool {
        matches!(self.mode, mode::FRAMES | mode::EARLY) && self.carry_len == 0 && self.skip >= len
    }

    /// Records a frame's place in its message. Returns the broken rule as a bit by
    /// [`ProtocolError`](crate::stats::ProtocolError), or 0.
    #[inline(always)]
    pub(crate) fn follow_message(&mut self, header: &Header) -> u16 {
        let (next, broken) = self.message().after(header);
        self.flags = (self.flags & !flag::MESSAGE) | (next.0 << flag::MESSAGE_SHIFT);
        broken
    }

    /// Records a close frame; returns whether there was one before.
    #[inline(always)]
    pub(crate) fn pass_close_frame(&mut self) -> bool {
        let repeated = self.flags & flag::CLOSED != 0;
        self.flags |= flag::CLOSED;
        repeated
    }

    /// Whether `len` bytes at `seq` follow a hole that is not known to be payload.
    #[cfg(feature = "replay")]
    pub(crate) fn waits_for(&self, seq: u32, len: u32) -> bool {
        let ahead = seq.wrapping_sub(self.next_seq);
        len > 0 && self.is_live() && ahead != 0 && ahead <= MAX_WINDOW && !self.covers(ahead.into())
    }

    /// Whether all of these bytes were seen before.
    #[inline(always)]
    pub(crate) const fn is_old(&self, seq: u32, len: u32) -> bool {
        let left = seq.wrapping_add(len).wrapping_sub(self.next_seq);
        self.is_live() && left as i32 <= 0
    }

    /// Whether a segment is a keepalive that repeats the last byte before the next one. It carries nothing
    /// new, neither for TCP nor for a hop that counts payload (RFC 9293 §3.8.4).
    #[inline(always)]
    pub(crate) const fn is_probe(&self, segment: &Segment) -> bool {
        self.is_live()
            && segment.payload_len == 1
            && segment.payload_seq().wrapping_add(1) == self.next_seq
    }

    /// Whether a message is incomplete.
    #[inline(always)]
    pub fn is_inside_message(&self) -> bool {
        self.message() == MessageState::INSIDE
    }

    #[inline(always)]
    const fn message(&self) -> MessageState {
        MessageState((self.flags & flag::MESSAGE) >> flag::MESSAGE_SHIFT)
    }

    #[inline(always)]
    fn forget_message(&mut self) {
        self.flags &= !flag::MESSAGE;
    }

    /// Whether there are pending runs ahead; see [`crate::holes`].
    #[inline(always)]
    pub const fn has_holes(&self) -> bool {
        self.flags & flag::HOLES != 0
    }

    #[inline(always)]
    pub fn set_holes(&mut self, holes: bool) {
        if holes {
            self.flags |= flag::HOLES;
        } else {
            self.flags &= !flag::HOLES;
        }
    }

    /// Adds to the notes about the current segment.
    ///
    /// Volatile, so that the notes stay in memory. In a register, the verifier would follow every
    /// combination of them through the rest of the program.
    #[inline(always)]
    pub fn note(&mut self, bits: u32) {
        let notes = &raw mut self.notes;
        // SAFETY: the pointer comes from a live, exclusive reference.
        unsafe { notes.write_volatile(notes.read_volatile() | bits) };
    }

    /// Takes the notes about the current segment.
    #[inline(always)]
    pub fn take_notes(&mut self) -> u32 {
        let notes = &raw mut self.notes;
        // SAFETY: the pointer comes from a live, exclusive reference.
        unsafe {
            let bits = notes.read_volatile();
            notes.write_volatile(0);
            bits
        }
    }

    /// Places `len` bytes at `seq` in the stream.
    ///
    /// A hole inside the payload of the current frame is harmless. A hole that may hold a header is waited
    /// for if `patient`, and otherwise makes the direction unsynced.
    #[inline(always)]
    pub fn admit(&mut self, seq: u32, len: u32, patient: bool) -> Admission {
        let end = seq.wrapping_add(len);
        if self.flags & flag::STARTED == 0 {
            self.flags |= flag::STARTED;
            self.next_seq = end;
            return Admission::New { offset: 0, lost: 0 };
        }
        let ahead = seq.wrapping_sub(self.next_seq);
        if ahead as i32 <= 0 {
            let seen = ahead.wrapping_neg();
            if seen >= len {
                return Admission::Old;
            }
            self.next_seq = end;
            return Admission::New {
                offset: seen,
                lost: 0,
            };
        }
        if ahead > MAX_WINDOW {
            return Admission::Old;
        }
        if patient && self.mode == mode::FRAMES && !self.covers(ahead as u64) {
            return Admission::Ahead;
        }
        let lost = self.leap(ahead);
        self.next_seq = end;
        Admission::New { offset: 0, lost }
    }

    /// Whether the payload of a segment reaches beyond all bytes that came in order.
    #[inline(always)]
    pub(crate) const fn has_new_payload(&self, segment: &Segment) -> bool {
        self.flags & flag::STARTED == 0 || after(segment.end(), self.next_seq)
    }

    /// Passes a hole of `len` bytes; returns how many of them may have held a header.
    #[inline(always)]
    pub(crate) fn leap(&mut self, len: u32) -> u32 {
        self.next_seq = self.next_seq.wrapping_add(len);
        if self.mode == mode::HANDSHAKE {
            return 0;
        }
        if self.covers(len as u64) {
            self.skip -= len as u64;
            return 0;
        }
        if self.mode == mode::EARLY {
            self.lose_sync();
            return 0;
        }
        // The rest of the current frame was announced by its header, whatever follows. An incomplete header
        // leads nowhere.
        let (known, begun) = if self.mode == mode::FRAMES {
            (self.skip as u32, self.carry_len as u32)
        } else {
            (0, 0)
        };
        self.lose_sync();
        len - known + begun
    }

    /// Does one bounded piece of work on a segment of `len` payload bytes, of which those before `begin`
    /// are old and those before `at` are done. `from_client` is 1 for the client's direction, else 0.
    #[inline(always)]
    pub fn step(
        &mut self,
        at: &mut u32,
        begin: u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> Step {
        if *at >= len {
            return Step::End;
        }
        match self.mode {
            mode::FRAMES | mode::TRIAL | mode::EARLY => {
                self.step_frames(at, begin, len, from_client, payload)
            }
            mode::HEAD => self.step_head(at, len, payload),
            mode::UNSYNCED if self.flags & flag::PENDING_RUN != 0 => {
                self.scan(at, len, from_client, payload)
            }
            mode::UNSYNCED if *at == 0 => {
                self.begin_trial();
                Step::Again
            }
            mode::UNSYNCED => {
                let rest = len - *at;
                *at = len;
                Step::Unsynced(rest)
            }
            _ => Step::End,
        }
    }

    /// Gives up the rest of the segment; returns the number of bytes given up.
    #[inline(always)]
    pub fn abandon(&mut self, at: u32, begin: u32, len: u32) -> u32 {
        if at >= len || self.mode == mode::HANDSHAKE {
            return 0;
        }
        if self.mode == mode::EARLY {
            self.lose_sync();
            return 0;
        }
        let lost = if self.mode == mode::TRIAL {
            len - begin
        } else {
            // The payload of the last frame was announced by its header.
            let rest = len - at;
            let known = if self.skip < rest as u64 {
                self.skip as u32
            } else {
                rest
            };
            rest - known + self.carry_len as u32
        };
        self.lose_sync();
        lost
    }

    #[inline(always)]
    fn step_frames(
        &mut self,
        at: &mut u32,
        begin: u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> Step {
        let rest = len - *at;
        if self.skip >= rest as u64 {
            self.skip -= rest as u64;
            *at = len;
            return self.pass(begin, len);
        }
        *at += self.skip as u32;
        self.skip = 0;
        let carried = self.carry_len;
        // A header that straddles segments is completed one byte at a time. This is rare, takes at most 13
        // steps, and needs no variable offset into memory.
        let wanted = if carried == 0 {
            HEADER_MAX.min(len - *at)
        } else {
            1
        };
        let readable = payload.readable(*at);
        let have = wanted.min(readable);
        if have == 0 {
            return self.unreadable(at, begin);
        }
        let Some(mut head) = payload.read(*at, have) else {
            return self.unreadable(at, begin);
        };
        let mut whole = have;
        if carried != 0 {
            let byte = head.byte(0);
            head = self.carry;
            head.put(carried, byte);
            whole = carried as u32 + 1;
        }
        match Header::parse(&head, whole) {
            Some(header) => {
                let fresh = header.taken as u32 - carried as u32;
                self.carry_len = 0;
                if self.mode == mode::TRIAL {
                    self.try_header(&header, at, begin, len, fresh, from_client)
                } else {
                    self.take_header(header, at, len, fresh, from_client)
                }
            }
            None if readable < wanted => self.unreadable(at, begin),
            None => {
                self.carry = head;
                self.carry_len = whole as u8;
                *at += wanted;
                if *at < len {
                    return Step::Again;
                }
                self.pass(begin, len)
            }
        }
    }

    /// Handles the end of the segment.
    #[inline(always)]
    fn pass(&mut self, begin: u32, len: u32) -> Step {
        if self.mode == mode::TRIAL {
            self.flags &= !flag::FRESH;
            Step::Unsynced(len - begin)
        } else {
            Step::End
        }
    }

    /// In step, a complete header is accepted; `fresh` of its bytes lie in this segment.
    #[inline(always)]
    fn take_header(
        &mut self,
        header: Header,
        at: &mut u32,
        len: u32,
        fresh: u32,
        from_client: u8,
    ) -> Step {
        if header.violations(from_client) == 0 {
            self.trial = 0;
        } else {
            self.trial += 1;
            // Either the endpoint breaks the protocol, or this walk is out of step. No frame is as long as
            // the forbidden top bit would make it.
            if self.mode == mode::EARLY {
                self.lose_sync();
                *at = len;
                return Step::End;
            }
            let believable = self.flags & flag::CERTAIN != 0 && header.payload_len >> 63 == 0;
            if !believable || self.trial >= MAX_ILLEGAL {
                let begun = header.taken as u32 - fresh;
                let lost = begun + (len - *at);
                self.lose_sync();
                *at = len;
                return Step::Unsynced(lost);
            }
        }
        *at += fresh;
        self.skip = header.bytes_to_skip();
        // The frame usually ends with the segment; this saves the step that would find out.
        let rest = (len - *at) as u64;
        if self.skip >= rest {
            self.skip -= rest;
            *at = len;
        }
        if self.mode == mode::EARLY {
            self.follow_message(&header);
            return Step::Again;
        }
        Step::Frame(header)
    }

    #[inline(always)]
    fn step_head(&mut self, at: &mut u32, len: u32, payload: &impl Payload) -> Step {
        let have = HeadEnd::CHUNK.min(len - *at).min(payload.readable(*at));
        if have == 0 {
            return self.unreadable(at, *at);
        }
        let Some(chunk) = payload.read(*at, have) else {
            return self.unreadable(at, *at);
        };
        let mut head_end = HeadEnd(self.mark);
        let (taken, ended) = head_end.scan(chunk.0[0], have);
        self.mark = head_end.0;
        *at += taken;
        if ended {
            self.mode = mode::FRAMES;
            self.trial = 0;
        }
        Step::Again
    }

    #[inline(always)]
    fn unreadable(&mut self, at: &mut u32, begin: u32) -> Step {
        if self.mode == mode::TRIAL {
            *at = begin;
        }
        self.lose_sync();
        Step::Unreadable
    }

    /// Stops examining bytes.
    #[inline(always)]
    pub(crate) fn rest(&mut self) {
        self.mode = mode::HANDSHAKE;
    }

    /// Forgets everything assumed about the next bytes.
    #[inline(always)]
    pub(crate) fn lose_sync(&mut self) {
        self.mode = if self.mode == mode::EARLY {
            mode::HANDSHAKE
        } else {
            mode::UNSYNCED
        };
        self.skip = 0;
        self.carry_len = 0;
        self.flags &= !(flag::CERTAIN | flag::MESSAGE);
    }
}
