//! What one connection carried from its beginning to its end, for its summary.
//!
//! The kernel programs keep this in a storage of its own, and only if the daemon needs it: a flow with its
//! storage's header fills 512 bytes, and so does this.

use crate::{
    Direction,
    frame::{Header, opcode},
    moment::TICK,
    stats::{Counter, ProtocolError},
};

/// The account of one connection. Pairs are `[rx, tx]`. Each field has one writer, as in a
/// [`Snapshot`](crate::snapshot::Snapshot): the
/// direction of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionTotals {
    /// Frames by the slots of [`OPCODES`].
    frames: [[u64; OPCODES.len()]; 2],
    /// Finished data messages.
    pub messages: [u64; 2],
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: [Counter; 2],
    /// By the direction of the frame and [`ProtocolError`].
    protocol_errors: [[u32; ProtocolError::ALL.len()]; 2],
    /// By the side that sent the pings. Written by the direction of the pongs.
    pub ping_rtts: [PingRtts; 2],
    /// The longest idle gap that a packet of each direction ended, in ticks, rounded down.
    pub longest_gap_ticks: [u32; 2],
}

/// Round trips of pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PingRtts {
    /// Microseconds; 0 = none.
    min: u32,
    max: u32,
    /// By [`slot_of`]. When a slot is full, all are halved, so that old round trips lose weight.
    counts: [u16; RTT_SLOTS],
}

/// The opcodes that are counted separately; the last slot is of all reserved ones.
pub const OPCODES: [u8; 7] = [
    opcode::CONTINUATION,
    opcode::TEXT,
    opcode::BINARY,
    opcode::CLOSE,
    opcode::PING,
    opcode::PONG,
    0xf,
];

/// For each opcode four bits: its slot in [`OPCODES`]. A table in memory would need a map access.
const OPCODE_SLOTS: u64 = 0x6666_6543_6666_6210;

/// One slot for shorter round trips, four for each of the 11.5 doublings from 256 µs to 0.79 s, and one for
/// longer ones. A slot is at most a quarter of its lower bound wide.
const RTT_SLOTS: usize = 48;

/// The number of quarters of doublings below the first slot, less one.
const SKIPPED: u32 = 8 * 4 - 1;

impl ConnectionTotals {
    pub const EMPTY: Self = Self {
        frames: [[0; OPCODES.len()]; 2],
        messages: [0; 2],
        unsynced_bytes: [Counter::ZERO; 2],
        protocol_errors: [[0; ProtocolError::ALL.len()]; 2],
        ping_rtts: [PingRtts::EMPTY; 2],
        longest_gap_ticks: [0; 2],
    };

    /// Accounts for a frame; `first_byte` is the first of its header, `broken_rules` as in a
    /// [`FrameEffect`](crate::flow::FrameEffect).
    #[inline(always)]
    pub fn frame(&mut self, direction: Direction, first_byte: u8, broken_rules: u16) {
        let i = direction.index();
        let opcode = first_byte & 0x0f;
        let slot = (OPCODE_SLOTS >> (4 * opcode) & 0x0f) as usize;
        if let Some(frames) = self.frames[i].get_mut(slot) {
            *frames = frames.wrapping_add(1);
        }
        let is_control = matches!(opcode, opcode::CLOSE | opcode::PING | opcode::PONG);
        if first_byte & Header::FIN != 0 && !is_control {
            self.messages[i] = self.messages[i].wrapping_add(1);
        }
        if broken_rules != 0 {
            let mut rule = 0;
            while rule < ProtocolError::ALL.len() {
                let errors = &mut self.protocol_errors[i][rule];
                *errors = errors.wrapping_add((broken_rules >> rule & 1) as u32);
                rule += 1;
            }
        }
    }

    /// Accounts for the round trip that a pong of this direction ends, in microseconds, at least 1.
    #[inline(always)]
    pub fn round_trip(&mut self, direction: Direction, micros: u32) {
        self.ping_rtts[direction.opposite().index()].observe(micros);
    }

    /// Accounts for stream bytes that could not be attributed to frames.
    #[inline(always)]
    pub fn unsynced(&mut self, direction: Direction, bytes: u64) {
        // The 101 accounts for what the client sent before it, so there are two writers.
        self.unsynced_bytes[direction.index()].add(bytes);
    }

    /// Accounts for an idle gap that a packet of this direction ended.
    #[inline(always)]
    pub fn idle_gap(&mut self, direction: Direction, ticks: u32) {
        let longest = &mut self.longest_gap_ticks[direction.index()];
        if ticks > *longest {
            *longest = ticks;
        }
    }

    /// Frames of a direction by the opcodes of [`OPCODES`].
    pub fn frames(&self, direction: Direction) -> &[u64; OPCODES.len()] {
        &self.frames[direction.index()]
    }

    /// How often the endpoints broke a rule.
    pub fn protocol_errors(&self, error: ProtocolError) -> u64 {
        let of = |direction: usize| u64::from(self.protocol_errors[direction][error as usize]);
        of(0) + of(1)
    }

    /// The longest idle gap, nanoseconds; 0 if there was none.
    pub fn longest_idle_gap(&self) -> u64 {
        let [rx, tx] = self.longest_gap_ticks;
        u64::from(rx.max(tx)) * TICK
    }
}

impl PingRtts {
    const EMPTY: Self = Self {
        min: 0,
        max: 0,
        counts: [0; RTT_SLOTS],
    };

    /// `micros` is not 0.
    #[inline(always)]
    fn observe(&mut self, micros: u32) {
        if self.min == 0 || micros < self.min {
            self.min = micros;
        }
        if micros > self.max {
            self.max = micros;
        }
        if let Some(count) = self.counts.get_mut(slot_of(micros))
            && *count < u16::MAX
        {
            *count += 1;
            return;
        }
        let mut slot = 0;
        while slot < RTT_SLOTS {
            self.counts[slot] /= 2;
            slot += 1;
        }
    }

    /// The shortest round trip, the median, and the longest one, in microseconds; `None` without any.
    ///
    /// The median is the middle of its slot, but never outside the other two. Between 256 µs and 0.79 s it
    /// is at most 12.5 % off.
    pub fn min_median_max(&self) -> Option<[u32; 3]> {
        let middle = self
            .counts
            .iter()
            .map(|n| u64::from(*n))
            .sum::<u64>()
            .div_ceil(2);
        let mut seen = 0;
        let slot = self.counts.iter().position(|n| {
            seen += u64::from(*n);
            *n != 0 && seen >= middle
        })?;
        let upper = match slot + 1 {
            RTT_SLOTS => self.max,
            next => lower_bound(next),
        };
        // Not `clamp`: a record may hold anything.
        let (low, high) = (lower_bound(slot).max(self.min), upper.min(self.max));
        Some([self.min, low.midpoint(high), self.max])
    }
}

/// The slot of a round trip in microseconds: below [`RTT_SLOTS`], and monotonic.
#[inline(always)]
const fn slot_of(micros: u32) -> usize {
    let doublings = 31 - (micros | 4).leading_zeros();
    let quarters = doublings * 4 + (micros >> (doublings - 2) & 3);
    let slot = quarters.saturating_sub(SKIPPED) as usize;
    if slot < RTT_SLOTS {
        slot
    } else {
        RTT_SLOTS - 1
    }
}

/// The shortest round trip of a slot, microseconds.
const fn lower_bound(slot: usize) -> u32 {
    if slot == 0 {
        return 0;
    }
    let quarters = slot as u32 + SKIPPED;
    (4 + quarters % 4) << (quarters / 4 - 2)
}

const _: () = assert!(size_of::<ConnectionTotals>() == 440);

#[cfg(test)]
mod tests {
    use super::*;

    fn rtts(micros: impl IntoIterator<Item = u32>) -> [u32; 3] {
        let mut rtts = PingRtts::EMPTY;
        micros.into_iter().for_each(|rtt| rtts.observe(rtt));
        rtts.min_median_max().expect("a round trip")
    }

    #[test]
    fn each_opcode_has_its_slot_and_reserved_ones_share_the_last() {
        for raw in 0..16_u8 {
            let slot = (OPCODE_SLOTS >> (4 * raw) & 0x0f) as usize;
            assert_eq!(opcode::name(OPCODES[slot]), opcode::name(raw), "{raw}");
        }
    }

    #[test]
    fn slots_are_contiguous_and_at_most_a_quarter_wide() {
        assert_eq!((lower_bound(1), lower_bound(RTT_SLOTS - 1)), (256, 786_432));
        for slot in 1..RTT_SLOTS {
            let low = lower_bound(slot);
            assert_eq!((slot_of(low - 1), slot_of(low)), (slot - 1, slot));
            if slot + 1 < RTT_SLOTS {
                assert!(lower_bound(slot + 1) - low <= low / 4, "{slot}");
            }
        }
        assert_eq!((slot_of(1), slot_of(u32::MAX)), (0, RTT_SLOTS - 1));
    }

    #[test]
    fn the_median_is_within_an_eighth_and_never_outside_what_was_measured() {
        assert_eq!(PingRtts::EMPTY.min_median_max(), None);
        assert_eq!(rtts([7]), [7, 7, 7]);
        assert_eq!(rtts([5_000_000]), [5_000_000; 3]);
        for exact in [300, 1_000, 20_000, 123_456, 700_000_u32] {
            let [min, median, max] = rtts([1, exact, exact, exact, 9_000_000]);
            assert_eq!((min, max), (1, 9_000_000));
            assert!(median.abs_diff(exact) <= exact / 8, "{median} for {exact}");
        }
    }

    #[test]
    fn a_full_slot_halves_all_and_the_median_stays() {
        let long = std::iter::repeat_n(100_000, 3 * usize::from(u16::MAX));
        let [min, median, max] = rtts(std::iter::repeat_n(1_000, 40_000).chain(long));
        assert_eq!((min, max), (1_000, 100_000));
        assert!(median.abs_diff(100_000) <= 12_500, "{median}");
    }

    #[test]
    fn messages_end_with_a_final_data_frame_and_errors_are_counted_by_rule() {
        let mut totals = ConnectionTotals::EMPTY;
        for first_byte in [0x01, 0x00, 0x80, 0x82, 0x89, 0x8a, 0x88] {
            totals.frame(Direction::Tx, first_byte, 0);
        }
        let broken_rules = 1 << ProtocolError::MaskedServer as u16;
        totals.frame(Direction::Tx, 0x8b, broken_rules);
        assert_eq!(totals.messages, [0, 3], "a reserved opcode counts as data");
        assert_eq!(totals.frames(Direction::Tx), &[2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(totals.frames(Direction::Rx), &[0; 7]);
        assert_eq!(totals.protocol_errors(ProtocolError::MaskedServer), 1);
        assert_eq!(totals.protocol_errors(ProtocolError::ReservedBits), 0);
    }
}
