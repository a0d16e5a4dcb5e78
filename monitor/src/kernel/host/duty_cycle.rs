//! Limits how often the daemon may do a costly scan.

use std::time::{Duration, Instant};

/// The longest that one scan may block the daemon, which reads no ring meanwhile. The vitals ring of
/// about 21,000 records then covers 400,000 connections a second.
pub(in crate::kernel) const LONGEST: Duration = Duration::from_millis(50);

/// Rest after a scan, in multiples of its duration: at most one part in twenty of the time is spent
/// scanning, however many alerts come.
const REST: u32 = 19;

/// Limits a costly scan to a share of the time.
#[derive(Debug, Default)]
pub(in crate::kernel) struct DutyCycle {
    resume_at: Option<Instant>,
}

impl DutyCycle {
    pub(in crate::kernel) fn is_due(&self, now: Instant) -> bool {
        self.resume_at.is_none_or(|resume_at| now >= resume_at)
    }

    /// Records the start and the end of a scan.
    pub(in crate::kernel) fn took(&mut self, started: Instant, ended: Instant) {
        self.resume_at = Some(ended + (ended - started) * REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_takes_one_part_in_twenty_of_the_time() {
        let mut duty_cycle = DutyCycle::default();
        let start = Instant::now();
        assert!(duty_cycle.is_due(start));

        let took = Duration::from_millis(10);
        duty_cycle.took(start, start + took);
        assert!(!duty_cycle.is_due(start + took * 20 - Duration::from_nanos(1)));
        assert!(duty_cycle.is_due(start + took * 20));
    }
}
