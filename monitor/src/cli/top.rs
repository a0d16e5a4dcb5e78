//! `wsmon top`: a live view of the connections, those with a verdict first.

mod appearance;
mod areas;
mod bar;
mod conditions;
mod live_view;
mod overlay;
mod poll_result;
mod rate_meter;
mod refresh_timer;
#[cfg(test)]
mod samples;
mod single_screen;
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
use crate::{
    diagnostics::stderr_line,
    records::{list_order::ListOrder, search::Search},
};

/// Show connections, alerts, listeners and clients live.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon top                              what needs attention now
  wsmon top --sort idle                  the longest silences first
  wsmon top --search shop/               connections of the pods of a namespace
  wsmon top --once                       print one screen and exit

Keys: arrows or j k to move, Tab or 1-4 for the panes, Enter for details, s to
sort, / to search, p to pause, ? for help, q to quit.

Needs a running `wsmon run`. Prints one screen if stdout is not a terminal or
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

    /// Only connections with this text in peer, listener, protocol, verdict or owner
    #[arg(long, value_name = "TEXT")]
    pub search: Option<Search>,

    /// Time between two refreshes, at most 1h
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,

    /// Print one screen to stdout and exit
    #[arg(long)]
    pub once: bool,

    /// Scroll and select with the mouse
    #[arg(long, conflicts_with = "once")]
    pub mouse: bool,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// A longer interval would not be a live view.
const MAX_INTERVAL: Duration = Duration::from_secs(3_600);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = positive_duration(text)?;
    match interval > MAX_INTERVAL {
        true => Err("expected at most 1h".to_owned()),
        false => Ok(interval),
    }
}

/// Shows the view until it is quit, or prints one screen.
pub fn run(args: &TopArgs) -> CommandResult {
    if args.once {
        return screen::block_on(screen::until_interrupted(single_screen::print(args)))?;
    }
    if let Some(reason) = no_live_view() {
        stderr_line!("printing one screen, because {reason}");
        return screen::block_on(screen::until_interrupted(single_screen::print(args)))?;
    }
    screen::block_on(live_view::show(args))?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_the_daemon_refuses_is_invalid() {
        #[derive(Debug, clap::Parser)]
        struct Alone {
            #[command(flatten)]
            _top: TopArgs,
        }
        let parse = |bytes| {
            let text = "x".repeat(bytes);
            <Alone as clap::Parser>::try_parse_from(["top", "--search", &text])
        };
        assert!(parse(256).is_ok());
        assert_eq!(parse(257).expect_err("too long").exit_code(), 2);
    }

    #[test]
    fn an_interval_has_a_limit() {
        assert_eq!(interval("1h"), Ok(MAX_INTERVAL));
        for text in ["3601s", "9999999999h", "0s"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
