//! wsmon as a library: the daemon's rooms, for the binary and for the tests.

pub mod cli;
pub mod core;
pub mod kernel;
