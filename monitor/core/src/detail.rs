//! What a person asks about one connection, beyond the facts that the rules need.
//!
//! It is read when somebody asks and never kept: the table holds none of it.

use std::time::Duration;

use super::{event::CloseHow, facts::Facts, time::Ktime};

/// One connection in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    pub facts: Facts,
    pub origin: Origin,
    /// `None` where no packet was seen.
    pub cgroup_id: Option<u64>,
    /// All retransmissions, with progress or without.
    pub retransmits: u32,
    pub rx: DirectionTraffic,
    pub tx: DirectionTraffic,
}

/// How a connection came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its birth was seen.
    Birth,
    /// Older than the programs; met at a packet.
    Packet,
    /// Older than the programs; found by sock_diag, silent since.
    SockDiag,
}

impl Origin {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Birth => "birth",
            Self::Packet => "packet",
            Self::SockDiag => "sock_diag",
        }
    }
}

/// What one direction carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionTraffic {
    /// Modulo 2³².
    pub frames: u32,
    /// Of frames; of an open connection modulo 2⁴⁸.
    pub payload_bytes: u64,
    pub last_data_frame: Option<Ktime>,
    /// Sent in this direction.
    pub pings: u32,
    pub pings_unanswered: u32,
    pub last_ping: Option<Ktime>,
    /// Of the last ping in this direction that was answered.
    pub ping_rtt: Option<Duration>,
    /// Between the last pings in this direction, smoothed, to 17 ms; 18 min stand for more. `None`
    /// before the second ping.
    pub ping_interval: Option<Duration>,
    /// How far they stray from that, smoothed; 4.3 s stand for more.
    pub ping_jitter: Option<Duration>,
}

/// A connection that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub detail: Detail,
    pub how: CloseHow,
}
