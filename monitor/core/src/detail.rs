//! Everything known about one connection, beyond the facts that the rules need.
//!
//! It is read on request and never stored in the table.

use std::time::Duration;

pub use monitor_common::tls::TlsFacts;

use super::{event::CloseHow, facts::Facts, time::Ktime};

/// One connection in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    pub facts: Facts,
    /// All retransmissions, with progress or without.
    pub retransmits: u32,
    pub rx: DirectionTraffic,
    pub tx: DirectionTraffic,
    /// Of a connection whose TLS records are followed.
    pub tls: Option<TlsFacts>,
}

/// What one direction carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionTraffic {
    /// Modulo 2³².
    pub frames: u32,
    /// Payload of frames; modulo 2⁴⁸ while the connection is open.
    pub payload_bytes: u64,
    pub last_data_frame: Option<Ktime>,
    /// Sent in this direction. Under TLS, here and below, those of an inferred heartbeat.
    pub pings: u32,
    pub pings_unanswered: u32,
    pub last_ping: Option<Ktime>,
    /// Round-trip time of the last answered ping in this direction.
    pub ping_rtt: Option<Duration>,
    /// Smoothed interval between pings in this direction, with a resolution of 17 ms; saturates at
    /// 18 min. `None` before the second ping.
    pub ping_interval: Option<Duration>,
    /// Smoothed deviation from that interval; saturates at 4.3 s.
    pub ping_jitter: Option<Duration>,
}

/// A closed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub detail: Detail,
    pub how: CloseHow,
}
