//! What a replay reports of a connection, besides frames and alerts.

use jiff::Timestamp;

use crate::records::{connection_summary::ConnectionSummary, frames::FrameRecord};
use monitor_core::{Alert, Ktime, Transition};

/// One item of a replay's output, in order.
#[derive(Clone, Debug)]
pub enum ReplayRecord {
    Frame(FrameRecord),
    /// A connection's change of state.
    State(Box<Transition>),
    Alert(Alert),
    /// A connection ended, or the recording did.
    Connection(Box<ConnectionSummary>),
}

/// Nanoseconds since the epoch, the clock of a replay.
pub(super) fn wall_clock(at: Ktime) -> Timestamp {
    Timestamp::from_nanosecond(at.0.into()).unwrap_or(Timestamp::MAX)
}
