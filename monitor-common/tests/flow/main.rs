//! What packets change in a flow: idle gaps, acknowledgements, probes, windows, endings.

mod acknowledgements;
mod heartbeats;
mod idle_gaps;
mod life;
mod responses;
#[path = "../ws/mod.rs"]
mod ws;

use monitor_common::{
    Direction,
    flow::notable,
    idle_gap_scale,
    listener::ListenerLimits,
    moment::{Moment, rounded, ticks_between},
    replay::Connection,
    segment::{Segment, tcp_flags},
    snapshot::{CLOSED_WINDOW_REPORT, TRY_APART, TRY_QUEUED, protocol},
    stats::{Counter, ListenerStats},
};
use wire::{REQUEST, RESPONSE};
use ws::FILL;

const SECOND: u64 = 1_000_000_000;

const LIMIT: u64 = 60 * SECOND;

/// A server's new socket, and a clock.
struct Socket {
    connection: Connection,
    stats: ListenerStats,
    limits: ListenerLimits,
    now: u64,
}

impl Socket {
    fn established() -> Self {
        Self {
            connection: Connection::EMPTY,
            stats: ListenerStats::EMPTY,
            limits: ListenerLimits {
                idle_limit_ns: LIMIT,
            },
            now: SECOND,
        }
    }

    /// After the upgrade, with nothing outstanding: client at 1000, server at 5000.
    fn upgraded() -> Self {
        let mut socket = Self::established();
        socket.rx(
            segment(1000 - REQUEST.len() as u32, 5000 - RESPONSE.len() as u32),
            REQUEST,
        );
        socket.tx(segment(5000 - RESPONSE.len() as u32, 1000), RESPONSE);
        socket.rx(segment(1000, 5000), b"");
        assert_eq!(
            socket.connection.flow.snapshot.protocol,
            protocol::WEBSOCKET
        );
        assert_eq!(socket.connection.flow.snapshot.outstanding(), 0);
        socket
    }

    fn wait(&mut self, nanos: u64) -> &mut Self {
        self.now += nanos;
        self
    }

    fn rx(&mut self, segment: Segment, payload: &[u8]) -> u32 {
        self.take(Direction::Rx, segment, payload)
    }

    fn tx(&mut self, segment: Segment, payload: &[u8]) -> u32 {
        self.take(Direction::Tx, segment, payload)
    }

    /// The survived idle gaps in seconds, with the resolution of their slots.
    fn survived(&self) -> Vec<u64> {
        let seconds = |slot| idle_gap_scale::bounds(slot).1 / SECOND;
        filled(&self.stats.idle_gaps_survived)
            .into_iter()
            .flat_map(|(slot, n)| (0..n).map(move |_| seconds(slot)))
            .collect()
    }

    fn take(&mut self, direction: Direction, segment: Segment, payload: &[u8]) -> u32 {
        let segment = Segment {
            payload_len: payload.len() as u32,
            ..segment
        };
        self.connection
            .take(
                direction,
                &segment,
                payload,
                self.now,
                &self.limits,
                &mut self.stats,
                |_| {},
            )
            .notes
    }
}

fn segment(seq: u32, ack: u32) -> Segment {
    Segment {
        ack,
        ..ws::data_segment(seq, 0)
    }
}

fn flagged(seq: u32, ack: u32, flags: u16) -> Segment {
    Segment {
        flags: tcp_flags::ACK | flags,
        ..segment(seq, ack)
    }
}

fn windowed(seq: u32, ack: u32, window: u16) -> Segment {
    Segment {
        window,
        ..segment(seq, ack)
    }
}

/// The slots that are not empty, and their counts.
fn filled(slots: &[Counter]) -> Vec<(usize, u64)> {
    let counts = slots.iter().map(Counter::get).enumerate();
    counts.filter(|(_, n)| *n > 0).collect()
}

/// Payload inside a frame that began long ago: no header, and no event.
const DATA: &[u8] = &[FILL; 100];
