//! Text output: frames and alerts in order, then a table of connections and a summary.

use std::io::{self, Write};

use super::Report;
use crate::{
    records::{
        connection_summary::ConnectionSummary,
        frames::{Clock, FrameLayout, FrameRow},
        recording_summary::RecordingSummary,
    },
    replay::{Replay, ReplayRecord},
};
use monitor_core::{Alert, Subject, Transition, VerdictKind};

pub(super) struct TextReport<W> {
    out: W,
    frames: bool,
    /// For the table at the end.
    connections: Vec<ConnectionSummary>,
}

impl<W: Write> TextReport<W> {
    pub(super) fn new(out: W, frames: bool) -> Self {
        Self {
            out,
            frames,
            connections: Vec::new(),
        }
    }
}

impl<W: Write> Report for TextReport<W> {
    fn record(&mut self, replay: &Replay, record: &ReplayRecord) -> io::Result<()> {
        match record {
            ReplayRecord::Frame(_) | ReplayRecord::State(_) if !self.frames => Ok(()),
            ReplayRecord::Frame(frame) => {
                let layout = FrameLayout::Recorded;
                writeln!(self.out, "{}", FrameRow { frame, layout })
            }
            ReplayRecord::State(transition) => write_state(&mut self.out, replay, transition),
            ReplayRecord::Alert(alert) => write_alert(&mut self.out, replay, alert),
            ReplayRecord::Connection(connection) => {
                self.connections.push((**connection).clone());
                Ok(())
            }
        }
    }

    /// The warning is already on stderr.
    fn warning(&mut self, _message: &str) -> io::Result<()> {
        Ok(())
    }

    fn summary(&mut self, replay: &Replay) -> io::Result<()> {
        write_table(&mut self.out, &self.connections)?;
        write_summary(&mut self.out, replay.summary())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_state(out: &mut impl Write, replay: &Replay, transition: &Transition) -> io::Result<()> {
    writeln!(
        out,
        "{}  {:<9}  {}: {}",
        Clock(replay.wall_clock(transition.at)),
        transition.conn.0,
        transition.to.as_str(),
        transition.reason
    )
}

fn write_alert(out: &mut impl Write, replay: &Replay, alert: &Alert) -> io::Result<()> {
    let clock = Clock(replay.wall_clock(alert.at));
    let listener = &replay.listener(alert.listener).rules.name;
    let (subject, reason) = (&alert.subject, &alert.reason);
    let state = match (alert.resolution(), subject.verdict()) {
        (Some(resolution), _) => resolution.as_str(),
        (None, Some((_, certainty))) => certainty.as_str(),
        (None, None) => alert.status.as_str(),
    };
    match subject {
        Subject::Connection(verdict) => {
            let (kind, facts) = (full_name(verdict.kind), &verdict.facts);
            let (conn, peer) = (facts.conn.0, facts.peer);
            writeln!(
                out,
                "{clock}  {conn:<9}  {peer}  ALERT {kind} {state}: {reason}"
            )
        }
        Subject::Group(group) => {
            let (kind, count) = (full_name(group.kind), group.count);
            write!(
                out,
                "{clock}  -          ALERT {kind} {state}: {count} more on {listener}, such as"
            )?;
            for example in &group.examples {
                write!(out, " {}", example.subject.facts.conn.0)?;
            }
            writeln!(out)
        }
        Subject::Listener(_) | Subject::Storm(_) | Subject::Thrash(_) => {
            let state = match subject {
                Subject::Storm(storm) => storm.phase.as_str(),
                _ => state,
            };
            let name = subject.name();
            writeln!(
                out,
                "{clock}  -          ALERT {name} {state} on {listener}: {reason}"
            )
        }
    }
}

fn full_name(kind: VerdictKind) -> String {
    if kind.is_zombie() {
        format!("zombie/{}", kind.as_str())
    } else {
        kind.as_str().to_owned()
    }
}

fn write_table(out: &mut impl Write, connections: &[ConnectionSummary]) -> io::Result<()> {
    if connections.is_empty() {
        return Ok(());
    }
    let head = [
        "cookie",
        "listener",
        "role",
        "peer",
        "protocol",
        "opened",
        "lasted",
        "end",
        "code",
        "frames rx/tx",
        "bytes rx/tx",
        // Last, because its text is a sentence.
        match connections.iter().any(|it| it.tls.is_some()) {
            true => "tls",
            false => "",
        },
    ]
    .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(connections.iter().map(row))
        .collect();
    let mut widths = [0; 12];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    writeln!(out)?;
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(connection: &ConnectionSummary) -> [String; 12] {
    let begun = connection.established_at.or(connection.opened_at);
    let lasted = begun
        .zip(connection.closed_at)
        .map(|(from, to)| format!("{:.1} s", to.duration_since(from).as_secs_f64()));
    let close = connection.close.map(|close| match close.code {
        Some(code) => format!("{code} ({})", close.initiator.sender()),
        None => format!("none ({})", close.initiator.sender()),
    });
    let unknown = || "-".to_owned();
    let number = |n: Option<u64>| n.map_or_else(unknown, |n| n.to_string());
    let pair = |rx, tx| format!("{}/{}", number(rx), number(tx));
    let (rx, tx) = (&connection.rx, &connection.tx);
    [
        connection.cookie.0.to_string(),
        connection.listener.clone(),
        connection.role.unwrap_or("-").to_owned(),
        connection
            .peer
            .map_or_else(unknown, |peer| peer.to_string()),
        connection.protocol.to_owned(),
        begun.map_or_else(unknown, |at| format!("{at:.3}")),
        lasted.unwrap_or_else(unknown),
        connection.how.unwrap_or("open").to_owned(),
        close.unwrap_or_else(unknown),
        pair(rx.frames, tx.frames),
        pair(rx.payload_bytes, tx.payload_bytes),
        connection
            .tls
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
    ]
}

fn write_summary(out: &mut impl Write, summary: &RecordingSummary) -> io::Result<()> {
    let mut lines = Vec::new();
    if let (Some(from), Some(to)) = (summary.first_packet_at, summary.last_packet_at) {
        let lasted = to.duration_since(from).as_secs_f64();
        lines.push(("time", format!("{from:.6} to {to:.6}, {lasted:.3} s")));
    }
    lines.push((
        "packets",
        format!(
            "{}, of watched connections {}",
            summary.packets, summary.segments
        ),
    ));
    for (reason, packets) in summary.skipped.iter() {
        lines.push(("  skipped", format!("{packets} {}", reason.as_str())));
    }
    for (link, packets) in &summary.unread_links {
        lines.push(("  link type", format!("{link}, {packets} not read")));
    }
    if summary.out_of_order > 0 {
        lines.push(("  out of order", summary.out_of_order.to_string()));
    }
    if summary.untimed > 0 {
        lines.push(("  without time", summary.untimed.to_string()));
    }
    lines.push((
        "connections",
        format!(
            "{}, open at the end {}; others on these ports {}",
            summary.connections, summary.open, summary.other_connections
        ),
    ));
    if summary.forgotten_outgoing > 0 {
        lines.push(("  forgotten", summary.forgotten_outgoing.to_string()));
    }
    let (rx, tx) = (&summary.rx, &summary.tx);
    let pair = |rx: u64, tx: u64| format!("{rx}/{tx}");
    lines.push(("frames rx/tx", pair(rx.frames, tx.frames)));
    lines.push(("payload rx/tx", pair(rx.payload_bytes, tx.payload_bytes)));
    if rx.unsynced_bytes + tx.unsynced_bytes > 0 {
        let unsynced = pair(rx.unsynced_bytes, tx.unsynced_bytes);
        lines.push(("unsynced rx/tx", unsynced));
    }
    lines.push(("alerts", summary.alerts.to_string()));
    writeln!(out)?;
    for (name, value) in lines {
        writeln!(out, "{name:<16}{value}")?;
    }
    Ok(())
}
