//! One storm, from the mass close or the first wave until it is over.

use std::time::Duration;

use super::{
    delays::Delays,
    finding::{Cause, StormPhase},
    pattern::{self, PatternEvidence, SeenPattern},
    totals::Totals,
    trace::Trace,
};
use crate::time::Ktime;

/// The state that is reported again when it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StormReport {
    pub(super) phase: StormPhase,
    pub(super) seen: SeenPattern,
    pub(super) cause: Option<Cause>,
}

impl StormReport {
    fn agrees(&self, other: &Self) -> bool {
        let cause = |reported: &Self| reported.cause.map(Cause::as_str);
        self.phase == other.phase
            && self.seen.agrees(&other.seen, REPORTED)
            && cause(self) == cause(other)
    }
}

#[derive(Debug)]
pub(super) struct Episode {
    /// Counted from 1.
    pub(super) number: u32,
    /// When the closes or the arrivals began.
    pub(super) since: Ktime,
    pub(super) phase: StormPhase,
    /// The totals before it.
    pub(super) before: Totals,
    pub(super) closes: u64,
    /// When the last connection was lost, if connections were lost at once.
    pub(super) closed: Option<Ktime>,
    /// When the connections were lost whose loss started it.
    pub(super) lost: Option<Ktime>,
    pub(super) peak: u64,
    pub(super) cause: Option<Cause>,
    pub(super) seen: SeenPattern,
    /// The latest result, which a second one must confirm.
    pub(super) proposed: SeenPattern,
    pub(super) delays: Delays,
    /// When there were last many attempts.
    pub(super) busy: Ktime,
    /// The longest quiet time that many attempts ended.
    pub(super) longest_quiet: Duration,
    /// The last report, and the number of reports.
    pub(super) reported: Option<StormReport>,
    pub(super) reports: u32,
    /// When it is evaluated next.
    pub(super) due: Ktime,
}

impl Episode {
    pub(super) fn new(
        number: u32,
        since: Ktime,
        now: Ktime,
        phase: StormPhase,
        before: Totals,
    ) -> Self {
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
            seen: SeenPattern::NOTHING,
            proposed: SeenPattern::NOTHING,
            delays: Delays::new(),
            busy: now,
            longest_quiet: Duration::ZERO,
            reported: None,
            reports: 0,
            due: now + EVERY,
        }
    }

    pub(super) fn report_content(&self) -> StormReport {
        StormReport {
            phase: self.phase,
            seen: self.seen,
            cause: self.cause,
        }
    }

    /// True if there is something new to report. The end always is.
    pub(super) fn has_news(&self) -> bool {
        let is_reported = self
            .reported
            .is_some_and(|reported| reported.agrees(&self.report_content()));
        !is_reported && (self.reports < MAX_REPORTS || self.phase == StormPhase::Over)
    }

    /// Notes that there are many attempts at `now`.
    pub(super) fn keep_busy(&mut self, now: Ktime) {
        let quiet = now.since(self.busy);
        if quiet > EVERY * 2 {
            self.longest_quiet = self.longest_quiet.max(quiet);
        }
        self.busy = self.busy.max(now);
    }

    /// Evaluates the rhythm of the attempts. A pattern that was seen twice stays until another one
    /// is.
    pub(super) fn judge_pattern(&mut self, trace: &Trace) {
        let from = self.lost.unwrap_or(self.since) - LEAD;
        let (first_bin, arrivals, failures) = trace.since(from);
        let lost = self.lost.filter(|lost| *lost >= first_bin);
        let seen = pattern::judge(&PatternEvidence {
            delays: &self.delays,
            arrivals: &arrivals,
            failures: &failures,
            lost: lost.map(|lost| lost.since(first_bin).as_secs_f64()),
        });
        if seen != SeenPattern::NOTHING {
            // A single result may be chance.
            if seen.agrees(&self.proposed, CHANCE) {
                self.seen = seen;
            }
            self.proposed = seen;
        }
    }

    /// True if no more attempts are expected. Clients that failed are expected to try again.
    pub(super) fn is_over(&self, now: Ktime, totals: &Totals) -> bool {
        let of_it = totals.since(&self.before);
        let wanted = match self.closes {
            0 => of_it.attempts,
            closes => closes,
        };
        let recovered = of_it.accepted * 10 >= wanted * 9;
        let closed = self.closed.unwrap_or_default();
        if self.phase == StormPhase::MassClose && now.since(closed) >= RETURN {
            return true;
        }
        let quiet = now.since(self.busy.max(closed));
        let quiet_needed = match self.phase {
            _ if recovered => CALM,
            StormPhase::MassClose => RETURN,
            _ if self.longest_quiet.is_zero() => LONGEST_DELAY,
            _ => (self.longest_quiet * 5 / 2).clamp(CALM, RETURN),
        };
        quiet >= quiet_needed
    }
}

/// Attempts just before the start belong to it.
const LEAD: Duration = Duration::from_millis(250);
/// Periods that differ by less are equal: those of two checks, and those of two reports.
const CHANCE: f64 = 0.1;
const REPORTED: f64 = 0.03;
/// Maximum number of reports about one storm, apart from its end.
const MAX_REPORTS: u32 = 12;
/// The interval of evaluations.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// After this time without many attempts, it is over.
const CALM: Duration = Duration::from_secs(10);
/// The usual longest delay of clients, and a third more.
const LONGEST_DELAY: Duration = Duration::from_secs(40);
/// Clients that are not back this long after a mass close do not come back at once.
const RETURN: Duration = Duration::from_secs(75);
