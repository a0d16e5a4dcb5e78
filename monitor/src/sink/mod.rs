//! Where the daemon's findings go.

pub mod alert_log;
pub mod control;
mod families;
pub mod http;
pub mod metrics;
