//! The public records of connections, clients and frames, each defined once.

pub mod alert_line;
pub mod clients;
pub mod connections;
pub mod frames;
pub(crate) mod json;
mod now;
pub(crate) mod numbers;

pub use now::Now;

/// The header of a list of connections with the number of watched connections when the list was begun.
pub const TOTAL_HEADER: &str = "wsmon-connections";
