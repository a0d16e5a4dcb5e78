//! Where the daemon's findings go.

pub mod alert_log;
mod families;
pub mod http;
pub mod metrics;
