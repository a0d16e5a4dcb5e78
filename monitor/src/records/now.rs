//! The present on both clocks.

use jiff::Timestamp;

use monitor_core::Ktime;

/// One moment on the kernel's clock and on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub at: Ktime,
    pub ts: Timestamp,
}

impl Now {
    /// Converts a moment that is not after this one, to the millisecond.
    pub fn wall_clock(&self, at: Ktime) -> Timestamp {
        at.on_wall_clock(self.at, self.ts)
    }
}
