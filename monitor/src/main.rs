//! The `wsmon` binary.

use std::process::ExitCode;

use clap::Parser;
use monitor::{cli::Cli, diagnostics::log_limit};

fn main() -> ExitCode {
    log_limit::install();
    let outcome = Cli::parse().command.run();
    log::logger().flush();
    outcome.unwrap_or_else(|failure| {
        monitor::stderr_line!("wsmon: {failure}");
        failure.exit_code()
    })
}
