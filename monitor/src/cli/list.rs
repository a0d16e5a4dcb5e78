//! `wsmon list`: lists the watched connections, groups of them, or their clients.

pub(super) mod clients;
mod connections;
mod groups;
mod redraw;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    client::{self, DEFAULT_CONTROL},
    color::ColorArgs,
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    number,
    screen::{self, Counted, Grouped, Shown},
    table::{Cell, Column, Table, terminal_height},
    totals,
    watch::positive_duration,
};
use crate::{
    diagnostics::stderr_line,
    records::{
        connections::State, frames::Peers, groups::GroupBy, list_order::ListOrder, search::Search,
    },
};
use monitor_core::VerdictKind;
use redraw::Redraw;

/// List watched connections, those with a verdict first, or groups, or clients.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon list
  wsmon list --zombies --watch                 the dead ones, every 2 s
  wsmon list --kind backlogged                 clients that do not read
  wsmon list --search shop/chat                of one pod, peer or process
  wsmon list --listener 8080 --state closing
  wsmon list -n 0                              all of them
  wsmon list --sort idle -n 10                 the ten longest silences
  wsmon list --sort queue -n 10                the ten slowest readers
  wsmon list --sort rx-rate -n 10              the ten that receive the most now
  wsmon list --ended --peer 10.0.0.0/8         how clients there left
  wsmon list --json | jq -r 'select(.verdict) | .peer'

  wsmon list --by pod                          how many connections each pod has
  wsmon list --by peer -n 10                   the peers with most connections
  wsmon list --by client -n 10                 clients by their attempts

Needs a running `wsmon run`. OWNER is the pod, or else the container, the
systemd unit or the process. The last quarter of a second of ordinary traffic
before a silence may be missing from counts and ages.

Exit status: 0, 1 if there is no daemon, 2 for invalid input, 3 if this
user may not connect.")]
pub struct ListArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// List groups of connections, or the clients with the most attempts
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,

    /// Order of the connections [default: urgency, with --json age]
    #[arg(long, value_name = "ORDER", conflicts_with = "by")]
    pub sort: Option<ListOrder>,

    /// List the last 1,024 connections that ended, the latest first
    #[arg(long, conflicts_with_all = ["by", "sort", "state"])]
    pub ended: bool,

    /// Only the listener with this name
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Only connections in this state: open or closing
    #[arg(long, value_name = "STATE", value_parser = state, conflicts_with = "by")]
    pub state: Option<State>,

    /// Only connections with this kind of standing verdict
    #[arg(
        long,
        value_name = "KIND",
        value_parser = kind_parser(),
        conflicts_with_all = ["by", "ended"]
    )]
    pub kind: Option<VerdictKind>,

    /// Only zombies of any kind
    #[arg(long, conflicts_with_all = ["by", "ended"])]
    pub zombies: bool,

    /// Only connections with this text in peer, listener, protocol, verdict or owner
    #[arg(long, value_name = "TEXT", conflicts_with = "by")]
    pub search: Option<Search>,

    /// Only peers (or clients) with this address, or in this network
    #[arg(long, value_name = "IP[/BITS]")]
    pub peer: Option<Peers>,

    /// Maximum number of entries; 0 lists all [default: 40 connections, all groups
    /// and clients, all with --json, one screen with --watch]
    #[arg(short = 'n', long, value_name = "N", value_parser = number::limit)]
    pub limit: Option<usize>,

    /// Repeat the list; without a value, every 2 s
    #[arg(
        short,
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = positive_duration
    )]
    pub watch: Option<Duration>,

    #[command(flatten)]
    pub format: FormatArgs,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// What is listed instead of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Group(GroupBy),
    Client,
}

impl ValueEnum for By {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Group(GroupBy::Listener),
            Self::Group(GroupBy::Pod),
            Self::Group(GroupBy::Unit),
            Self::Group(GroupBy::Process),
            Self::Group(GroupBy::Peer),
            Self::Client,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Group(by) => by.to_possible_value(),
            Self::Client => {
                Some(PossibleValue::new("client").help("Clients with the most attempts"))
            }
        }
    }
}

/// Prints the list to stdout.
pub fn run(args: &ListArgs) -> CommandResult {
    if args.watch.is_some() && args.format.is_json() {
        return Err(Failure::usage(
            "--watch prints tables; for JSON, leave it out",
        ));
    }
    match args.by {
        Some(By::Group(by)) => screen::block_on(screen::until_interrupted(groups::show(args, by)))?,
        Some(By::Client) => screen::block_on(screen::until_interrupted(clients::show(args)))?,
        None => screen::block_on(screen::until_interrupted(connections::show(args)))?,
    }
}

/// The rows of a table that is printed once.
const SCREEN: usize = 40;

impl ListArgs {
    /// `None` lists all.
    fn limit(&self) -> Option<usize> {
        let all = self.format.is_json() || self.by.is_some();
        let screen = self.watch.and_then(|_| terminal_height());
        let default = match screen {
            Some(height) => Some(Redraw::rows(height)),
            None => (!all).then_some(SCREEN),
        };
        self.limit.or(default).filter(|limit| *limit > 0)
    }

    /// `None` leaves the order to the daemon.
    fn order(&self) -> Option<ListOrder> {
        let default = (!self.format.is_json() && !self.ended).then_some(ListOrder::Urgency);
        self.sort.or(default)
    }

    /// The line that says how many of `connections` were left out after `rows`; `None` if none were.
    fn left_out(&self, rows: usize, connections: usize) -> Option<String> {
        let left = connections.saturating_sub(rows);
        if left == 0 || self.limit().is_none_or(|limit| rows < limit) {
            return None;
        }
        let left = Grouped(left as u64);
        Some(match self.has_conditions() {
            true => format!("more of the other {left} connections may match: -n 0 shows all"),
            false => format!("{left} more connections: -n 0 shows all"),
        })
    }

    /// The line that says how many of `entries`, groups or clients, were left out after `rows`.
    fn left_out_entries(&self, rows: usize, entries: usize) -> Option<String> {
        let left = entries.saturating_sub(rows) as u64;
        let noun = match self.by {
            Some(By::Client) => "more client",
            _ => "more group",
        };
        (left > 0).then(|| format!("{}: -n 0 shows all", Counted(left, noun)))
    }

    /// Whether totals of all connections are shown with the rows.
    fn has_totals(&self) -> bool {
        self.by.is_none() && !self.ended && !self.format.is_json()
    }

    /// Whether only some connections are wanted.
    fn has_conditions(&self) -> bool {
        self.listener.is_some()
            || self.state.is_some()
            || self.peer.is_some()
            || self.kind.is_some()
            || self.zombies
            || self.search.is_some()
    }
}

/// Prints the records as lines of JSON or as a table, once or repeatedly. `target` is requested
/// each time.
async fn print<T: DeserializeOwned, C: Into<Cell>>(
    args: &ListArgs,
    target: impl Fn() -> String,
    columns: Vec<Column>,
    row: impl Fn(&T) -> Vec<C>,
    nothing: &str,
) -> CommandResult {
    let Some(period) = args.watch else {
        let lines = client::get(&args.control, &target()).await?;
        let remark = print_once(args, lines, columns, row, nothing, &mut io::stdout()).await?;
        if let Some(remark) = remark {
            // On stderr, because the rows may go to another program.
            stderr_line!("{remark}");
        }
        if let Some(totals) = totals(args).await {
            stderr_line!("{totals}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut redraw = Redraw::new(period);
    let mut ticks = interval(period);
    // A slow answer delays the next request.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut block = Vec::new();
        let lines = client::get(&args.control, &target()).await?;
        let remark = print_once(args, lines, columns.clone(), &row, nothing, &mut block).await?;
        let totals = totals(args).await;
        if redraw.show(&block, remark.as_deref(), totals.as_deref())? == Shown::NobodyReads {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// What is said with the rows on a terminal.
async fn totals(args: &ListArgs) -> Option<String> {
    match args.has_totals() {
        true => totals::for_terminal(&args.control, args.listener.as_deref()).await,
        false => None,
    }
}

/// Returns what is to be said about the rows that were left out.
async fn print_once<T: DeserializeOwned, C: Into<Cell>>(
    args: &ListArgs,
    mut lines: client::ResponseLines,
    columns: Vec<Column>,
    row: impl Fn(&T) -> Vec<C>,
    nothing: &str,
    out: &mut impl Write,
) -> Result<Option<String>, Failure> {
    let mut table = Table::new(columns, args.format.table_width());
    let mut rows = 0_usize;
    while let Some(line) = lines.next().await? {
        let shown = match args.format.is_json() {
            true => screen::write_line(out, &line)?,
            false => screen::write_lines(out, &table.push(row(&client::read(&line)?)))?,
        };
        if shown == Shown::NobodyReads {
            return Ok(None);
        }
        rows += 1;
    }
    if screen::write_lines(out, &table.finish())? == Shown::NobodyReads {
        return Ok(None);
    }
    if rows == 0 && !args.format.is_json() {
        let line = match &lines.unserved {
            Some(ports) => format!("{nothing}; nobody listens on {ports}, see wsmon ports"),
            None => nothing.to_owned(),
        };
        screen::write_line(out, line.as_bytes())?;
    }
    if args.format.is_json() {
        return Ok(None);
    }
    let entries = lines
        .entries
        .and_then(|total| args.left_out_entries(rows, total));
    let connections = || args.left_out(rows, lines.connections?);
    Ok(entries.or_else(connections))
}

fn state(text: &str) -> Result<State, String> {
    [State::Open, State::Closing]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| "expected open or closing".to_owned())
}

fn kind_parser() -> impl TypedValueParser<Value = VerdictKind> {
    let names = VerdictKind::ALL.iter().map(|kind| kind.as_str());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<VerdictKind>())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn args(flags: &[&str]) -> ListArgs {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            list: ListArgs,
        }
        let flags = ["list"].iter().chain(flags);
        <Alone as clap::Parser>::parse_from(flags).list
    }

    #[test]
    fn a_table_is_one_screen_unless_limited_otherwise_and_json_is_everything() {
        assert_eq!(args(&[]).limit(), Some(SCREEN));
        assert_eq!(args(&["--limit", "7"]).limit(), Some(7));
        assert_eq!(args(&["--limit", "0"]).limit(), None);
        assert_eq!(args(&["--json"]).limit(), None);
        assert_eq!(args(&["--json", "--limit", "7"]).limit(), Some(7));
        assert_eq!(args(&["--by", "client"]).limit(), None);
    }

    #[test]
    fn omitted_rows_are_reported() {
        assert_eq!(args(&[]).left_out(40, 40), None);
        let clients = args(&["--by", "client", "-n", "9"]);
        assert_eq!(clients.left_out_entries(9, 9), None);
        let line = clients.left_out_entries(9, 10).expect("a line");
        assert_eq!(line, "1 more client: -n 0 shows all");
        let line = args(&["--by", "pod", "-n", "9"]).left_out_entries(9, 2_009);
        assert_eq!(line.expect("a line"), "2,000 more groups: -n 0 shows all");
        let line = args(&[]).left_out(40, 1_000_000).expect("a line");
        assert_eq!(line, "999,960 more connections: -n 0 shows all");
        assert_eq!(args(&["--limit", "0"]).left_out(9, 10), None, "one ended");
        let chosen = args(&["--listener", "a"]);
        assert_eq!(chosen.left_out(39, 100), None, "all were examined");
        let line = chosen.left_out(40, 100).expect("a line");
        assert!(
            line.contains("the other 60 connections may match"),
            "{line}"
        );
    }

    #[test]
    fn the_order_is_urgency_unless_another_one_or_the_daemons_is_wanted() {
        assert_eq!(args(&[]).order(), Some(ListOrder::Urgency));
        assert_eq!(args(&["--json"]).order(), None);
        assert_eq!(args(&["--ended"]).order(), None);
        assert_eq!(
            args(&["--json", "--sort", "idle"]).order(),
            Some(ListOrder::Idle)
        );
    }
}
