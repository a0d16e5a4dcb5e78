//! Numbers on a command line. An error says what is expected, with an example.

use std::str::FromStr;

/// The maximum number of entries of a list; 0 for all.
pub(super) fn limit(text: &str) -> Result<usize, String> {
    number(text, "a number like 40, or 0 for all")
}

/// How many frames to show.
pub(super) fn count(text: &str) -> Result<u64, String> {
    number(text, "a number like 100")
}

/// How many things may happen in a minute.
#[cfg(feature = "daemon")]
pub(super) fn per_minute(text: &str) -> Result<u32, String> {
    number(text, "a number like 60")
}

/// How often a flag is repeated, in a variable.
#[cfg(feature = "daemon")]
pub(super) fn repeated(text: &str) -> Result<u8, String> {
    number(text, "a number like 1")
}

/// A single port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let expected = "a port like 8080, from 1 to 65535";
    match number(text, expected)? {
        0 => Err(format!("expected {expected}")),
        port => Ok(port),
    }
}

fn number<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected {expected}"))
}
