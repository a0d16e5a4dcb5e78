//! `cargo xtask demo`: three real connections die in three ways while a fourth lives on.
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

use crate::{
    build,
    interrupt::{EXIT_INTERRUPTED, Interrupt},
    root::{self, Prerequisite},
    setup,
};
use screen::Screen;
use stage::Stage;

#[derive(Debug, clap::Args)]
#[command(
    long_about = "Builds wsmon, starts a real WebSocket server and four clients behind a load \
balancer that forgets connections after 6 s of silence, and lets three of them die: one idle, one \
black-holed, one deaf. Shows each alert beside what the application still believes, and exits 0 \
only if wsmon found all three in time and left the healthy one alone. Takes about 15 s after the \
build. Needs root for network namespaces and eBPF, and leaves nothing behind.",
    after_help = "Example:\n  sudo -E env \"PATH=$PATH\" cargo xtask demo\n\n\
Exit codes: 0 all as expected, 1 not so, 3 not root or a tool is missing, 130 interrupted"
)]
pub(crate) struct Args {
    /// Print the summary as JSON on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,
    /// Watch with this wsmon instead of building one
    #[arg(long, value_name = "FILE")]
    wsmon: Option<PathBuf>,
}

/// Runs the demo to its end and cleans up, whatever happened.
///
/// # Errors
/// If the demo could not run. A demo that ran and failed is an exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !root::is_root() {
        return Err(Prerequisite {
            missing: "the demo makes network namespaces and loads kernel programs: it needs root"
                .into(),
            remedy: vec![root::DEMO_AS_ROOT.into()],
        }
        .into());
    }
    setup::lab_quietly()?;
    let mut screen = Screen::new(args.json);
    let wsmon = match &args.wsmon {
        Some(wsmon) => wsmon.clone(),
        None => {
            screen.note("building wsmon (release) …");
            build::wsmon()?
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
