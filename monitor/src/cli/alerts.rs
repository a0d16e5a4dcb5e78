//! `wsmon alerts`: current, past and new alerts.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    client::{self, DEFAULT_CONTROL, ResponseLines},
    color::{Color, ColorArgs},
    exit::{CommandResult, Failure},
    format_args::FormatArgs,
    number,
    screen::{self, Age, Counted, Shown, wrapped},
};
use crate::{
    diagnostics::stderr_line,
    records::{
        alert_kind::AlertKind,
        alert_text::{AlertLine, AlertText},
        loss::LossRecord,
        printable::printable,
    },
};

/// Show current alerts, past ones, or follow new ones.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon alerts
  wsmon alerts --kind zombie --listener 8080
  wsmon alerts --history                           with those that were resolved
  wsmon alerts --follow                            as they come
  wsmon alerts --json | jq -r .conn.peer           the lines of the alert log

Needs a running `wsmon run`. Alerts on listeners come first, then connections:
confirmed zombies, suspected ones, and warnings, each the oldest first. Times
are UTC.

Exit status: 0, with alerts or without; 1 if there is no daemon, 2 for invalid
input, 3 if this user may not connect. `wsmon status` has one for scripts.")]
pub struct AlertsArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// Show the last 1,000 lines of the alert log
    #[arg(long, conflicts_with = "follow")]
    pub history: bool,

    /// Show alerts as they begin and end
    #[arg(short, long, conflicts_with = "limit")]
    pub follow: bool,

    /// Only this listener, by its name in metrics and alerts
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,

    /// Only this kind: zombie, expired, reconnect_storm …
    #[arg(long, value_name = "KIND")]
    pub kind: Option<AlertKind>,

    /// Maximum number of alerts; 0 shows all [default: 40; all with --json and --history]
    #[arg(short = 'n', long, value_name = "N", value_parser = number::limit)]
    pub limit: Option<usize>,

    #[command(flatten)]
    pub format: FormatArgs,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Prints the alerts to stdout.
pub fn run(args: &AlertsArgs) -> CommandResult {
    screen::block_on(screen::until_interrupted(show(args)))?
}

async fn show(args: &AlertsArgs) -> CommandResult {
    let flag = |is_set: bool| is_set.then(|| "true".to_owned());
    let query = [
        ("listener", args.listener.clone()),
        ("kind", args.kind.map(|kind| kind.to_string())),
        ("history", flag(args.history)),
        ("follow", flag(args.follow)),
        ("limit", args.limit().map(|limit| limit.to_string())),
    ];
    let target = client::target("/v1/alerts", &query);
    let lines = client::get(&args.control, &target).await?;
    match args.follow {
        true => follow(args, lines).await,
        false => list(args, lines).await,
    }
}

/// The alerts on about ten screens.
const FEW: usize = 40;

impl AlertsArgs {
    /// `None` shows all.
    fn limit(&self) -> Option<usize> {
        let all = self.format.is_json() || self.history || self.follow;
        let default = (!all).then_some(FEW);
        self.limit.or(default).filter(|limit| *limit > 0)
    }

    /// An alert as lines of text.
    fn text(&self, alert: &AlertLine) -> Vec<String> {
        match (self.history, self.follow) {
            // They may span days.
            (true, _) => vec![format!("{:#}", AlertText(alert))],
            (_, true) => vec![AlertText(alert).to_string()],
            (false, false) => {
                let mut lines = paragraph(alert, Timestamp::now(), self.format.table_width());
                let color = alert.certainty.as_deref().and_then(Color::of_certainty);
                if let Some(color) = color.filter(|_| self.color.is_on())
                    && let Some(head) = lines.first_mut()
                {
                    *head = color.paint(head);
                }
                lines
            }
        }
    }
}

async fn list(args: &AlertsArgs, mut lines: ResponseLines) -> CommandResult {
    let mut out = io::stdout();
    let mut shown = 0_usize;
    while let Some(line) = lines.next().await? {
        let written = match args.format.is_json() {
            true => screen::write_line(&mut out, &line)?,
            false => screen::write_lines(&mut out, &args.text(&parsed(&line)?))?,
        };
        if written == Shown::NobodyReads {
            return Ok(ExitCode::SUCCESS);
        }
        shown += 1;
    }
    if args.format.is_json() {
        return Ok(ExitCode::SUCCESS);
    }
    if shown == 0 {
        screen::write_line(&mut out, b"no alerts")?;
    }
    // On stderr, because the alerts may go to another program.
    match lines.dropped {
        Some(dropped) if dropped > 0 => {
            stderr_line!("{} dropped", Counted(dropped as u64, "older alert"));
        }
        _ => {}
    }
    let left = lines.alerts.map_or(0, |total| total.saturating_sub(shown));
    if left > 0 && args.limit().is_some_and(|limit| shown >= limit) {
        // Of the log, the latest lines are shown.
        let others = if args.history {
            "older alert"
        } else {
            "more alert"
        };
        let others = Counted(left as u64, others);
        stderr_line!("{others}: --limit 0 shows all");
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of the stream.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FollowedLine {
    Alert(Box<AlertLine>),
    Lost(LossRecord),
}

async fn follow(args: &AlertsArgs, mut lines: ResponseLines) -> CommandResult {
    let mut out = io::stdout();
    let mut written = Shown::Written;
    while written == Shown::Written {
        let line = lines.next_of_stream().await?;
        written = match args.format.is_json() {
            true => screen::write_line(&mut out, &line)?,
            false => match client::read(&line)? {
                FollowedLine::Alert(alert) => screen::write_lines(&mut out, &args.text(&alert))?,
                FollowedLine::Lost(lost) => {
                    let alerts = Counted(lost.viewer, "alert");
                    stderr_line!("{alerts} lost, because they were not read fast enough");
                    Shown::Written
                }
            },
        };
    }
    Ok(ExitCode::SUCCESS)
}

fn parsed(line: &[u8]) -> Result<AlertLine, Failure> {
    client::read(line)
}

/// An alert that stands, with its evidence, and an empty line.
pub(super) fn paragraph(alert: &AlertLine, now: Timestamp, width: Option<usize>) -> Vec<String> {
    let width = width.unwrap_or(usize::MAX);
    let ago = now.duration_since(alert.ts).as_secs_f64().max(0.0);
    let head = format!(
        "{}, since {} ({} ago)",
        alert.title(),
        alert.ts.strftime("%H:%M:%S"),
        Age(Some(ago))
    );
    let mut about = alert.subject();
    if let Some(conn) = &alert.conn {
        let listener = printable(&alert.listener);
        about += &format!(", listener {listener}, cookie {}", conn.cookie.0);
    }
    let mut lines = wrapped(&head, "", width);
    for text in [about, alert.reason()] {
        lines.extend(wrapped(&text, "  ", width));
    }
    lines.push(String::new());
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::{
        alert::{
            AlertRecord,
            tests::{alert, on_listener, storm},
        },
        owner::OwnerRecord,
    };
    use monitor_core::{Alert, Status, Subject};

    fn args(flags: &[&str]) -> AlertsArgs {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            alerts: AlertsArgs,
        }
        let flags = ["alerts"].iter().chain(flags);
        <Alone as clap::Parser>::parse_from(flags).alerts
    }

    fn line(alert: &Alert) -> AlertLine {
        let record = AlertRecord::new(alert, "8080", Timestamp::UNIX_EPOCH);
        parsed(record.to_json().expect("JSON").as_bytes()).expect("an alert")
    }

    #[test]
    fn text_is_limited_and_everything_else_is_complete() {
        assert_eq!(args(&[]).limit(), Some(FEW));
        assert_eq!(args(&["--limit", "0"]).limit(), None);
        assert_eq!(args(&["--json"]).limit(), None);
        assert_eq!(args(&["--history"]).limit(), None);
        assert_eq!(args(&["--follow"]).limit(), None);
        assert_eq!(args(&["--json", "--limit", "7"]).limit(), Some(7));
    }

    #[test]
    fn a_standing_alert_is_a_paragraph_that_fits_the_terminal() {
        let mut alert = alert();
        alert.reason = "idle 10.2 s on a path that forgets after 10 s (lb): no FIN, no RST; the \
                        application still thinks it is open"
            .into();
        let mut line = line(&alert.into());
        if let Some(conn) = &mut line.conn {
            conn.owner = OwnerRecord {
                pod_namespace: Some("shop".into()),
                pod_name: Some("chat-6d4cf56db6-x7k2p".into()),
                pid: Some(812),
                comm: Some("node".into()),
                ..OwnerRecord::default()
            };
        }
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(125);
        let expected = [
            "suspected zombie/expired, since 00:00:00 (2 m 5 s ago)",
            "  [fd00::1]:5000 shop/chat-6d4cf56db6-x7k2p (node, pid 812), listener 8080,",
            "  cookie 18446744073709551615",
            "  idle 10.2 s on a path that forgets after 10 s (lb): no FIN, no RST; the",
            "  application still thinks it is open",
            "",
        ];
        assert_eq!(paragraph(&line, now, Some(80)), expected);
        assert_eq!(paragraph(&line, now, None).len(), 4, "a pipe has no width");
    }

    #[test]
    fn an_alert_on_a_listener_names_it_once() {
        let subject = Subject::Storm(Box::new(storm()));
        let line = line(&on_listener(Status::Firing, subject));
        let expected = [
            "reconnect_storm (storm), since 00:00:00 (0.000 s ago)",
            "  on 8080",
            "  a sentence",
            "",
        ];
        assert_eq!(paragraph(&line, Timestamp::UNIX_EPOCH, None), expected);
    }
}
