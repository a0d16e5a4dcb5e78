//! `wsmon list`: lists the watched connections, groups of them, or their clients.

pub(super) mod clients;
mod groups;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum, builder::PossibleValue};
use serde::de::DeserializeOwned;

use super::{
    client::{self, DEFAULT_CONTROL},
    exit::CommandResult,
    format_args::FormatArgs,
    owner::{process_text, workload_text},
    screen::{self, Age, Amount, Shown},
    table::{Column, Table},
};
use crate::{
    diagnostics::stderr_line,
    records::{
        connections::{ConnectionRecord, State},
        frames::Peers,
        groups::GroupBy,
        list_order::ListOrder,
        rates::TrafficRates,
    },
};

/// List watched connections, those with a verdict first, or groups of them, or clients.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon list
  wsmon list --listener 8080 --state closing
  wsmon list --limit 0                                      all of them
  wsmon list --sort idle --limit 10                         the ten longest silences
  wsmon list --sort queue --limit 10                        the ten slowest readers
  wsmon list --sort rx-rate --limit 10                      the ten that receive the most now
  wsmon list --ended --peer 10.0.0.0/8                      how clients there left
  wsmon list --json | jq -r 'select(.verdict) | .peer'      peers with a verdict

  wsmon list --by pod                                       how many connections each pod has
  wsmon list --by peer --limit 10                           the peers with the most connections
  wsmon list --by client --limit 10                         clients by attempts, with their regularity

Needs a running `wsmon run`. OWNER is the pod, or else the container, the systemd
unit or the process. The last quarter of a second of ordinary traffic before a
silence may be missing from counts and ages.

Exit status: 0, 1 if there is no daemon, 2 for invalid arguments, 3 if this user may
not connect.")]
pub struct ListArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// List groups of connections, or the clients with the most attempts, instead of connections
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,

    /// Order of the connections [default: urgency, with --json age]
    #[arg(long, value_name = "ORDER", conflicts_with = "by")]
    pub sort: Option<ListOrder>,

    /// List the last 1024 connections that ended, as of their end, the latest first
    #[arg(long, conflicts_with_all = ["by", "sort", "state"])]
    pub ended: bool,

    /// Only this listener, by its name in metrics and alerts
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Only connections in this state: open or closing
    #[arg(long, value_name = "STATE", value_parser = state, conflicts_with = "by")]
    pub state: Option<State>,

    /// Only peers (or clients) with this address, or in this network
    #[arg(long, value_name = "IP[/BITS]")]
    pub peer: Option<Peers>,

    /// Maximum number of entries; 0 lists all [default: 40 connections; all clients, and all with --json]
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,

    #[command(flatten)]
    pub format: FormatArgs,
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
    match args.by {
        Some(By::Group(by)) => screen::block_on(screen::until_interrupted(groups::show(args, by)))?,
        Some(By::Client) => screen::block_on(screen::until_interrupted(clients::show(args)))?,
        None => screen::block_on(screen::until_interrupted(show(args)))?,
    }
}

async fn show(args: &ListArgs) -> CommandResult {
    let query = [
        ("listener", args.listener.clone()),
        ("state", args.state.map(|state| state.as_str().to_owned())),
        ("peer", args.peer.map(|peers| peers.to_string())),
        ("ended", args.ended.then(|| "true".to_owned())),
        ("order", args.order().map(|order| order.as_str().to_owned())),
        ("limit", args.limit().map(|limit| limit.to_string())),
    ];
    let target = client::target("/v1/connections", &query);
    print(args, &target, columns(args), row, "no connections").await
}

/// One screen of rows.
const SCREEN: usize = 40;

impl ListArgs {
    /// `None` lists all.
    fn limit(&self) -> Option<usize> {
        let all = self.format.is_json() || self.by.is_some();
        let default = (!all).then_some(SCREEN);
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
        let chosen = self.listener.is_some() || self.state.is_some() || self.peer.is_some();
        Some(match chosen {
            true => format!("more of the other {left} connections may match: --limit 0 shows all"),
            false => format!("{left} more connections: --limit 0 shows all"),
        })
    }
}

/// Requests records and prints each as a line of JSON, or all as a table.
async fn print<T: DeserializeOwned>(
    args: &ListArgs,
    target: &str,
    columns: Vec<Column>,
    row: impl Fn(&T) -> Vec<String>,
    nothing: &str,
) -> CommandResult {
    let mut lines = client::get(&args.control, target).await?;
    let mut out = io::stdout();
    let mut table = Table::new(columns, args.format.table_width());
    let mut rows = 0_usize;
    while let Some(line) = lines.next().await? {
        let shown = match args.format.is_json() {
            true => screen::write_line(&mut out, &line)?,
            false => screen::write_lines(&mut out, &table.push(row(&client::read(&line)?)))?,
        };
        if shown == Shown::NobodyReads {
            return Ok(ExitCode::SUCCESS);
        }
        rows += 1;
    }
    if screen::write_lines(&mut out, &table.finish())? == Shown::NobodyReads {
        return Ok(ExitCode::SUCCESS);
    }
    if rows == 0 && !args.format.is_json() {
        let line = match &lines.unserved {
            Some(ports) => format!("{nothing}; nobody listens on {ports}, see wsmon ports"),
            None => nothing.to_owned(),
        };
        screen::write_line(&mut out, line.as_bytes())?;
    }
    let connections = lines.connections.filter(|_| !args.format.is_json());
    if let Some(left_out) = connections.and_then(|total| args.left_out(rows, total)) {
        // On stderr, because the rows may go to another program.
        stderr_line!("{left_out}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The columns of the table of connections. The figure by which they are sorted is never left out.
fn columns(args: &ListArgs) -> Vec<Column> {
    let rank = |orders: &[ListOrder], rank| match args.sort {
        Some(order) if orders.contains(&order) => 0,
        _ => rank,
    };
    let by_rate = args.sort.is_some_and(ListOrder::needs_rates);
    let traffic = if by_rate {
        "BYTES/S RX/TX"
    } else {
        "FRAMES RX/TX"
    };
    let counted = [
        ListOrder::Frames,
        ListOrder::Bytes,
        ListOrder::RxRate,
        ListOrder::TxRate,
    ];
    vec![
        Column::new("COOKIE"),
        Column::new("LISTENER").shortened_to(8).left_out(2),
        Column::new("PEER"),
        Column::new("PROTOCOL").left_out(7),
        Column::new("STATE").left_out(6),
        Column::number("AGE").left_out(rank(&[ListOrder::Age], 3)),
        Column::number("IDLE"),
        Column::number(traffic).left_out(rank(&counted, 5)),
        Column::number("QUEUE").left_out(rank(&[ListOrder::Queue], 4)),
        Column::new("OWNER").shortened_to(12).left_out(1),
        Column::new(if args.ended { "ENDED" } else { "VERDICT" }),
    ]
}

/// A connection as a row of the table.
fn row(record: &ConnectionRecord) -> Vec<String> {
    let traffic = match record.rates {
        Some(TrafficRates { rx, tx }) => format!(
            "{}/{}",
            Amount(rx.payload_bytes_per_second),
            Amount(tx.payload_bytes_per_second)
        ),
        None => format!("{}/{}", record.rx.frames, record.tx.frames),
    };
    let queue = record.tcp.send_queue_bytes;
    let owner = workload_text(&record.owner).or_else(|| process_text(&record.owner));
    let last = record.states.last();
    let ended = last.filter(|change| change.state == State::Closed);
    vec![
        record.cookie.0.to_string(),
        record.listener.clone(),
        record.peer.to_string(),
        record.protocol.clone(),
        record.state.as_str().to_owned(),
        Age(record.age_seconds).to_string(),
        Age(record.idle_seconds).to_string(),
        traffic,
        queue.map_or_else(unknown, |bytes| bytes.to_string()),
        owner.unwrap_or_else(unknown),
        match (&record.verdict, ended) {
            (Some(verdict), _) => format!("{} ({})", verdict.kind, verdict.certainty),
            (None, Some(end)) => format!("{} {}", end.ts, end.reason),
            (None, None) => unknown(),
        },
    ]
}

fn unknown() -> String {
    "-".to_owned()
}

fn state(text: &str) -> Result<State, String> {
    [State::Open, State::Closing]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| "expected open or closing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::connections::tests::{detail, record};
    use monitor_core::CloseHow;

    fn args(flags: &[&str]) -> ListArgs {
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
        let line = args(&[]).left_out(40, 1_000_000).expect("a line");
        assert_eq!(line, "999960 more connections: --limit 0 shows all");
        assert_eq!(args(&["--limit", "0"]).left_out(9, 10), None, "one ended");
        let chosen = args(&["--listener", "a"]);
        assert_eq!(chosen.left_out(39, 100), None, "all were examined");
        let line = chosen.left_out(40, 100).expect("a line");
        assert!(
            line.contains("the other 60 connections may match"),
            "{line}"
        );
    }

    /// The table with one row.
    fn table(flags: &[&str], record: &ConnectionRecord, limit: Option<usize>) -> String {
        let mut table = Table::new(columns(&args(flags)), limit);
        assert!(table.push(row(record)).is_empty());
        table.finish().join("\n")
    }

    #[test]
    fn the_table_has_all_columns_in_a_pipe_and_fits_a_terminal() {
        let mut record = record(&detail(315_653), None);
        record.owner.pod_namespace = Some("shop".to_owned());
        record.owner.pod_name = Some("chat-6d4cf56db6-x7k2p".to_owned());
        let whole = "\
COOKIE  LISTENER  PEER              PROTOCOL   STATE     AGE   IDLE  FRAMES RX/TX  QUEUE  OWNER                       VERDICT
315653  8080      10.77.1.12:53787  websocket  open   20.0 s  5.0 s           3/0      -  shop/chat-6d4cf56db6-x7k2p  -";
        assert_eq!(table(&[], &record, None), whole);
        let narrow = "\
COOKIE  LISTENER  PEER                 AGE   IDLE  QUEUE  OWNER          VERDICT
315653  8080      10.77.1.12:53787  20.0 s  5.0 s      -  shop/chat-6d…  -";
        assert_eq!(table(&[], &record, Some(80)), narrow);
        let by_frames = table(&["--sort", "frames"], &record, Some(80));
        assert!(by_frames.contains("FRAMES RX/TX"), "{by_frames}");
    }

    #[test]
    fn an_order_by_rate_shows_rates() {
        let mut rated = record(&detail(315_653), None);
        let mut rates = TrafficRates::default();
        rates.rx.payload_bytes_per_second = 12_345_678.0;
        rated.rates = Some(rates);
        let table = table(&["--sort", "rx-rate"], &rated, None);
        assert!(table.contains("BYTES/S RX/TX"), "{table}");
        assert!(table.contains("  12.3M/0  "), "{table}");
    }

    #[test]
    fn an_ended_connection_has_its_end_in_the_last_column() {
        let record = record(&detail(315_653), Some(CloseHow::RstReceived));
        let table = table(&["--ended"], &record, None);
        assert!(table.contains("  closed  "), "{table}");
        assert!(
            table.ends_with("  2026-11-22T18:37:52.5Z rst_received"),
            "{table}"
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
