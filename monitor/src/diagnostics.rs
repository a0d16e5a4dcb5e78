//! What the daemon reports about itself: errors with their causes, and a rate-limited log.

pub mod color;
pub(crate) mod control_character;
pub(crate) mod error_chain;
pub mod log_limit;

/// Prints a line to stderr. Unlike `eprintln!`, it does not panic where that fails: a full disk or a closed
/// pipe must not stop the daemon.
macro_rules! stderr_line {
    ($($format:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), $($format)*));
    }};
}
pub(crate) use stderr_line;

/// Prints a line for people to stderr, unless they want errors only.
macro_rules! notice_line {
    ($($format:tt)*) => {{
        if !crate::diagnostics::log_limit::is_quiet() {
            crate::diagnostics::stderr_line!($($format)*);
        }
    }};
}
pub(crate) use notice_line;
