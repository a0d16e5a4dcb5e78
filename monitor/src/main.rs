//! The `wsmon` binary.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use monitor::{
    cli::{Cli, environment, topics},
    diagnostics::log_limit,
};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let error = environment::blamed(topics::suggested(error));
        error.exit()
    });
    log_limit::install(cli.command.log_level());
    let outcome = cli.command.run();
    log::logger().flush();
    outcome.unwrap_or_else(|failure| {
        // A full disk or a closed pipe must not change the exit status.
        drop(writeln!(io::stderr(), "wsmon: {failure}"));
        failure.exit_code()
    })
}
