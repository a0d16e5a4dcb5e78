//! The clock of the kernel's records, and the one for the cost of work.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use monitor_core::Ktime;

/// `CLOCK_MONOTONIC` now.
pub fn now() -> Ktime {
    let now = clock_gettime(ClockId::Monotonic);
    // CLOCK_MONOTONIC counts up from zero at boot, so neither field is ever negative.
    Ktime(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}

/// The CPU time used by this thread.
pub fn of_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
