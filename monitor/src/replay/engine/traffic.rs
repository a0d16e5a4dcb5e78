//! Processes a segment of an established connection like the hook, the tracepoints and `emit.rs` of the
//! kernel programs, in the same order.

use std::time::Duration;

use monitor_common::{
    Direction,
    event::{EventKind, VitalEvent, head_kind},
    flow::notable,
    segment::{Segment, tcp_flags},
    snapshot::{Snapshot, protocol},
};

use super::{LINGER, Replay, TablePlace, Tuple};
use crate::{
    decode,
    records::{
        connection_summary::{ConnectionEnd, ConnectionSummary, SummarySource},
        frames::FrameRecord,
    },
    replay::{
        connection::ReplayedConnection,
        headers::TcpSegment,
        report::{ReplayRecord, wall_clock},
        upgrade,
    },
};
use monitor_core::{ConnId, Correlator, Event, Ktime};

/// A segment with the captured part of its payload.
#[derive(Clone, Copy)]
pub(super) struct ParsedSegment<'a> {
    segment: &'a Segment,
    payload: &'a [u8],
}

impl<'a> From<&'a TcpSegment<'a>> for ParsedSegment<'a> {
    fn from(tcp: &'a TcpSegment<'a>) -> Self {
        Self {
            segment: &tcp.segment,
            payload: tcp.payload,
        }
    }
}

impl Replay {
    /// Processes the data of the SYN of a connection that is now established.
    pub(super) fn early_traffic(&mut self, number: u64, tuple: Tuple) {
        let connection = self.connections.get_mut(&number);
        if let Some((direction, segment, payload)) =
            connection.and_then(ReplayedConnection::take_early)
        {
            let piece = ParsedSegment {
                segment: &segment,
                payload: &payload,
            };
            self.traffic(number, tuple, direction, piece);
        }
    }

    pub(super) fn traffic(
        &mut self,
        number: u64,
        tuple: Tuple,
        direction: Direction,
        piece: ParsedSegment<'_>,
    ) {
        let now = self.clock;
        let ParsedSegment { segment, payload } = piece;
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let place = usize::from(connection.stream.flow.snapshot.listener);
        let (stats, limits) = (&mut self.stats[place], &self.limits[place]);
        let is_repeated = connection.is_repeated(direction, segment);
        self.frames.0 = number;
        self.frames.1.clear();
        let taken =
            connection
                .stream
                .take(direction, segment, payload, now, limits, stats, |frame| {
                    self.frames.1.push(*frame);
                });
        let wakes = is_repeated && connection.stream.flow.retransmit(stats);

        let s = &mut connection.stream.flow.snapshot;
        s.published_at = now;
        let core = &mut self.core;
        let mut notes = taken.notes;
        if taken.head == head_kind::REQUEST && notes & notable::DISMISSED != 0 {
            // An assumed stream ends before its upgrade request.
            report(core, notes, now, s);
            notes = 0;
        }
        if taken.head != 0 {
            let head = payload.get(taken.head_at as usize..).unwrap_or_default();
            match upgrade::event(taken.head, head, now, s) {
                Ok(event) => core.handle_event(event),
                Err(error) => log::error!("connection {number}: {error}"),
            }
        }
        report(core, notes, now, s);
        if wakes {
            emit(core, EventKind::Retransmit, 0, now, s);
        }
        let is_reset = segment.has(tcp_flags::RST);
        if is_reset {
            match direction {
                Direction::Rx => s.rst_rx = 1,
                Direction::Tx => s.rst_tx = 1,
            }
            emit(core, EventKind::Reset, 0, now, s);
        }
        let is_over = is_reset || connection.is_finished();
        if notes & notable::OPENED == 0 {
            self.emit_frames();
        }
        // The content of the segment that opens is reported after the opening and before the states it
        // causes.
        self.act();
        self.emit_frames();
        if is_over {
            self.report_close(number);
            let forget_at = now.saturating_add(LINGER);
            self.tuples.insert(tuple, TablePlace::Ended { forget_at });
            self.lingering.push_back((forget_at, tuple));
        }
    }

    /// The end of a connection was missed: another one has its addresses and ports.
    pub(super) fn supersede(&mut self, number: u64) {
        if self
            .connections
            .get(&number)
            .is_some_and(ReplayedConnection::is_closing)
        {
            return self.report_close(number);
        }
        if let Some(connection) = self.connections.remove(&number) {
            self.core.handle_event(Event::Gone {
                conn: ConnId(number),
                at: Ktime(self.clock),
            });
            self.act();
            self.emit_connection(connection, ConnectionEnd::Missed);
        }
    }

    /// Reports a connection that is closed, or its state at the recording's end.
    pub(super) fn emit_connection(
        &mut self,
        mut connection: ReplayedConnection,
        end: ConnectionEnd,
    ) {
        let Some(detail) = connection.detail() else {
            self.summary.other_connections += u64::from(connection.is_established());
            return;
        };
        let facts = &detail.facts;
        connection
            .stream
            .end(&mut self.stats[facts.listener.index()]);
        let totals = &connection.stream.totals;
        let verdicts = match end {
            ConnectionEnd::Open => self.core.verdicts(facts.conn),
            ConnectionEnd::Closed(_) | ConnectionEnd::Missed => std::mem::take(&mut self.verdicts),
        };
        let source = SummarySource {
            conn: facts.conn,
            listener: &self.listener(facts.listener).rules.name,
            protocol: facts.protocol,
            end,
            at: Ktime(self.clock),
            detail: Some(&detail),
            totals: Some(totals),
            verdicts: &verdicts,
        };
        let record = ConnectionSummary::new(&source, wall_clock);
        self.summary.connections += 1;
        self.summary.open += u64::from(end == ConnectionEnd::Open);
        let [rx, tx] = totals.unsynced_bytes.map(|bytes| bytes.get());
        self.summary.rx.unsynced_bytes += rx;
        self.summary.tx.unsynced_bytes += tx;
        self.records
            .push_back(ReplayRecord::Connection(Box::new(record)));
    }

    /// The socket reached CLOSE.
    fn report_close(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else {
            return;
        };
        let s = &connection.stream.flow.snapshot;
        let (how, at) = (s.close_how(), Ktime(self.clock));
        if s.protocol == protocol::UPGRADING {
            let conn = ConnId(number);
            self.core.handle_event(Event::Dismissed { conn, at });
        }
        emit(&mut self.core, EventKind::Closed, how as u32, at.0, s);
        self.act();
        self.emit_connection(connection, ConnectionEnd::Closed(how));
    }

    /// Reports, once, the frames that the current segment completed.
    pub(super) fn emit_frames(&mut self) {
        let (number, frames) = &mut self.frames;
        let number = *number;
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let listener = &self.listeners[usize::from(connection.stream.flow.snapshot.listener)];
        for seen in frames.drain(..) {
            let header = &seen.header;
            let summary = &mut self.summary;
            let traffic = match seen.direction {
                Direction::Rx => &mut summary.rx,
                Direction::Tx => &mut summary.tx,
            };
            traffic.frames += 1;
            traffic.payload_bytes = traffic.payload_bytes.wrapping_add(header.payload_len);
            let rtt = u64::from(seen.ping_rtt_us);
            self.records.push_back(ReplayRecord::Frame(FrameRecord {
                ts: wall_clock(Ktime(self.clock)),
                cookie: ConnId(number),
                listener: listener.rules.name.clone(),
                local: connection.local,
                peer: connection.peer,
                direction: seen.direction,
                fin: header.fin(),
                rsv: header.rsv(),
                opcode: header.opcode(),
                masked: header.masked(),
                length: header.payload_len,
                ping_rtt: (rtt != 0).then(|| Duration::from_micros(rtt)),
                close_code: (header.close_code() != 0).then(|| header.close_code()),
            }));
        }
    }
}

/// Reports what is notable about a segment.
fn report(core: &mut Correlator, notes: u32, now: u64, snapshot: &Snapshot) {
    if notes & notable::DISMISSED != 0 {
        core.handle_event(Event::Dismissed {
            conn: ConnId(snapshot.cookie),
            at: Ktime(now),
        });
        return;
    }
    for (note, kind) in notable::RECORDS {
        if notes & note != 0 {
            emit(core, kind, 0, now, snapshot);
        }
    }
}

/// Passes a record of a watched connection to the core as the daemon does.
fn emit(core: &mut Correlator, kind: EventKind, detail: u32, at: u64, snapshot: &Snapshot) {
    if !snapshot.is_watched() {
        return;
    }
    let event = VitalEvent {
        at,
        kind: kind as u32,
        detail,
        snapshot: *snapshot,
    };
    match decode::event(&event) {
        Ok(event) => core.handle_event(event),
        Err(error) => log::error!("connection {}: {error}", snapshot.cookie),
    }
}
