//! What the kernel knows about one flow at one moment, in the core's own types.
//!
//! `kernel::decode` converts the wire's `Snapshot` to [`Facts`] once and checks it. Beyond that
//! point no zero means "never" and no bare integer is a time.

use std::{net::SocketAddr, time::Duration};

pub use monitor_common::Direction;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{loss::Loss, time::Ktime};

/// A socket, identified by its kernel cookie: unique until reboot, unlike a socket pointer or a
/// 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A configured group of ports, identified by its index in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

impl ListenerId {
    /// Its index among the watched listeners.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Which end of the WebSocket this host's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    Server,
    Client,
}

impl Role {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What the bytes of a flow are known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Protocol {
    /// A `101 Switching Protocols` or a frame was seen.
    WebSocket,
    /// TLS: frames are unknown. Of pings, only those of a heartbeat inferred from the records are known.
    Opaque,
    /// Older than the monitor, and silent or out of sync since.
    Assumed,
}

impl Protocol {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What the records of a TLS connection show of its heartbeat.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum InferredHeartbeat {
    Learned,
    /// None was recognised yet.
    #[serde(rename = "none")]
    #[strum(serialize = "none")]
    Unlearned,
    /// The records cannot show one.
    Refused,
}

impl InferredHeartbeat {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a connection became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Origin {
    /// Its establishment was seen.
    Establishment,
    /// Older than the programs; first seen at a packet.
    Packet,
    /// Older than the programs; found by sock_diag, silent since.
    SockDiag,
}

impl Origin {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One flow at the moment [`Facts::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When the kernel (or sock_diag) took this snapshot.
    pub at: Ktime,
    pub conn: ConnId,
    pub listener: ListenerId,
    pub role: Role,
    pub protocol: Protocol,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// A TCP subflow of an MPTCP connection (RFC 8684), which may survive on another subflow.
    pub is_subflow: bool,
    pub origin: Origin,
    /// The cgroup in which the socket, or the listener that accepted it, was created. It never changes.
    /// `None` until the kernel reports it.
    pub cgroup_id: Option<u64>,
    /// When TCP reached ESTABLISHED; `None` for a socket older than the monitor.
    pub established_at: Option<Ktime>,
    /// When the connection became what `protocol` says: the 101 passed, TLS began, or frames were
    /// recognised.
    pub opened_at: Option<Ktime>,
    pub rx: DirectionActivity,
    pub tx: DirectionActivity,
    /// Bytes sent, but not acknowledged.
    pub unacked_bytes: u32,
    /// Since when bytes have been outstanding without any ack progress; `None` when none are.
    pub unacked_since: Option<Ktime>,
    /// When an acknowledgement last covered new bytes.
    pub ack_progress_at: Option<Ktime>,
    /// Retransmissions since the last ack progress.
    pub retransmits: u32,
    /// The share of the recently acknowledged bytes that had been sent more than once.
    pub loss: Loss,
    /// Transmissions that require an answer (payload, keepalive probes, retransmissions) since the
    /// last packet from the peer.
    pub unanswered_transmissions: u32,
    /// When the first of them was sent.
    pub unanswered_since: Option<Ktime>,
    /// Pings from this host without a pong. With [`Protocol::Opaque`], here and below, the pings of a
    /// heartbeat that was inferred from TLS records.
    pub pings_unanswered: u32,
    /// The first try, as `unresponsive` calls it: when the first of those pings left after which
    /// the peer has sent no new payload, although it could have.
    pub first_try: Option<Ktime>,
    /// When the next ping left that is a separate try, not sent together with the first.
    pub second_try: Option<Ktime>,
    /// Since when this host advertises a window of 0; `None` while it is open.
    pub own_window_closed_at: Option<Ktime>,
    /// Since when the peer advertises a window of 0; `None` while it is open, and in a snapshot also
    /// while this host's is closed.
    pub peer_window_closed_at: Option<Ktime>,
    /// Round-trip time of the last answered ping from this host.
    pub ping_rtt: Option<Duration>,
    /// Smoothed interval between pings from this host.
    pub ping_interval: Option<Duration>,
    /// The last completed idle gap of at least a second, or longer than the listener's idle limit.
    /// If this host ended it and nothing was heard since, the longest such gap.
    pub last_idle_gap: Option<IdleGap>,
    /// Of a TLS connection whose records are followed.
    pub heartbeat: Option<InferredHeartbeat>,
    /// The first close frame.
    pub close: Option<Close>,
    /// The first close frame or FIN, whichever came first.
    pub closing: Option<Closing>,
    pub fin_rx: bool,
    pub fin_tx: bool,
    pub rst_rx: bool,
    pub rst_tx: bool,
}

/// The latest activity in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionActivity {
    /// Any TCP segment.
    pub last_packet: Option<Ktime>,
    /// A segment with data bytes.
    pub last_payload: Option<Ktime>,
    /// A WebSocket frame of any kind.
    pub last_frame: Option<Ktime>,
    /// A data frame: text, binary or continuation.
    pub last_message: Option<Ktime>,
}

/// A completed idle gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleGap {
    /// The last activity before it.
    pub from: Ktime,
    /// The packet that ended it.
    pub to: Ktime,
    /// The side that ended it: [`Direction::Rx`] proves the path alive, [`Direction::Tx`] only
    /// tests it.
    pub ended_by: Direction,
}

/// A close frame (RFC 6455 §5.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The side that sent the first one, seen from this host.
    pub initiator: Direction,
    /// `None` for a close frame without a body.
    pub code: Option<u16>,
}

/// What began the close of a connection (RFC 6455 §7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    pub at: Ktime,
    pub by: ClosingBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingBy {
    CloseFrame(Close),
    /// The side that sent it.
    Fin(Direction),
}

impl Facts {
    /// A flow of which only the identity is known.
    pub fn new(
        at: Ktime,
        conn: ConnId,
        listener: ListenerId,
        role: Role,
        protocol: Protocol,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        Self {
            at,
            conn,
            listener,
            role,
            protocol,
            local,
            peer,
            is_subflow: false,
            origin: Origin::SockDiag,
            cgroup_id: None,
            established_at: None,
            opened_at: None,
            rx: DirectionActivity::default(),
            tx: DirectionActivity::default(),
            unacked_bytes: 0,
            unacked_since: None,
            ack_progress_at: None,
            retransmits: 0,
            loss: Loss::default(),
            unanswered_transmissions: 0,
            unanswered_since: None,
            pings_unanswered: 0,
            first_try: None,
            second_try: None,
            own_window_closed_at: None,
            peer_window_closed_at: None,
            ping_rtt: None,
            ping_interval: None,
            last_idle_gap: None,
            heartbeat: None,
            close: None,
            closing: None,
            fin_rx: false,
            fin_tx: false,
            rst_rx: false,
            rst_tx: false,
        }
    }

    /// Time of the last packet in either direction, or of the establishment if that is later.
    pub fn last_activity(&self) -> Option<Ktime> {
        self.rx
            .last_packet
            .max(self.tx.last_packet)
            .max(self.established_at)
    }

    /// Time of the last packet known to have passed the path. Unanswered packets from this host may
    /// have been lost.
    pub fn last_passed(&self) -> Option<Ktime> {
        let sent = self
            .tx
            .last_packet
            .filter(|_| self.unanswered_transmissions == 0);
        self.rx.last_packet.max(sent).max(self.established_at)
    }

    /// True if neither side has begun to close.
    pub fn is_open(&self) -> bool {
        !(self.fin_rx || self.fin_tx || self.rst_rx || self.rst_tx)
    }
}

#[cfg(test)]
impl Facts {
    /// An open WebSocket on the first listener, established at `at` and without traffic.
    pub(super) fn just_opened(conn: u64, at: Ktime) -> Self {
        Self {
            origin: Origin::Establishment,
            established_at: Some(at),
            ..Self::new(
                at,
                ConnId(conn),
                ListenerId(0),
                Role::Server,
                Protocol::WebSocket,
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                SocketAddr::from(([127, 0, 0, 1], 40_000)),
            )
        }
    }
}
