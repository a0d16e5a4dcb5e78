//! Program behind `cargo xtask demo`: three real connections die in three ways while a fourth lives on.
//!
//! A WebSocket server and its clients talk through a load balancer ([`lab`]); wsmon watches from
//! the host. Every fact and every alert is shown when it happens, together with the state of the
//! application's own socket. The end is checked: a failed demo exits with an error.

mod report;
mod screen;
mod stage;
mod story;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use lab::{EXIT_INTERRUPTED, Interrupt};

use screen::Screen;
use stage::Stage;

#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask demo",
    about = "Show three WebSocket connections die, and wsmon catch them",
    long_about = "Builds wsmon, starts a real WebSocket server and four clients behind a load \
balancer that forgets connections after 6 s of silence, and lets three of them die: one idle, one \
black-holed, one deaf. Shows each alert with the state that the application sees, and exits 0 only if \
wsmon found all three in time and reported nothing about the healthy one. Takes about 15 s after the \
build. Needs root for network namespaces and eBPF, and leaves nothing behind.",
    after_help = "Example:\n  sudo -E env \"PATH=$PATH\" cargo xtask demo\n\n\
Exit codes: 0 all as expected, 1 otherwise, 3 not root or a tool is missing, 130 interrupted"
)]
struct Args {
    /// Print the summary as JSON on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,
    /// Run this wsmon instead of building one
    #[arg(long, value_name = "FILE")]
    wsmon: Option<PathBuf>,
}

/// Runs the demo to its end and cleans up, whatever happened. A demo that ran and failed is an exit
/// code, not an error.
fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut screen = Screen::new(args.json);
    let wsmon = match &args.wsmon {
        Some(wsmon) => wsmon.clone(),
        None => {
            screen.note("building wsmon (release) …");
            lab::build_wsmon()?
        }
    };
    let interrupt = Interrupt::watch()?;
    // Everything the stage holds is gone when this returns, on every path.
    let played =
        Stage::set(&wsmon, &mut screen).and_then(|stage| stage.play(&mut screen, &interrupt));
    if interrupt.came() {
        screen.note("interrupted");
    }
    screen.note("cleaned up");
    if interrupt.came() {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let summary = played?;
    if args.json {
        println!("{:#}", summary.json());
    } else {
        screen.summary(&summary);
    }
    Ok(ExitCode::from(u8::from(!summary.failures.is_empty())))
}
