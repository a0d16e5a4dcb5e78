//! What the daemon writes of itself: errors with their causes, and a log that does not flood.

pub(crate) mod error_chain;
pub mod log_limit;
