//! Alerts as JSON, one object a line.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    core::{Alert, Ktime, Status},
    kernel::clock,
    listeners::Listener,
};

/// Lines that may wait for a slow reader. Past that they are dropped and counted: a stuck pipe
/// must not blind the daemon.
const QUEUE: usize = 4096;

/// How long a slow reader may take for the last lines at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stderr,
    File(PathBuf),
}

impl Target {
    /// `-` is stderr.
    pub fn parse(text: &str) -> Self {
        match text {
            "-" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}

/// Writes alerts on a thread of its own.
#[derive(Debug)]
pub struct AlertLog {
    queue: Option<SyncSender<String>>,
    /// Disconnected when the writer has ended.
    written: Receiver<()>,
    dropped: u64,
}

impl AlertLog {
    /// Opens the target. A file is appended to.
    pub fn open(target: &Target) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            Target::Stderr => Box::new(io::stderr()),
            Target::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (queue, lines) = sync_channel::<String>(QUEUE);
        let (ended, written) = sync_channel(0);
        std::thread::Builder::new()
            .name("alert-log".into())
            .spawn(move || {
                write_lines(out, lines.into_iter());
                drop(ended);
            })?;
        Ok(Self {
            queue: Some(queue),
            written,
            dropped: 0,
        })
    }

    /// Queues one line.
    pub fn write(&mut self, alert: &Alert, listener: &Listener) {
        let ts = wall_clock(alert.at, clock::now());
        let line = match serde_json::to_string(&Line::new(alert, listener, ts)) {
            Ok(line) => line,
            Err(error) => {
                log::error!("cannot write an alert as JSON: {error}");
                self.dropped += 1;
                return;
            }
        };
        let sent = self.queue.as_ref().map(|queue| queue.try_send(line));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None = sent {
            self.dropped += 1;
        }
    }

    /// Lines that were dropped because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Drop for AlertLog {
    fn drop(&mut self) {
        // The writer ends when the queue does, after writing what is in it; a reader that is stuck
        // must not keep the daemon, and with it the programs, from going.
        self.queue = None;
        if self.written.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            log::warn!("nobody reads the alert log; its last lines are lost");
        }
    }
}

fn write_lines(mut out: Box<dyn Write + Send>, lines: impl Iterator<Item = String>) {
    for mut line in lines {
        line.push('\n');
        if let Err(error) = out.write_all(line.as_bytes()) {
            log::error!("cannot write to the alert log: {error}");
        }
    }
}

/// An alert as it is written.
#[derive(Serialize)]
pub struct Line<'a> {
    #[serde(serialize_with = "milliseconds")]
    ts: Timestamp,
    status: &'static str,
    alert: &'static str,
    kind: &'static str,
    certainty: &'static str,
    listener: &'a str,
    hop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<&'static str>,
    conn: Conn,
    evidence: Evidence,
    reason: &'a str,
}

#[derive(Serialize)]
struct Conn {
    /// A string: cookies do not fit in the 53 bits of a JSON number.
    cookie: String,
    local: SocketAddr,
    peer: SocketAddr,
    role: &'static str,
    protocol: &'static str,
    age_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Evidence {
    idle_seconds: Option<f64>,
    last_rx_seconds: Option<f64>,
    last_tx_seconds: Option<f64>,
    last_ack_seconds: Option<f64>,
    unacked_bytes: u32,
    retransmits: u32,
    pings_unanswered: u32,
    limit_seconds: f64,
}

impl<'a> Line<'a> {
    /// `ts` is [`Alert::at`] by the wall clock.
    pub fn new(alert: &'a Alert, listener: &'a Listener, ts: Timestamp) -> Self {
        let facts = &alert.facts;
        // The evidence of a verdict that stands may be newer than its last report.
        let seen_at = alert.at.max(facts.at);
        let since = |moment: Option<Ktime>| moment.map(|moment| seconds(seen_at.since(moment)));
        let (status, resolution) = match alert.status {
            Status::Firing => ("firing", None),
            Status::Resolved(resolution) => ("resolved", Some(resolution.as_str())),
        };
        Self {
            ts,
            status,
            alert: alert.kind.alert(),
            kind: alert.kind.as_str(),
            certainty: alert.certainty.as_str(),
            listener: &listener.rules.name,
            hop: alert.hop.as_deref(),
            resolution,
            conn: Conn {
                cookie: facts.conn.0.to_string(),
                local: facts.local,
                peer: facts.peer,
                role: facts.role.as_str(),
                protocol: facts.protocol.as_str(),
                age_seconds: since(facts.established_at),
            },
            evidence: Evidence {
                idle_seconds: since(facts.last_passed()),
                last_rx_seconds: since(facts.rx.last_packet),
                last_tx_seconds: since(facts.tx.last_packet),
                last_ack_seconds: since(facts.ack_progress_at),
                unacked_bytes: facts.unacked_bytes,
                retransmits: facts.retransmits,
                pings_unanswered: facts.pings_unanswered,
                limit_seconds: seconds(alert.limit),
            },
            reason: &alert.reason,
        }
    }
}

/// Seconds with millisecond precision: no clock behind them is better.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// RFC 3339, UTC.
fn milliseconds<S: Serializer>(ts: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{ts:.3}"))
}

/// A moment that lies at or before `now`.
pub(crate) fn wall_clock(at: Ktime, now: Ktime) -> Timestamp {
    at.on_wall_clock(now, Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::core::{
        Certainty, ConnId, Facts, Hop, ListenerId, ListenerRules, OnExpiry, Resolution,
        VerdictKind,
        facts::{Activity, Protocol, Role},
    };

    fn alert() -> Alert {
        let at = Ktime(100_000_000_000);
        Alert {
            status: Status::Firing,
            kind: VerdictKind::Expired,
            certainty: Certainty::Suspected,
            listener: ListenerId(0),
            hop: Some("lb".into()),
            at,
            since: Ktime(99_000_000_000),
            limit: Duration::from_secs(6),
            facts: Box::new(Facts {
                established_at: Some(Ktime(80_000_000_000)),
                rx: Activity {
                    last_packet: Some(Ktime(93_000_000_000)),
                    ..Activity::default()
                },
                ..Facts::new(
                    at,
                    ConnId(u64::MAX),
                    ListenerId(0),
                    Role::Server,
                    Protocol::WebSocket,
                    "10.0.0.1:8080".parse().expect("an address"),
                    "[fd00::1]:5000".parse().expect("an address"),
                )
            }),
            reason: "quote \" and\nnewline".into(),
        }
    }

    fn listener() -> Listener {
        Listener {
            rules: ListenerRules::new(
                "8080",
                Some(Hop::new("lb", Duration::from_secs(6), OnExpiry::Silent)),
            ),
            ports: 8080..=8080,
            remote: false,
        }
    }

    #[test]
    fn an_alert_is_one_line_with_the_documented_fields() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("alerts");
        let mut log = AlertLog::open(&Target::File(path.clone())).expect("a writable file");
        log.write(&alert(), &listener());
        let mut resolved = alert();
        resolved.status = Status::Resolved(Resolution::Recovered);
        log.write(&resolved, &listener());
        assert_eq!(log.dropped(), 0);
        drop(log);

        let text = std::fs::read_to_string(path).expect("the log");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(
            lines.len(),
            2,
            "a newline in a reason stays inside its line"
        );
        let firing = &lines[0];
        assert_eq!(firing["status"], "firing");
        assert_eq!(firing["alert"], "zombie");
        assert_eq!(firing["kind"], "expired");
        assert_eq!(firing["certainty"], "suspected");
        assert_eq!(firing["listener"], "8080");
        assert_eq!(firing["hop"], "lb");
        assert_eq!(firing["conn"]["cookie"], "18446744073709551615");
        assert_eq!(firing["conn"]["peer"], "[fd00::1]:5000");
        assert_eq!(firing["conn"]["age_seconds"], 20.0);
        assert_eq!(firing["evidence"]["idle_seconds"], 7.0);
        assert_eq!(
            firing["evidence"]["last_tx_seconds"],
            serde_json::Value::Null
        );
        assert_eq!(firing["evidence"]["limit_seconds"], 6.0);
        assert!(firing.get("resolution").is_none());
        assert_eq!(lines[1]["resolution"], "recovered");
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_does_not_hold_the_daemon() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let mut log = AlertLog::open(&Target::File(path.into())).expect("a writable pipe");
        for _ in 0..QUEUE + 1_000 {
            log.write(&alert(), &listener());
        }
        assert!(log.dropped() > 0, "a pipe holds 64 KiB, the queue the rest");
        let (ended, dropped) = sync_channel::<()>(0);
        std::thread::spawn(move || {
            drop(log);
            drop(ended);
        });
        assert_eq!(
            dropped.recv_timeout(LAST_WORDS * 10),
            Err(RecvTimeoutError::Disconnected)
        );
        drop(reader);
    }

    #[test]
    fn a_directory_is_no_alert_log() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = Target::parse(dir.path().to_str().expect("UTF-8"));
        assert!(AlertLog::open(&target).is_err());
    }

    #[test]
    fn time_stamps_are_rfc_3339_in_utc() {
        let stamp = wall_clock(Ktime(1), Ktime(2_000_000_001));
        let line = serde_json::to_value(Line::new(&alert(), &listener(), stamp)).expect("JSON");
        let stamp = line["ts"].as_str().expect("a string");
        let parsed: Timestamp = stamp.parse().expect("RFC 3339");
        let ago = Timestamp::now().duration_since(parsed);
        assert!((2..4).contains(&ago.as_secs()), "{stamp}");
        assert!(stamp.ends_with('Z'), "{stamp}");
    }
}
