//! The `wsmon` binary.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use monitor::{cli::Cli, diagnostics::log_limit};

fn main() -> ExitCode {
    log_limit::install();
    let outcome = Cli::parse().command.run();
    log::logger().flush();
    outcome.unwrap_or_else(|failure| {
        // A full disk or a closed pipe must not change the exit status.
        drop(writeln!(io::stderr(), "wsmon: {failure}"));
        failure.exit_code()
    })
}
