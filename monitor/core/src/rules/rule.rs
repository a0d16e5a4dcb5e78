//! What a rule consists of, and what several of them use.

use std::time::Duration;

use crate::{
    observation::Observation,
    time::Ktime,
    verdict::{Finding, Reviewed, Verdict, VerdictKind},
};

/// One kind of verdict.
pub(super) struct Rule {
    pub(super) kind: VerdictKind,
    /// When it begins.
    pub(super) find: fn(&Observation<'_>) -> Finding,
    /// What becomes of it while it stands. The moment is the peer's last packet as of the check before.
    pub(super) review: fn(&Observation<'_>, &Verdict, Option<Ktime>) -> Reviewed,
    /// When it ends.
    pub(super) has_recovered: fn(&Observation<'_>, &Verdict) -> bool,
    /// The silence that ended in it, if no recorded gap did.
    pub(super) silence: fn(&Observation<'_>, &Verdict) -> Duration,
}

/// Of the findings of two hops, the verdict that became true first, or else the earlier deadline.
pub(super) fn sooner(one: Finding, other: Finding) -> Finding {
    match (one, other) {
        (Finding::Holds(a), Finding::Holds(b)) => {
            Finding::Holds(if b.since < a.since { b } else { a })
        }
        (Finding::Holds(verdict), Finding::NotBefore(_))
        | (Finding::NotBefore(_), Finding::Holds(verdict)) => Finding::Holds(verdict),
        (Finding::NotBefore(a), Finding::NotBefore(b)) => Finding::NotBefore(a.min(b)),
    }
}

/// For how long the clock of the verdict's hop has run, which may count payload only, or one direction.
pub(super) fn idle(observation: &Observation<'_>, verdict: &Verdict) -> Duration {
    match observation.hop(verdict) {
        Some(hop) => observation.now.since(observation.quiet_since(hop)),
        None => observation.idle(),
    }
}

/// How long the verdict has held.
pub(super) fn age(observation: &Observation<'_>, verdict: &Verdict) -> Duration {
    observation.now.since(verdict.since)
}

pub(super) fn silence_until(end: Ktime, last: Option<Ktime>) -> Duration {
    last.map_or(Duration::ZERO, |last| end.since(last))
}

/// A limit must be exceeded, not only reached.
pub(super) const INSTANT: Duration = Duration::from_nanos(1);
