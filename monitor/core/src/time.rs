//! Kernel time.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

/// A moment on the kernel's `CLOCK_MONOTONIC`, in nanoseconds since boot.
///
/// The core never reads a clock: every `Ktime` comes from a kernel record or from the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ktime(pub u64);

impl Ktime {
    pub const ZERO: Self = Self(0);
    /// The sum of a moment and an unlimited duration: no deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time since `earlier`, or zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment on the wall clock, which showed `ts` at `now`, to the millisecond: the
    /// underlying clocks are not more precise. A moment later than `now` is treated as `now`.
    pub fn on_wall_clock(self, now: Self, ts: Timestamp) -> Timestamp {
        let ago = SignedDuration::try_from(now.since(self)).unwrap_or_default();
        let exact = ts.saturating_sub(ago).unwrap_or_default();
        let whole = TimestampRound::new()
            .smallest(Unit::Millisecond)
            .mode(RoundMode::Trunc);
        exact.round(whole).unwrap_or(exact)
    }
}

impl Add<Duration> for Ktime {
    type Output = Self;

    /// Saturates: an unlimited duration stays in the future.
    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Ktime {
    type Output = Self;

    /// Saturates at boot.
    fn sub(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl fmt::Display for Ktime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}
