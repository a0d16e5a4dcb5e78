//! A scale for idle gaps and heartbeats from one second to six days, fine enough to identify a timeout.
//!
//! Log-linear: each doubling of the time has 32 slots of equal width, so a slot is at most 3.2 % wide.
//! Finding a slot takes no loop and branches only at the two ends, because the verifier follows every
//! branch.

use crate::stats::IDLE_GAP_FLOOR;

/// Number of slots: one for shorter times, 5 from a second to 2³⁰ ns, and 32 for each of the 19 doublings
/// up to 2⁴⁹ ns (6.5 days; connection tracking in Linux forgets after 5).
pub const SLOTS: usize = 1 + 5 + 19 * PER_OCTAVE as usize;

/// The slot of a time in nanoseconds: below [`SLOTS`], and monotonic.
///
/// Slot 0 holds times shorter than [`IDLE_GAP_FLOOR`], except the last 10 ms, which share a slot with it.
/// The last slot holds times longer than the scale.
#[inline(always)]
pub const fn slot_of(nanos: u64) -> usize {
    let units = nanos >> UNIT_SHIFT;
    // 0 up to the first doubling, where a slot is one unit wide.
    let doublings = 63 - (units | PER_OCTAVE).leading_zeros() - PER_OCTAVE.ilog2();
    let position = doublings as u64 * PER_OCTAVE + (units >> doublings);
    let slot = position.saturating_sub(SKIPPED) as usize;
    if slot < SLOTS { slot } else { SLOTS - 1 }
}

/// The bounds of a slot in nanoseconds, the lower one inclusive, the upper one exclusive. The last slot has
/// no end: its upper bound is [`u64::MAX`].
pub const fn bounds(slot: usize) -> (u64, u64) {
    let upper = if slot < SLOTS - 1 {
        lower(slot + 1)
    } else {
        u64::MAX
    };
    (lower(slot), upper)
}

const fn lower(slot: usize) -> u64 {
    if slot == 0 {
        return 0;
    }
    let position = slot as u64 + SKIPPED;
    let doublings = position / PER_OCTAVE - 1;
    (position % PER_OCTAVE + PER_OCTAVE) << (doublings + UNIT_SHIFT as u64)
}

const PER_OCTAVE: u64 = 32;
/// 16.8 ms: the width of a slot between 2²⁹ and 2³⁰ ns, where one second lies.
const UNIT_SHIFT: u32 = 24;
/// Slots of that width below the first one, which are merged into slot 0.
const SKIPPED: u64 = (IDLE_GAP_FLOOR >> UNIT_SHIFT) - 1;

const _: () = assert!(slot_of(IDLE_GAP_FLOOR) == 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// As many short times as long ones.
    fn nanos() -> impl Strategy<Value = u64> {
        (0_u32..64, any::<u64>()).prop_map(|(shift, n)| n >> shift)
    }

    proptest! {
        #[test]
        fn a_time_lies_within_the_bounds_of_its_slot(nanos in nanos()) {
            let slot = slot_of(nanos);
            prop_assert!(slot < SLOTS);
            let (lower, upper) = bounds(slot);
            prop_assert!(lower <= nanos && (nanos < upper || upper == u64::MAX));
        }

        #[test]
        fn a_longer_time_is_never_in_an_earlier_slot(one in nanos(), other in nanos()) {
            prop_assert!(slot_of(one.min(other)) <= slot_of(one.max(other)));
        }
    }

    #[test]
    fn slots_are_contiguous_and_narrow() {
        assert_eq!(bounds(0).0, 0);
        for slot in 1..SLOTS {
            let (lower, upper) = bounds(slot);
            assert_eq!(bounds(slot - 1).1, lower);
            assert_eq!((slot_of(lower - 1), slot_of(lower)), (slot - 1, slot));
            if slot < SLOTS - 1 {
                assert!((upper - lower) * 1000 <= lower * 32, "{slot}");
            }
        }
        assert_eq!(bounds(SLOTS - 1), ((63 << 43), u64::MAX));
    }

    #[test]
    fn the_scale_reaches_from_a_second_to_the_five_days_of_connection_tracking() {
        assert_eq!(slot_of(0), 0);
        assert!(bounds(slot_of(IDLE_GAP_FLOOR)).0 <= IDLE_GAP_FLOOR);
        assert_eq!(
            slot_of(IDLE_GAP_FLOOR * 98 / 100),
            0,
            "one second is in the first slot"
        );
        assert!(slot_of(5 * 86_400 * SECOND) < SLOTS - 1);
        assert_eq!(slot_of(u64::MAX), SLOTS - 1);
    }
}
