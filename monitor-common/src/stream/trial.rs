//! Resynchronisation with the frames: from a possible beginning, the chain of headers is followed until
//! there is [`ENOUGH`] evidence that it isn't a coincidence.

use super::{Payload, Step, Walk, flag, mode};
use crate::frame::Header;

/// Evidence that a segment begins with a frame, in bits: how unlikely it is that random bytes look the
/// same. About one in ten thousand million tries is accepted by mistake.
pub const ENOUGH: u8 = 33;
/// 13 of 256 first bytes are legal, and one of two mask bits.
const HEADER_BITS: u8 = 5;
/// One of 128 lengths ends with the segment.
const EXACT_END_BITS: u8 = 7;

/// A segment of 64 KiB has 2^16 possible beginnings.
const SCAN_BITS: u8 = 16;

/// The longest payload that a header on trial may announce. Random bytes usually announce more if they use
/// eight bytes for it.
const MAX_TRIAL_LEN: u64 = 16 << 20;

impl Walk {
    /// Follows the chain of headers from the start of the current segment, without accepting it.
    #[inline(always)]
    pub(super) fn begin_trial(&mut self) {
        if self.flags & flag::PENDING_RUN != 0 {
            self.notes = self.notes.wrapping_add(1);
        }
        self.flags |= flag::FRESH;
        self.mode = mode::TRIAL;
        self.skip = 0;
        self.carry_len = 0;
        self.trial = 0;
        self.forget_message();
    }

    /// Continues at the position of `other`, on trial. Its evidence counts less, because a pending run
    /// tries every offset.
    #[inline(always)]
    pub(crate) fn continue_trial(&mut self, other: &Self) {
        self.mode = mode::TRIAL;
        self.trial = other.trial.saturating_sub(SCAN_BITS);
        self.forget_message();
        self.continue_as(other);
    }

    /// On trial, a complete header is evidence for or against the chain.
    #[inline(always)]
    pub(super) fn try_header(
        &mut self,
        header: &Header,
        at: &mut u32,
        begin: u32,
        len: u32,
        fresh: u32,
        from_client: u8,
    ) -> Step {
        // Zeros are common in payload and would form an endless chain.
        let broken = header.violations(from_client) as u16 | self.follow_message(header);
        if broken != 0 || header.is_blank() || header.payload_len > MAX_TRIAL_LEN {
            return self.fail_trial(at, begin, len);
        }
        let pending_run = self.flags & flag::PENDING_RUN != 0;
        let begins_here = fresh == header.taken as u32;
        let next = *at as u64 + fresh as u64 + header.bytes_to_skip();
        let exact = (next == len as u64) as u8;
        self.trial = self
            .trial
            .saturating_add(HEADER_BITS + EXACT_END_BITS * exact);
        if pending_run {
            self.mark = (*at + fresh).wrapping_sub(header.taken as u32);
        } else if self.trial >= ENOUGH && begins_here {
            // Only this header is certain: a wrong header before it may have led to the right one.
            self.mode = mode::FRAMES;
            self.trial = 0;
            self.forget_message();
            return Step::Synced(*at - begin);
        }
        if next >= len as u64 {
            self.skip = next - len as u64;
            *at = len;
        } else {
            *at = next as u32;
        }
        if pending_run {
            if *at == len {
                self.flags &= !flag::FRESH;
            }
            return Step::Frame(*header);
        }
        if *at < len {
            return Step::Again;
        }
        self.pass(begin, len)
    }

    /// On a pending run, any offset may be the beginning of a frame; wrong ones are not counted.
    #[inline(always)]
    pub(super) fn scan(
        &mut self,
        at: &mut u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> Step {
        if len - *at < 2 {
            *at = len;
            return Step::End;
        }
        let Some(head) = payload.read(*at, 2) else {
            return Step::Unreadable;
        };
        if Header::may_begin(&head, from_client) {
            self.begin_trial();
        } else {
            *at += 1;
        }
        Step::Again
    }

    #[inline(always)]
    fn fail_trial(&mut self, at: &mut u32, begin: u32, len: u32) -> Step {
        let fresh = self.is_fresh();
        self.lose_sync();
        if self.flags & flag::PENDING_RUN != 0 {
            return Step::Again;
        }
        if begin == 0 && !fresh {
            // A chain from an earlier segment was wrong, but one that begins here may be right.
            *at = 0;
            self.begin_trial();
            return Step::Again;
        }
        *at = len;
        Step::Unsynced(len - begin)
    }

    /// Whether the trial began in the current segment.
    #[inline(always)]
    pub(crate) const fn is_fresh(&self) -> bool {
        self.flags & flag::FRESH != 0
    }
}
