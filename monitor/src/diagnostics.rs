//! What the daemon reports about itself: errors with their causes, and a rate-limited log.

pub(crate) mod error_chain;
pub mod log_limit;
