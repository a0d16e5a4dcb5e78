//! The pings of one side, inferred from the sizes and times of TLS records.
//!
//! A ping and its pong have the same payload, so their records differ by a known number of bytes. A small
//! record is a *candidate*. A record of the other side with the length of a pong *answers* it under three
//! conditions:
//!
//! * It comes within a second.
//! * It comes sooner than the candidate came after the last record of the other side. This distinguishes a
//!   ping from the response to a request.
//! * It comes soon after TCP acknowledged the candidate, or acknowledges it. This distinguishes a pong from a
//!   text that the other side sends by a timer of its own.
//!
//! Only an answered candidate is remembered, as a *rhythm* of its length. A rhythm is a heartbeat once its
//! period was confirmed [`LEARNED`] times within 12 %. Then the first record of that length that comes when a
//! ping is due counts as that ping, answered or not.

use crate::{bounds::within, segment::after};

/// Candidates that can wait for their answer.
const CANDIDATES: usize = 4;

/// Rhythms that are followed at the same time. Texts that happen to be answered need some.
const RHYTHMS: usize = 4;

/// Lengths of a record that may hold a ping: from an empty one (ChaCha20 in TLS 1.2) to one of 125 bytes
/// with the largest overhead.
const MIN_LEN: u16 = 18;
const MAX_LEN: u16 = 190;

/// The longest record from which a heartbeat is inferred: a pong to the longest ping, with its mask and
/// JSSE's padding.
pub(super) const MAX_HEARTBEAT_LEN: u16 = MAX_LEN + 4 + 16;

/// Nanoseconds: an answer that comes later proves nothing.
const MAX_ROUND_TRIP: u64 = 1_000_000_000;

/// Nanoseconds: an answer that comes later after the acknowledgement of the ping is not caused by it. In the
/// recordings of `testdata`, 99 % come within 4 ms.
const PROMPT: u64 = 100_000_000;

/// Nanoseconds as a power of two: the unit of [`Candidate::gap`].
const GAP_SHIFT: u32 = 14;

/// Confirmations after which a rhythm is a heartbeat.
const LEARNED: u8 = 3;

/// Confirmations that count: a heartbeat that stops fitting is soon forgotten.
const MOST_REGULAR: u8 = 12;

/// Nanoseconds as a power of two: the unit of periods, 1.05 ms.
const UNIT_SHIFT: u32 = 20;

/// The shortest period of a heartbeat, 0.9 s. A faster exchange is part of the application.
const MIN_PERIOD: u32 = 858;

/// Pings that are recognised after the last one with an answer. On a busy connection some answers are not
/// found, because other records come between a ping and its pong.
const MAX_UNANSWERED: u32 = 4;

/// A sent record that may be a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Candidate {
    at: u64,
    /// The sequence number behind the segment in which it begins.
    end: u32,
    /// From the last record of the other side, in units of 16 µs; saturates.
    gap: u16,
    /// 0 = none.
    len: u16,
}

/// What of the pings' direction had arrived at the other side when it sent something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// The sequence number behind it.
    pub(super) until: u32,
    /// When the last of it was acknowledged. Of what was sent after a ping too: then its answer seems to come
    /// sooner than it did.
    pub(super) at: u64,
}

/// Answered candidates of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Rhythm {
    /// When the last one was sent. Sends without an answer do not move it: texts of the same length would.
    last: u64,
    /// 0 before the second.
    period: u32,
    len: u16,
    /// How often the period was confirmed.
    regular: u8,
    /// Of the periods since `last`, those whose ping was sent: bit 1 is the first.
    sent: u8,
}

/// What is known of the pings of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct PingInference {
    candidates: [Candidate; CANDIDATES],
    rhythms: [Rhythm; RHYTHMS],
    /// When the other side last sent a record.
    last_heard: u64,
    /// The candidate to replace next.
    next: u32,
    _pad: u32,
}

const _: () = assert!(size_of::<PingInference>() == 144);

impl Rhythm {
    const NONE: Self = Self {
        last: 0,
        period: 0,
        len: 0,
        regular: 0,
        sent: 0,
    };

    #[inline(always)]
    const fn is_learned(&self) -> bool {
        self.regular >= LEARNED && self.period >= MIN_PERIOD
    }

    /// How many periods after the last one `at` is, if it is near a multiple of the period; otherwise 0.
    #[inline(always)]
    fn periods_until(&self, at: u64) -> u32 {
        if self.period == 0 {
            return 0;
        }
        let passed = units(at.saturating_sub(self.last));
        let periods = (passed + self.period / 2) / self.period;
        let stray = passed.abs_diff(periods * self.period);
        let is_near = stray as u64 * 25 <= self.period as u64 * 3;
        if is_near && periods <= MAX_UNANSWERED {
            periods
        } else {
            0
        }
    }

    /// Takes a record of this length, sent at `at`. Returns whether it is the ping of another period.
    #[inline(always)]
    fn send(&mut self, at: u64) -> bool {
        let periods = self.periods_until(at);
        let is_new = periods != 0 && self.sent >> periods == 0;
        if is_new {
            self.sent |= 1 << periods;
        }
        is_new
    }

    /// Adds a candidate of this length, sent at `at`, that was answered.
    #[inline(always)]
    fn confirm(&mut self, at: u64) {
        if at <= self.last {
            return;
        }
        let periods = self.periods_until(at);
        let passed = units(at - self.last);
        // Of pings that were sent in between, the answers were not found.
        let between = match periods {
            0 => self.sent,
            _ => self.sent & ((1 << periods) - 1),
        };
        if periods == 1 {
            self.regular = (self.regular + 1).min(MOST_REGULAR);
            // Smoothed by 1/8, rounded towards the new value.
            let up = 7 * (passed > self.period) as u32;
            self.period = (self.period * 7 + passed + up) / 8;
        } else if periods == 0 || between == 0 {
            if self.is_learned() && passed < self.period {
                // A text that happens to be answered.
                return;
            }
            // On a lossy path, several answers in a row come too late.
            self.regular = match between {
                0 => self.regular / 2,
                _ => self.regular.saturating_sub(1),
            };
            if self.regular < LEARNED {
                self.period = passed;
            }
        }
        self.sent = 0;
        self.last = at;
    }
}

impl PingInference {
    /// All zero: nothing seen.
    pub(super) const EMPTY: Self = Self {
        candidates: [Candidate {
            at: 0,
            end: 0,
            gap: 0,
            len: 0,
        }; CANDIDATES],
        rhythms: [Rhythm::NONE; RHYTHMS],
        last_heard: 0,
        next: 0,
        _pad: 0,
    };

    /// This side sends a record of `len` bytes in a segment that ends before the sequence number `end`. If it
    /// is a ping, returns the period of its heartbeat in nanoseconds.
    #[inline(always)]
    pub(super) fn send(&mut self, len: u16, end: u32, now: u64) -> Option<u64> {
        if !(MIN_LEN..=MAX_LEN).contains(&len) {
            return None;
        }
        let gap = now.saturating_sub(self.last_heard) >> GAP_SHIFT;
        let next = within(self.next as usize, CANDIDATES - 1);
        self.candidates[next] = Candidate {
            at: now,
            end,
            gap: if gap > u16::MAX as u64 {
                u16::MAX
            } else {
                gap as u16
            },
            len,
        };
        self.next = self.next.wrapping_add(1);
        let mut period = 0;
        let mut i = 0;
        while i < RHYTHMS {
            let rhythm = &mut self.rhythms[i];
            if rhythm.len == len && rhythm.send(now) && rhythm.is_learned() {
                period = (rhythm.period as u64) << UNIT_SHIFT;
            }
            i += 1;
        }
        (period != 0).then_some(period)
    }

    /// The other side sends a record that would be the pong to a ping of `ping_len` bytes. Returns the
    /// round trip in nanoseconds if it answers one of a heartbeat.
    #[inline(always)]
    pub(super) fn receive(&mut self, ping_len: u16, arrived: Arrived, now: u64) -> Option<u64> {
        let round_trip = self.take_answered(ping_len, arrived, now);
        self.last_heard = now;
        let at = now.saturating_sub(round_trip?);
        let is_learned = self.confirm(ping_len, at);
        round_trip.filter(|_| is_learned)
    }

    /// Takes the latest candidate of this length that a record at `now` answers. Returns its age.
    #[inline(always)]
    fn take_answered(&mut self, len: u16, arrived: Arrived, now: u64) -> Option<u64> {
        let mut newest = MAX_ROUND_TRIP;
        let mut found = CANDIDATES;
        let mut i = 0;
        while i < CANDIDATES {
            let candidate = &self.candidates[i];
            let age = now.saturating_sub(candidate.at);
            let is_caused = !after(candidate.end, arrived.until)
                && (age <= PROMPT || now.saturating_sub(arrived.at) <= PROMPT);
            let is_sooner = age < (candidate.gap as u64) << GAP_SHIFT;
            if candidate.len == len && age < newest && is_sooner && is_caused {
                newest = age;
                found = i;
            }
            i += 1;
        }
        if found == CANDIDATES || len == 0 {
            return None;
        }
        self.candidates[within(found, CANDIDATES - 1)].len = 0;
        Some(newest)
    }

    /// Adds an answered candidate to its rhythm, or begins one instead of the least regular. Returns
    /// whether it is a heartbeat.
    #[inline(always)]
    fn confirm(&mut self, len: u16, at: u64) -> bool {
        let mut weakest = 0;
        let mut least = u8::MAX;
        let mut i = 0;
        while i < RHYTHMS {
            let rhythm = &mut self.rhythms[i];
            if rhythm.len == len {
                rhythm.confirm(at);
                return rhythm.is_learned();
            }
            let weight = if rhythm.is_learned() {
                rhythm.regular + LEARNED
            } else {
                rhythm.regular.min(LEARNED)
            };
            if weight < least {
                least = weight;
                weakest = i;
            }
            i += 1;
        }
        self.rhythms[within(weakest, RHYTHMS - 1)] = Rhythm {
            last: at,
            len,
            ..Rhythm::NONE
        };
        false
    }
}

/// Nanoseconds in [`UNIT_SHIFT`], at most a quarter of the range, 13 days.
#[inline(always)]
const fn units(nanos: u64) -> u32 {
    const MOST: u64 = 1 << 28;
    let units = nanos >> UNIT_SHIFT;
    if units < MOST {
        units as u32
    } else {
        MOST as u32
    }
}

#[cfg(test)]
mod tests;
