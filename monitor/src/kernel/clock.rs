//! The clock that the kernel's records use.

use rustix::time::{ClockId, clock_gettime};

use crate::core::Ktime;

/// `CLOCK_MONOTONIC` now.
pub fn now() -> Ktime {
    let now = clock_gettime(ClockId::Monotonic);
    // CLOCK_MONOTONIC counts up from zero at boot: neither field is ever negative.
    Ktime(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}
