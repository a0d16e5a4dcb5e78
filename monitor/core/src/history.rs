//! The history of a listener's connections.

use super::{idle_gaps::IdleGaps, lifetimes::Lifetimes, past_verdicts::PastVerdicts, tally::Tally};

/// Totals of the verdicts on a listener's connections and of their ends.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) tally: Tally,
    pub(super) idle_gaps: IdleGaps,
    pub(super) lifetimes: Lifetimes,
    /// Of the connections in the table.
    pub(super) past_verdicts: PastVerdicts,
}
