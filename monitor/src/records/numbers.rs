//! Numbers as records show them.

use std::time::Duration;

/// Seconds with millisecond precision, the precision of the clocks behind them.
pub(crate) fn seconds(duration: Duration) -> f64 {
    thousandths(duration.as_secs_f64())
}

/// Rounded to three decimals, enough for any reader.
pub(crate) fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
