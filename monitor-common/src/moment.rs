//! Points in time in 32 bits.

/// Nanoseconds, 8.4 ms: the unit of [`Moment`]. Most moments come from the kernel's coarse clock, which has
/// ticks of up to 10 ms.
pub const TICK: u64 = 2 << HALF_TICK_SHIFT;

pub(crate) const HALF_TICK_SHIFT: u32 = 22;

/// Half of the ticks, 73 minutes: how much later than the reference a moment may be.
pub(crate) const AHEAD: u64 = 1 << 20;

/// A point in time, rounded up to a tick so that nothing looks older than it is.
///
/// 0 is [`NEVER`](Self::NEVER). Otherwise bit 0 is set, and the rest are the lower bits of the number of
/// the tick that ends at the moment. A reference near the moment gives the upper bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Moment(u32);

impl Moment {
    pub const NEVER: Self = Self(0);

    /// From `nanos` of CLOCK_MONOTONIC; 0 = never. Has no branch, because one publication converts about
    /// twenty moments and the verifier would follow every branch.
    #[inline(always)]
    pub const fn of(nanos: u64) -> Self {
        let before = nanos.wrapping_sub(1);
        let is_never = before >> 63;
        Self(((before >> HALF_TICK_SHIFT | 1) & is_never.wrapping_sub(1)) as u32)
    }

    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Nanoseconds of CLOCK_MONOTONIC; 0 = never. The moment lies at most 208 days before `near` and 73
    /// minutes after it.
    #[inline(always)]
    pub const fn nanos(self, near: u64) -> u64 {
        if self.0 & 1 == 0 {
            return 0;
        }
        let newest = (near >> HALF_TICK_SHIFT | 1) + AHEAD;
        let age = (newest as u32).wrapping_sub(self.0);
        ((newest.saturating_sub(age as u64) | 1) + 1) << HALF_TICK_SHIFT
    }
}

/// Rounds up to a tick, as [`Moment::of`] does.
pub const fn rounded(nanos: u64) -> u64 {
    nanos.wrapping_add(TICK - 1) & !(TICK - 1)
}

/// Whole ticks between two points in time, rounded down; saturates at 417 days.
#[inline(always)]
pub const fn ticks_between(from: u64, to: u64) -> u32 {
    let ticks = (to / TICK).saturating_sub(rounded(from) / TICK);
    if ticks > u32::MAX as u64 {
        u32::MAX
    } else {
        ticks as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    /// A year and a half: the lower bits of a moment have wrapped before.
    const LATE: u64 = 1 << 55;

    #[test]
    fn a_moment_is_rounded_up_and_restored_from_a_reference_near_it() {
        for at in [1, TICK, TICK + 1, LATE - 1, LATE, LATE + 1] {
            for near in [at.saturating_sub(HOUR), at, at + 4_000 * HOUR] {
                assert_eq!(Moment::of(at).nanos(near), rounded(at), "{at} near {near}");
            }
        }
        assert_eq!(Moment::of(0), Moment::NEVER);
        assert_eq!(Moment::NEVER.nanos(LATE), 0);
        assert!(Moment::of(1).is_some() && !Moment::NEVER.is_some());
    }

    #[test]
    fn ticks_between_two_moments_are_rounded_down() {
        for (from, to, ticks) in [
            (0, TICK, 1),
            (1, TICK, 0),
            (1, 2 * TICK - 1, 0),
            (1, 2 * TICK, 1),
            (LATE, LATE + 7 * TICK + 5, 7),
            (TICK, 0, 0),
            (0, u64::MAX, u32::MAX),
        ] {
            assert_eq!(ticks_between(from, to), ticks, "{from} {to}");
        }
    }
}
