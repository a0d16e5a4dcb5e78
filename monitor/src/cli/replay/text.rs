//! Text output: frames and alerts in order, then a table of connections and a summary.

use std::io::{self, Write};

use super::Report;
use crate::{
    records::frames::{Clock, FrameLine},
    replay::{ConnectionSummary, PerDirection, Replay, ReplayRecord, Summary},
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
            ReplayRecord::Frame(frame) => writeln!(self.out, "{}", FrameLine(frame)),
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
        "conn",
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
    ]
    .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(connections.iter().map(row))
        .collect();
    let mut widths = [0; 11];
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

fn row(connection: &ConnectionSummary) -> [String; 11] {
    let begun = connection.established.or(connection.opened);
    let lasted = begun
        .zip(connection.closed)
        .map(|(from, to)| format!("{:.1} s", to.duration_since(from).as_secs_f64()));
    let close = connection.close.map(|close| match close.code {
        Some(code) => format!("{code} ({})", close.initiator),
        None => format!("none ({})", close.initiator),
    });
    let frames = |counts: &std::collections::BTreeMap<&str, u64>| counts.values().sum::<u64>();
    let unknown = || "-".to_owned();
    [
        connection.conn.clone(),
        connection.listener.clone(),
        connection.role.to_owned(),
        connection.peer.to_string(),
        connection.protocol.to_owned(),
        begun.map_or_else(unknown, |at| format!("{at:.3}")),
        lasted.unwrap_or_else(unknown),
        connection.how.unwrap_or("open").to_owned(),
        close.unwrap_or_else(unknown),
        format!(
            "{}/{}",
            frames(&connection.frames.rx),
            frames(&connection.frames.tx)
        ),
        pair(&connection.payload_bytes),
    ]
}

fn write_summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let mut lines = Vec::new();
    if let (Some(from), Some(to)) = (summary.from, summary.to) {
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
        lines.push(("  passed over", format!("{packets} {}", reason.as_str())));
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
    lines.push(("frames rx/tx", pair(&summary.frames)));
    lines.push(("payload rx/tx", pair(&summary.payload_bytes)));
    if summary.unsynced_bytes != PerDirection::default() {
        lines.push(("unsynced rx/tx", pair(&summary.unsynced_bytes)));
    }
    lines.push(("alerts", summary.alerts.to_string()));
    writeln!(out)?;
    for (name, value) in lines {
        writeln!(out, "{name:<16}{value}")?;
    }
    Ok(())
}

fn pair(pair: &PerDirection<u64>) -> String {
    format!("{}/{}", pair.rx, pair.tx)
}
