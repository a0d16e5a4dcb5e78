//! How often the daemon may look around for something that is nowhere near.

use std::time::{Duration, Instant};

/// The longest that one look around holds up the daemon, which reads no ring meanwhile: the vitals'
/// ring, about 21,000 records, then stands 400,000 connections a second.
pub(super) const LONGEST: Duration = Duration::from_millis(50);

/// After a look around, rest for so many times as long: one part in twenty of the time is spent on
/// them at most, however many alerts come.
const REST: u32 = 19;

/// Keeps a costly look around to a share of the time.
#[derive(Debug, Default)]
pub(super) struct DutyCycle {
    resume_at: Option<Instant>,
}

impl DutyCycle {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.resume_at.is_none_or(|resume_at| now >= resume_at)
    }

    /// A look around began and ended.
    pub(super) fn took(&mut self, started: Instant, ended: Instant) {
        self.resume_at = Some(ended + (ended - started) * REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_around_takes_one_part_in_twenty_of_the_time() {
        let mut duty_cycle = DutyCycle::default();
        let start = Instant::now();
        assert!(duty_cycle.is_due(start));

        let took = Duration::from_millis(10);
        duty_cycle.took(start, start + took);
        assert!(!duty_cycle.is_due(start + took * 20 - Duration::from_nanos(1)));
        assert!(duty_cycle.is_due(start + took * 20));
    }
}
