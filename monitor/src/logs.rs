//! Logs of JSON lines, each written by a thread of its own.

mod drain_deadline;
pub mod line_log;

pub(crate) use drain_deadline::{DRAIN_LIMIT, DrainDeadline};
