//! `wsmon inspect`: shows everything known about one connection.

mod close;
mod fields;
mod idle;
mod matches;
pub(super) mod page;
mod timeline;
mod traffic;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    client::{self, DEFAULT_CONTROL},
    color::ColorArgs,
    connection_name::ConnectionName,
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    screen::{self, Shown},
    totals,
};
use crate::records::{
    connections::{ConnectionRecord, State, StateChange},
    printable::printable,
    status::ListenerStatus,
    transitions::TransitionRecord,
};
use matches::Matches;
use page::Page;
use timeline::StateLine;

/// Show everything that is known about one connection.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon inspect 315653               the cookie is in every alert and list
  wsmon inspect 10.0.0.7             the only connection with this address
  wsmon inspect 10.0.0.7:53787       the address and port of the peer
  wsmon inspect [fd00::7]:53787
  wsmon inspect :53787               a port at either end
  wsmon inspect 315653 --follow      then its changes until it is closed
  wsmon inspect 315653 --json | jq .verdict

If several connections have the address, they are listed. Needs a running
`wsmon run`, which also keeps the last 1,024 ended connections. An open one is
read twice, a second apart, for its rates.

Exit status: 0, 1 if there is no daemon or not exactly one such connection, 2
for invalid input, 3 if this user may not connect.")]
pub struct InspectArgs {
    /// Cookie of the connection, or an address, with or without a port, of either end
    #[arg(value_name = "CONNECTION")]
    pub connection: ConnectionName,

    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// Follow its state changes until it is closed
    #[arg(short, long)]
    pub follow: bool,

    #[command(flatten)]
    pub format: FormatArgs,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Prints the connection to stdout.
pub fn run(args: &InspectArgs) -> CommandResult {
    screen::block_on(screen::until_interrupted(show(args)))?
}

async fn show(args: &InspectArgs) -> CommandResult {
    let cookie = match args.connection {
        ConnectionName::Cookie(cookie) => cookie,
        ConnectionName::Endpoint(endpoint) => {
            let matches = Matches::request(&args.control, endpoint).await?;
            match matches.only() {
                Some(cookie) => cookie,
                None => return matches.refuse(args.format),
            }
        }
    };
    // Subscribe before the connection is requested, so that no change is missed in between.
    let mut changes = match args.follow {
        true => Some(client::get(&args.control, "/v1/events").await?),
        false => None,
    };
    let target = format!("/v1/connections/{cookie}?rates=true");
    let mut lines = client::get(&args.control, &target).await?;
    let line = lines.only().await?;
    let record: ConnectionRecord = client::read(&line)?;
    let mut out = io::stdout();
    let mut shown = match args.format.is_json() {
        true => screen::write_line(&mut out, &line)?,
        false => {
            let page = Page {
                record: &record,
                listener: listener(args, &record).await,
                width: args.format.table_width(),
                is_colored: args.color.is_on(),
            };
            screen::write_lines(&mut out, &page.lines())?
        }
    };
    let mut known: Vec<State> = record.states.iter().map(|change| change.state).collect();
    let mut latest = record.states.last().map(|change| change.ts);
    while let Some(changes) = &mut changes
        && !known.contains(&State::Closed)
        && shown == Shown::Written
    {
        let line = changes.next_of_stream().await?;
        shown = match client::read(&line)? {
            FollowedRecord::Transition(change)
                if change.cookie == record.cookie && !known.contains(&change.to) =>
            {
                known.push(change.to);
                let previous = latest.replace(change.ts);
                match args.format.is_json() {
                    true => screen::write_line(&mut out, &line)?,
                    false => {
                        let line = change_line(change, previous, record.ts);
                        screen::write_line(&mut out, line.as_bytes())?
                    }
                }
            }
            FollowedRecord::Transition(_) => Shown::Written,
            // The lost changes may belong to this connection. A new request returns the right states.
            FollowedRecord::Lost {} => {
                return Err(Failure::failed(
                    "state changes were lost, because they were not read fast enough; inspect it \
                     again",
                ));
            }
        };
    }
    Ok(ExitCode::SUCCESS)
}

/// The state of the connection's listener; `None` if the daemon has other listeners by now, or is of an
/// older version.
async fn listener(args: &InspectArgs, record: &ConnectionRecord) -> Option<ListenerStatus> {
    let (status, _) = totals::request(&args.control, None).await.ok()?;
    let mut listeners = status.listeners.into_iter();
    listeners.find(|status| status.listener == record.listener)
}

/// A line of the stream of changes.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FollowedRecord {
    Transition(TransitionRecord),
    Lost {},
}

/// A change of state as a line below the page.
fn change_line(change: TransitionRecord, previous: Option<Timestamp>, day: Timestamp) -> String {
    let change = StateChange {
        state: change.to,
        ts: change.ts,
        reason: change.reason,
    };
    let line = StateLine {
        previous,
        change: &change,
        day,
    };
    format!("{}{}", fields::INDENT, printable(&line.to_string()))
}
