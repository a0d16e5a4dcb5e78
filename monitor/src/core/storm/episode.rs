//! One storm, from the mass close or the first wave until it is over.

use std::time::Duration;

use super::{
    delays::Delays,
    finding::{Cause, Phase},
    pattern::{self, Evidence, Seen},
    totals::Totals,
    trace::Trace,
};
use crate::core::time::Ktime;

/// What is worth another line when it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) phase: Phase,
    pub(super) seen: Seen,
    pub(super) cause: Option<Cause>,
}

impl Told {
    fn agrees(&self, other: &Self) -> bool {
        let cause = |told: &Self| told.cause.map(Cause::as_str);
        self.phase == other.phase
            && self.seen.agrees(&other.seen, TOLD)
            && cause(self) == cause(other)
    }
}

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
    /// When the connections were lost with which it began.
    pub(super) lost: Option<Ktime>,
    pub(super) peak: u64,
    pub(super) cause: Option<Cause>,
    pub(super) seen: Seen,
    /// What was seen last.
    pub(super) proposed: Seen,
    pub(super) delays: Delays,
    /// When there were many attempts last.
    pub(super) busy: Ktime,
    /// The longest quiet time after which there were many again.
    pub(super) longest_quiet: Duration,
    /// What was told last, and how often something was.
    pub(super) told: Option<Told>,
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
            lost: None,
            peak: 0,
            cause: None,
            seen: Seen::NOTHING,
            proposed: Seen::NOTHING,
            delays: Delays::new(),
            busy: now,
            longest_quiet: Duration::ZERO,
            told: None,
            tellings: 0,
            due: now + EVERY,
        }
    }

    pub(super) fn to_tell(&self) -> Told {
        Told {
            phase: self.phase,
            seen: self.seen,
            cause: self.cause,
        }
    }

    /// Whether there is something to tell that was not told. The end always is.
    pub(super) fn has_news(&self) -> bool {
        let is_told = self.told.is_some_and(|told| told.agrees(&self.to_tell()));
        !is_told && (self.tellings < TELLINGS || self.phase == Phase::Over)
    }

    /// Notes that there are many attempts at `now`.
    pub(super) fn keep_busy(&mut self, now: Ktime) {
        let quiet = now.since(self.busy);
        if quiet > EVERY * 2 {
            self.longest_quiet = self.longest_quiet.max(quiet);
        }
        self.busy = self.busy.max(now);
    }

    /// Looks at the rhythm of the attempts. What was seen twice stays until something else is.
    pub(super) fn judge_pattern(&mut self, trace: &Trace) {
        let from = self.lost.unwrap_or(self.since) - LEAD;
        let (first_bin, arrivals, failures) = trace.since(from);
        let lost = self.lost.filter(|lost| *lost >= first_bin);
        let seen = pattern::judge(&Evidence {
            delays: &self.delays,
            arrivals: &arrivals,
            failures: &failures,
            lost: lost.map(|lost| lost.since(first_bin).as_secs_f64()),
        });
        if seen != Seen::NOTHING {
            // Once is chance.
            if seen.agrees(&self.proposed, CHANCE) {
                self.seen = seen;
            }
            self.proposed = seen;
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
        let closed = self.closed.unwrap_or_default();
        if self.phase == Phase::MassClose && now.since(closed) >= RETURN {
            return true;
        }
        let quiet = now.since(self.busy.max(closed));
        let patience = match self.phase {
            _ if recovered => CALM,
            Phase::MassClose => RETURN,
            _ if self.longest_quiet.is_zero() => LONGEST_DELAY,
            _ => (self.longest_quiet * 5 / 2).clamp(CALM, RETURN),
        };
        quiet >= patience
    }
}

/// Attempts just before the beginning belong to it.
const LEAD: Duration = Duration::from_millis(250);
/// Periods that differ by less are one: of two looks, and of two lines.
const CHANCE: f64 = 0.1;
const TOLD: f64 = 0.03;
/// What is told of one storm, apart from its end.
const TELLINGS: u32 = 12;
/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// So long without many attempts: over.
const CALM: Duration = Duration::from_secs(10);
/// The usual longest delay of clients, and a third more.
const LONGEST_DELAY: Duration = Duration::from_secs(40);
/// After a mass close, clients that are not back after this do not come at once.
const RETURN: Duration = Duration::from_secs(75);
