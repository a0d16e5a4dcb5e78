//! `wsmon top`: a live view of the connections, those with a verdict first.

mod appearance;
mod areas;
mod bar;
mod compact;
mod live;
mod once;
mod overlay;
mod polled;
mod rate_meter;
mod refresh_timer;
#[cfg(test)]
mod samples;
mod state;
mod terminal_guard;
mod view;

use std::{
    env,
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::{
    client::DEFAULT_CONTROL, color::ColorArgs, exit::CommandResult, screen,
    watch::positive_duration,
};
use crate::{diagnostics::stderr_line, records::list_order::ListOrder};

/// Show connections live, trouble first, with alerts and listeners.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon top                              what needs attention now
  wsmon top --sort idle                  the longest silences first
  wsmon top --filter shop/               connections of the pods of a namespace
  wsmon top --once                       print one screen and exit

Keys: arrows or j k to move, Tab or 1-4 for the panes, Enter for details, s to
sort, / to filter, p to pause, ? for help, q to quit.

Needs a running `wsmon run`. Prints one screen if stdout is no terminal or
TERM is dumb. NO_COLOR turns colours off.

Exit status: 0, 1 if there is no daemon at the start, 2 for invalid input,
3 if this user may not connect.")]
pub struct TopArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// Order of the connections
    #[arg(long, value_name = "ORDER", default_value = ListOrder::Urgency.as_str())]
    pub sort: ListOrder,

    /// Only connections with this text in peer, listener, owner or verdict
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub filter: String,

    /// Time between two refreshes
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive_duration)]
    pub interval: Duration,

    /// Print one screen to stdout and exit
    #[arg(long)]
    pub once: bool,

    /// Scroll and select with the mouse, which the terminal then cannot use to select text
    #[arg(long, conflicts_with = "once")]
    pub mouse: bool,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Shows the view until it is quit, or prints one screen.
pub fn run(args: &TopArgs) -> CommandResult {
    if args.once {
        return screen::block_on(screen::until_interrupted(once::print(args)))?;
    }
    if let Some(reason) = no_live_view() {
        stderr_line!("printing one screen, because {reason}");
        return screen::block_on(screen::until_interrupted(once::print(args)))?;
    }
    screen::block_on(live::show(args))?
}

/// Why the view cannot be live here.
fn no_live_view() -> Option<&'static str> {
    if !io::stdout().is_terminal() {
        return Some("stdout is not a terminal");
    }
    if !io::stdin().is_terminal() {
        return Some("stdin is not a terminal");
    }
    match env::var("TERM") {
        Ok(term) if term != "dumb" && !term.is_empty() => None,
        Ok(_) => Some("TERM is dumb"),
        Err(_) => Some("TERM is not set"),
    }
}
