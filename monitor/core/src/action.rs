//! The outputs of the core.

use super::{alert::Alert, transition::Transition};

/// An output of the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// [`super::Grouping`] decides which are reported individually.
    Alert(Alert),
    /// A state change, for clients that follow connections.
    Transition(Transition),
    /// Compare the table with the kernel's sockets, because records were lost.
    Reconcile,
}
