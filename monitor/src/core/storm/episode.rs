//! One storm, from the mass close or the first wave until it is over.

use std::time::Duration;

use super::{
    delays::Delays,
    finding::{Cause, Pattern, Phase},
    pattern::{self, Seen},
    totals::Totals,
};
use crate::core::time::Ktime;

#[derive(Debug)]
pub(super) struct Episode {
    /// Counted from 1.
    pub(super) number: u32,
    /// When the closes or the arrivals began.
    pub(super) since: Ktime,
    pub(super) phase: Phase,
    /// What had been before it.
    pub(super) before: Totals,
    pub(super) closes: u64,
    /// Connections were lost at once, the last of them then.
    pub(super) closed: Option<Ktime>,
    pub(super) peak: u64,
    pub(super) cause: Option<Cause>,
    pub(super) seen: Seen,
    pub(super) delays: Delays,
    /// When there were many attempts last.
    pub(super) busy: Ktime,
    /// The longest quiet time after which there were many again.
    pub(super) longest_quiet: Duration,
    /// What was told last, and how often something was.
    pub(super) told: Option<(Phase, Pattern, Option<&'static str>)>,
    pub(super) tellings: u32,
    /// When it is to be looked at.
    pub(super) due: Ktime,
}

impl Episode {
    pub(super) fn new(number: u32, since: Ktime, now: Ktime, phase: Phase, before: Totals) -> Self {
        Self {
            number,
            since,
            phase,
            before,
            closes: 0,
            closed: None,
            peak: 0,
            cause: None,
            seen: Seen::NOTHING,
            delays: Delays::new(),
            busy: now,
            longest_quiet: Duration::ZERO,
            told: None,
            tellings: 0,
            due: now + EVERY,
        }
    }

    /// Notes that there are many attempts at `now`.
    pub(super) fn keep_busy(&mut self, now: Ktime) {
        let quiet = now.since(self.busy);
        if quiet > EVERY * 2 {
            self.longest_quiet = self.longest_quiet.max(quiet);
        }
        self.busy = self.busy.max(now);
    }

    /// Looks at the rhythm of the attempts.
    pub(super) fn judge_pattern(&mut self) {
        let first = self.closed.and_then(|_| self.delays.first.core(0.4));
        let seen = pattern::of_clients(&self.delays, first.map(|first| first.seconds));
        if seen != Seen::NOTHING {
            self.seen = seen;
        }
    }

    /// Whether nothing more is to be expected: of clients that failed, a next attempt is.
    pub(super) fn is_over(&self, now: Ktime, totals: &Totals) -> bool {
        let of_it = totals.since(&self.before);
        let wanted = match self.closes {
            0 => of_it.attempts,
            closes => closes,
        };
        let recovered = of_it.accepted * 10 >= wanted * 9;
        let quiet = now.since(self.busy.max(self.closed.unwrap_or_default()));
        let patience = match self.phase {
            _ if recovered => CALM,
            Phase::MassClose => RETURN,
            _ if self.longest_quiet.is_zero() => LONGEST_DELAY,
            _ => (self.longest_quiet * 5 / 2).clamp(CALM, RETURN),
        };
        quiet >= patience
    }
}

/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// So long without many attempts: over.
const CALM: Duration = Duration::from_secs(10);
/// The usual longest delay of clients, and a third more.
const LONGEST_DELAY: Duration = Duration::from_secs(40);
/// After a mass close, clients that are not back after this do not come at once.
const RETURN: Duration = Duration::from_secs(75);
