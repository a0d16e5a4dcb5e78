//! The outputs of the core.

use super::{alert::Alert, transition::Transition};

/// An output of the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// For outputs that hold state as it is, for line-based ones after [`super::Grouping`].
    Alert(Alert),
    /// A state change, for clients that follow connections.
    Transition(Transition),
    /// Compare the table with the published snapshots, because records were lost.
    Reconcile,
}
