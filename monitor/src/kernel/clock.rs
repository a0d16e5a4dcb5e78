//! The clock that the kernel's records use, and that of what work costs.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use monitor_core::Ktime;

/// `CLOCK_MONOTONIC` now.
pub fn now() -> Ktime {
    let now = clock_gettime(ClockId::Monotonic);
    // CLOCK_MONOTONIC counts up from zero at boot: neither field is ever negative.
    Ktime(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}

/// The processor time that this thread has had.
pub fn of_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
