//! `wsmon status`: whether all is well.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    client::DEFAULT_CONTROL,
    color::{Color, ColorArgs},
    exit::CommandResult,
    format_args::FormatArgs,
    screen::{self, Age, Grouped, Margin},
    table::{Cell, Column, Table},
    totals::{self, Totals},
};
use crate::records::{
    printable::printable,
    status::{ListenerStatus, StatusRecord},
};

/// Show whether all is well; the exit status is 1 if not.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon status
  wsmon status --quiet || page-someone             in a script
  wsmon status --json | jq -r '.problems[]'        one sentence per problem
  wsmon status --listener 8080                     one listener

Needs a running `wsmon run`.

Exit status: 0 if there is no problem, 1 if there is one or no daemon, 2 for
invalid input, 3 if this user may not connect. A problem is one of these:
  - a confirmed zombie, of a listener that is shown
  - a reconnect storm there, from the mass close on
  - a local listener on whose ports nobody listens
  - a loss within the last five minutes, for which wsmon_degraded is 1

Suspected zombies, connections at risk and other alerts are not problems.")]
pub struct StatusArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// Only this listener, by its name in metrics and alerts
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Print nothing on stdout
    #[arg(short, long, conflicts_with_all = ["output", "json"])]
    pub quiet: bool,

    #[command(flatten)]
    pub format: FormatArgs,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Prints the state to stdout.
pub fn run(args: &StatusArgs) -> CommandResult {
    screen::block_on(screen::until_interrupted(show(args)))?
}

async fn show(args: &StatusArgs) -> CommandResult {
    let (status, json) = totals::request(&args.control, args.listener.as_deref()).await?;
    let mut out = io::stdout();
    if args.format.is_json() {
        screen::write_line(&mut out, &json)?;
    } else if !args.quiet {
        screen::write_lines(
            &mut out,
            &page(&status, args.format.table_width(), args.color.is_on()),
        )?;
    }
    Ok(match status.healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The listeners as a table, the totals, the daemon, and what is wrong.
fn page(status: &StatusRecord, width: Option<usize>, is_colored: bool) -> Vec<String> {
    let mut table = Table::new(COLUMNS, width);
    let rows = status.listeners.iter().map(|of| row(of, is_colored));
    let mut lines: Vec<_> = rows.flat_map(|row| table.push(row)).collect();
    lines.extend(table.finish());
    lines.push(String::new());
    lines.push(Totals(status).to_string());
    let StatusRecord {
        version,
        pid,
        uptime_seconds,
        kernel,
        ..
    } = status;
    let uptime = Age(Some(*uptime_seconds));
    let daemon = format!("wsmon {version}, pid {pid}, up {uptime}, kernel {kernel}");
    lines.push(printable(&daemon));
    lines.extend(losses(status).map(|losses| printable(&losses)));
    if status.problems.is_empty() {
        lines.push("no problems".to_owned());
    }
    for problem in &status.problems {
        let text = printable(&format!("problem: {problem}"));
        lines.extend(screen::wrapped(&text, "", width.unwrap_or(usize::MAX)));
    }
    lines
}

/// Since the start; those of the last five minutes are problems.
fn losses(status: &StatusRecord) -> Option<String> {
    let counts = status.losses.iter();
    let counts: Vec<_> = counts
        .map(|loss| format!("{} ({}, {})", Grouped(loss.total), loss.ring, loss.reason))
        .collect();
    (!counts.is_empty()).then(|| format!("lost since the start: {}", counts.join(", ")))
}

const COLUMNS: [Column; 11] = [
    Column::new("LISTENER").shortened_to(8),
    Column::new("PORTS").shortened_to(5).left_out(4),
    Column::number("OPEN"),
    Column::number("CLOSING").left_out(6),
    Column::number("ZOMBIES"),
    Column::number("CONFIRMED"),
    Column::number("AT RISK").left_out(5),
    Column::number("LIMIT").left_out(3),
    Column::number("MARGIN").left_out(2),
    Column::new("LEARNED").left_out(7),
    Column::new("STATE"),
];

/// A listener as a row of the table.
fn row(listener: &ListenerStatus, is_colored: bool) -> Vec<Cell> {
    let state = match (listener.listening_sockets, listener.storm.as_deref()) {
        (_, Some("mass_close")) => "mass close",
        (_, Some(_)) => "storm",
        (Some(0), None) => "no server",
        (_, None) if listener.zombies.confirmed > 0 => "zombies",
        (_, None) => "ok",
    };
    let color = (is_colored && state != "ok").then_some(Color::Red);
    let text = [
        listener.listener.clone(),
        listener.ports.clone(),
        Grouped(listener.open).to_string(),
        Grouped(listener.closing).to_string(),
        Grouped(listener.zombies.total()).to_string(),
        Grouped(listener.zombies.confirmed).to_string(),
        Grouped(listener.at_risk).to_string(),
        Age(listener.idle_limit_seconds).to_string(),
        Margin(listener.heartbeat_margin_seconds).to_string(),
        learned(listener),
    ];
    let state = Cell::colored(state, color);
    text.into_iter().map(Cell::from).chain([state]).collect()
}

/// The bounds of the path's real timeout, from the silences that connections survived or not.
fn learned(listener: &ListenerStatus) -> String {
    let bounds = (
        listener.learned_lower_seconds,
        listener.learned_upper_seconds,
    );
    match bounds {
        (Some(_), Some(_)) => format!("{} to {}", Age(bounds.0), Age(bounds.1)),
        (Some(_), None) => format!("over {}", Age(bounds.0)),
        (None, Some(_)) => format!("up to {}", Age(bounds.1)),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::status::{
        LossCount,
        tests::{healthy, listener, status},
    };
    use monitor_core::{Tally, VerdictKind, storm::StormPhase};

    fn text(
        listeners: Vec<ListenerStatus>,
        losses: Vec<LossCount>,
        width: Option<usize>,
    ) -> String {
        let status = StatusRecord {
            version: "1.0.0".to_owned(),
            pid: 4215,
            ..status(listeners, losses)
        };
        page(&status, width, false).join("\n")
    }

    #[test]
    fn a_healthy_daemon_is_a_table_and_three_lines() {
        let mut tally = healthy();
        tally.learned.gap_p99 = Some(Duration::from_secs(38));
        tally.learned.survived = Some(Duration::from_secs(50));
        tally.counts.connections[0].open = 1_203;
        let chat = listener("chat", &tally, None);
        let expected = "\
LISTENER  PORTS   OPEN  CLOSING  ZOMBIES  CONFIRMED  AT RISK    LIMIT  MARGIN  LEARNED      STATE
chat      8080   1,204        0        0          0        0  1 m 0 s  22.0 s  over 50.0 s  ok

1 listener, 1,204 open, 0 zombies, heartbeat margin 22.0 s
wsmon 1.0.0, pid 4215, up 1 h 1 m, kernel 6.1.0
no problems";
        assert_eq!(text(vec![chat], Vec::new(), None), expected);
    }

    #[test]
    fn hostile_names_break_neither_a_line_nor_a_terminal() {
        let evil = listener("a\n\u{1b}[2J\u{202e}", &Tally::default(), None);
        let text = text(vec![evil], Vec::new(), None);
        let escaped = r"a\n\u{1b}[2J\u{202e}";
        assert_eq!(text.matches(escaped).count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn trouble_is_in_the_table_and_in_sentences_that_fit_the_terminal() {
        let mut dead = healthy();
        dead.counts.zombies[VerdictKind::Expired as usize] = 2;
        dead.confirmed_zombies = 1;
        let listeners = vec![
            listener("8080", &dead, None),
            listener("a-rather-long-name", &Tally::default(), None),
            listener("api", &healthy(), Some(StormPhase::MassClose)),
        ];
        let losses = vec![LossCount {
            ring: "connections".to_owned(),
            reason: "snapshots_full".to_owned(),
            total: 7,
            last_five_minutes: 2,
        }];
        let text = text(listeners, losses, Some(80));
        for line in [
            "8080       8080      3        2          1        0  1 m 0 s       -  zombies",
            "a-rather…  8080      0        0          0        0  1 m 0 s       -  no server",
            "api        8080      3        0          0        0  1 m 0 s       -  mass close",
            "3 listeners, 6 open, 2 zombies (1 confirmed)",
            "lost since the start: 7 (connections, snapshots_full)",
            "problem: listener 8080 has 1 confirmed zombie: see wsmon alerts",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        assert!(!text.contains("no problems"), "{text}");
        let colored = page(
            &status(vec![listener("8080", &dead, None)], Vec::new()),
            None,
            true,
        );
        assert!(
            colored[1].ends_with("\x1b[31mzombies\x1b[0m"),
            "{colored:?}"
        );
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
    }
}
