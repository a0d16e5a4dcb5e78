//! One direction of a TCP stream: from segments to frame headers, without copying payload.
//!
//! [`Walk::admit`] places a segment in the stream; then [`Walk::step`] is called until it says
//! [`Step::End`]. Each step does a bounded amount of work and reads at most one header, so that
//! the kernel can run it under `bpf_loop` and a test in a plain loop.

use crate::{
    frame::{HEADER_MAX, Head, Header},
    handshake::HeadEnd,
};

/// Steps one segment may take. The smallest client frame has 6 bytes, so a 64 KiB segment of
/// them fits; what is left beyond it is reported, never skipped in silence.
pub const MAX_STEPS: u32 = 16_384;

/// A sequence number further ahead than the largest window (RFC 7323 §2.3) is not of this stream.
const MAX_WINDOW: u32 = 1 << 30;

/// Chained headers that make a segment start believable when the chain does not end with the
/// segment.
const RESYNC_CHAIN: u8 = 3;

/// The payload of the segment in hand.
pub trait Payload {
    /// The `len` bytes (1 to 14) at `offset`, with zeros behind them; `None` if they cannot be read.
    fn read(&self, offset: u32, len: u32) -> Option<Head>;
}

/// What the bytes of a direction are.
pub mod mode {
    /// HTTP, or nothing yet: segments are placed, bytes are not looked at.
    pub const HANDSHAKE: u8 = 0;
    /// Inside the head of the 101 response; frames begin right behind it.
    pub const HEAD: u8 = 1;
    /// In step with the frames.
    pub const FRAMES: u8 = 2;
    /// Somewhere between frames: waits for a segment that starts with a believable header.
    pub const UNSYNCED: u8 = 3;
    /// Testing whether the segment in hand does.
    pub const TRIAL: u8 = 4;
}

/// The parse state of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Walk {
    /// Payload bytes of the current frame that are still to pass.
    pub skip: u64,
    /// The first bytes of a header that straddles segments, with zeros behind them; means something
    /// only while `carry_len` is not 0.
    pub carry: Head,
    /// The next unseen sequence number.
    pub next_seq: u32,
    pub head_end: HeadEnd,
    /// A [`mode`].
    pub mode: u8,
    /// Bytes in `carry`.
    pub carry_len: u8,
    /// Headers that agreed so far in [`mode::TRIAL`].
    pub trial: u8,
    /// 1 once `next_seq` is known.
    pub started: u8,
    /// What is notable about the segment in hand; see [`crate::flow::notable`].
    notes: u32,
}

const _: () = assert!(size_of::<Walk>() == 40);

/// The unseen part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Offset of the first unseen byte.
    pub offset: u32,
    /// Bytes in front of it that never came and may have held a header.
    pub lost: u32,
}

/// What one step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame begins.
    Frame(Header),
    /// Nothing to report; go on.
    Again,
    /// In step with the frames from the start of this segment on; go on.
    Synced,
    /// These bytes belong to no known frame; go on.
    Unsynced(u32),
    /// The segment is done.
    End,
    /// The payload could not be read; the segment is done and the direction unsynced.
    Unreadable,
}

impl Walk {
    /// All zero: nothing seen, nothing looked at.
    pub const EMPTY: Self = Self {
        skip: 0,
        carry: Head([0; 2]),
        next_seq: 0,
        head_end: HeadEnd::START,
        mode: mode::HANDSHAKE,
        carry_len: 0,
        trial: 0,
        started: 0,
        notes: 0,
    };

    /// Adds to the notes about the segment in hand.
    ///
    /// Volatile, so that the notes stay in memory: kept in a register, the verifier would follow
    /// every combination of them through the rest of the program.
    #[inline(always)]
    pub fn note(&mut self, bits: u32) {
        let notes = &raw mut self.notes;
        // SAFETY: the pointer comes from a live, exclusive reference.
        unsafe { notes.write_volatile(notes.read_volatile() | bits) };
    }

    /// Takes the notes about the segment in hand.
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

    /// Places `len` bytes at `seq` in the stream. `None` if there is nothing new in them.
    ///
    /// A hole that lies inside the payload of the current frame is harmless. A hole that may have
    /// held a header makes the direction unsynced.
    #[inline(always)]
    pub fn admit(&mut self, seq: u32, len: u32) -> Option<Admission> {
        let end = seq.wrapping_add(len);
        if self.started == 0 {
            self.started = 1;
            self.next_seq = end;
            return Some(Admission { offset: 0, lost: 0 });
        }
        let ahead = seq.wrapping_sub(self.next_seq);
        if ahead as i32 <= 0 {
            let seen = ahead.wrapping_neg();
            if seen >= len {
                return None;
            }
            self.next_seq = end;
            return Some(Admission {
                offset: seen,
                lost: 0,
            });
        }
        if ahead > MAX_WINDOW {
            return None;
        }
        self.next_seq = end;
        Some(Admission {
            offset: 0,
            lost: self.leap(ahead),
        })
    }

    /// Passes a hole of `len` bytes; returns how many of them may have held a header.
    #[inline(always)]
    fn leap(&mut self, len: u32) -> u32 {
        match self.mode {
            mode::HANDSHAKE => 0,
            mode::FRAMES if self.carry_len == 0 && self.skip >= len as u64 => {
                self.skip -= len as u64;
                0
            }
            _ => {
                self.lose_sync();
                len
            }
        }
    }

    /// Does one bounded piece of work on a segment of `len` payload bytes, of which `at` are done.
    /// `from_client` is 1 for the client's direction, else 0.
    #[inline(always)]
    pub fn step(
        &mut self,
        at: &mut u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> Step {
        if *at >= len {
            return Step::End;
        }
        match self.mode {
            mode::FRAMES | mode::TRIAL => self.step_frames(at, len, from_client, payload),
            mode::HEAD => self.step_head(at, len, payload),
            mode::UNSYNCED if *at == 0 => {
                self.mode = mode::TRIAL;
                self.trial = 0;
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

    /// Gives up on what is left of the segment; returns the bytes given up.
    #[inline(always)]
    pub fn abandon(&mut self, at: u32, len: u32) -> u32 {
        if at >= len || self.mode == mode::HANDSHAKE {
            return 0;
        }
        self.lose_sync();
        len - at
    }

    #[inline(always)]
    fn step_frames(
        &mut self,
        at: &mut u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> Step {
        let rest = len - *at;
        if self.skip >= rest as u64 {
            self.skip -= rest as u64;
            *at = len;
            return Step::End;
        }
        *at += self.skip as u32;
        self.skip = 0;
        let carried = self.carry_len;
        // A header that straddles segments is completed a byte at a time: rare, at most 13 steps,
        // and it needs no variable offset into memory.
        let wanted = if carried == 0 {
            HEADER_MAX.min(len - *at)
        } else {
            1
        };
        let Some(mut head) = payload.read(*at, wanted) else {
            return self.unreadable();
        };
        let mut have = wanted;
        if carried != 0 {
            let byte = head.byte(0);
            head = self.carry;
            head.put(carried, byte);
            have = carried as u32 + 1;
        }
        match Header::parse(&head, have) {
            Some(header) => {
                let fresh = header.taken as u32 - carried as u32;
                self.carry_len = 0;
                self.judge(header, at, len, fresh, from_client)
            }
            None if self.mode == mode::TRIAL => self.fail_trial(at, len),
            None => {
                self.carry = head;
                self.carry_len = have as u8;
                *at += wanted;
                Step::Again
            }
        }
    }

    /// Believes a complete header or not; `fresh` of its bytes lie in this segment.
    #[inline(always)]
    fn judge(
        &mut self,
        header: Header,
        at: &mut u32,
        len: u32,
        fresh: u32,
        from_client: u8,
    ) -> Step {
        if !header.is_plausible(from_client) {
            if self.mode == mode::TRIAL {
                return self.fail_trial(at, len);
            }
            // Out of step, or an endpoint that breaks the protocol: either way the next bytes
            // mean nothing to us.
            self.lose_sync();
            return Step::Again;
        }
        if self.mode == mode::TRIAL {
            // Zeros are common in payload and would be an endless chain.
            if header.is_blank() {
                return self.fail_trial(at, len);
            }
            return self.follow_trial(&header, at, len, fresh);
        }
        *at += fresh;
        self.skip = header.bytes_to_skip();
        // Mostly the frame reaches to the end of the segment: no further step is needed to see it.
        let rest = (len - *at) as u64;
        if self.skip >= rest {
            self.skip -= rest;
            *at = len;
        }
        Step::Frame(header)
    }

    /// Follows the chain of headers from the segment's start without believing them yet. The
    /// start is believed if the chain ends exactly with the segment or is long enough.
    #[inline(always)]
    fn follow_trial(&mut self, header: &Header, at: &mut u32, len: u32, fresh: u32) -> Step {
        self.trial += 1;
        let next = *at as u64 + fresh as u64 + header.bytes_to_skip();
        if next == len as u64 || self.trial >= RESYNC_CHAIN {
            self.mode = mode::FRAMES;
            *at = 0;
            return Step::Synced;
        }
        if next > len as u64 {
            return self.fail_trial(at, len);
        }
        *at = next as u32;
        Step::Again
    }

    #[inline(always)]
    fn step_head(&mut self, at: &mut u32, len: u32, payload: &impl Payload) -> Step {
        let have = HeadEnd::CHUNK.min(len - *at);
        let Some(chunk) = payload.read(*at, have) else {
            return self.unreadable();
        };
        let (taken, ended) = self.head_end.scan(chunk.0[0], have);
        *at += taken;
        if ended {
            self.mode = mode::FRAMES;
        }
        Step::Again
    }

    #[inline(always)]
    fn fail_trial(&mut self, at: &mut u32, len: u32) -> Step {
        self.lose_sync();
        *at = len;
        Step::Unsynced(len)
    }

    #[inline(always)]
    fn unreadable(&mut self) -> Step {
        self.lose_sync();
        Step::Unreadable
    }

    #[inline(always)]
    fn lose_sync(&mut self) {
        self.mode = mode::UNSYNCED;
        self.skip = 0;
        self.carry_len = 0;
    }
}
