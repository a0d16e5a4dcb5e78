//! The facts of one socket that are published to the daemon.
//!
//! Egress runs under the socket lock and ingress in softirq, so the two can run at the same time on two
//! CPUs. So every field has one writer (documented where it isn't obvious), and values that need both sides
//! are derived on reading.

use crate::{
    Direction,
    event::CloseHow,
    moment::{Moment, TICK},
    tls::TlsFacts,
};

/// The protocol of a flow, if known.
pub mod protocol {
    /// Nothing decisive has passed yet.
    pub const UNKNOWN: u8 = 0;
    /// HTTP/1 without an upgrade so far: never reported.
    pub const HTTP: u8 = 1;
    /// A 101 passed, or frames were recognised.
    pub const WEBSOCKET: u8 = 2;
    /// TLS.
    pub const OPAQUE: u8 = 3;
    /// Older than the monitor; nothing but idle clocks is known.
    pub const ASSUMED: u8 = 4;
    /// The end was reported. A reset after the close, or a packet that another CPU is processing, must not
    /// reopen the flow.
    pub const GONE: u8 = 5;
    /// A WebSocket upgrade was requested and has no answer yet.
    pub const UPGRADING: u8 = 6;
    /// Not watched: this host opened it, and its local port is watched only as a server's port.
    pub const FOREIGN: u8 = 7;
}

/// Which end of the connection this socket is.
pub mod role {
    pub const SERVER: u8 = 0;
    pub const CLIENT: u8 = 1;
}

/// How the flow became known.
pub mod origin {
    /// Seen when TCP reached ESTABLISHED.
    pub const ESTABLISHMENT: u8 = 0;
    /// Older than the monitor; first seen at a packet.
    pub const ADOPTED: u8 = 1;
    /// Older than the monitor; written by the daemon from sock_diag.
    pub const SEEDED: u8 = 2;
}

/// Whether a flow is a subflow of a Multipath TCP connection (RFC 8684).
pub mod multipath {
    /// No packet has shown it.
    pub const UNKNOWN: u8 = 0;
    pub const PLAIN: u8 = 1;
    pub const SUBFLOW: u8 = 2;
}

/// What began the end of a connection (RFC 6455 §7.1.3): the first close frame or FIN.
pub mod closing_by {
    pub const NOTHING: u8 = 0;
    pub const CLOSE_FRAME_RX: u8 = 1;
    pub const CLOSE_FRAME_TX: u8 = 2;
    pub const FIN_RX: u8 = 3;
    pub const FIN_TX: u8 = 4;
}

/// The published facts of one socket. Times are CLOCK_MONOTONIC nanoseconds, 0 = never, or a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Snapshot {
    /// The socket's cookie: unique until reboot.
    pub cookie: u64,
    /// When a packet last caused the flow to be published. Nothing else changes it. A packet may stay
    /// unpublished for at most one publish interval after it.
    pub published_at: u64,
    /// When TCP reached ESTABLISHED, or could carry data by TCP Fast Open; 0 if that was before the monitor
    /// started.
    pub established_at: u64,
    /// When [`Snapshot::protocol`] was established: the 101 passed, TLS began, or frames were recognised.
    pub opened_at: u64,
    /// When the first close frame or FIN passed; see [`Snapshot::closing_by`].
    pub closing_at: u64,
    pub cgroup_id: u64,
    /// Network byte order; IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    /// There are at most 256.
    pub listener: u8,
    /// A [`multipath`].
    pub multipath: u8,
    /// The first close frame's code; 0 = none. Of a TLS connection, which shows no close frames, see
    /// [`Snapshot::tls`].
    pub close_code: u16,
    /// 4 or 6; 0 = no packet seen yet.
    pub ip_version: u8,
    /// A [`role`].
    pub role: u8,
    /// A [`protocol`].
    pub protocol: u8,
    /// An [`origin`].
    pub origin: u8,
    /// 0 = no close frame, 1 = the first came from the peer, 2 = from this host.
    pub close_initiator: u8,
    pub rst_rx: u8,
    pub rst_tx: u8,
    /// 1 while the daemon cannot see this flow because `SNAPSHOTS` was full.
    pub unpublished: u8,
    pub rx: DirectionFacts,
    pub tx: DirectionFacts,
    /// End of the sent bytes. Written by egress.
    pub snd_nxt: u32,
    /// End of the acknowledged bytes. Written by ingress.
    pub snd_una: u32,
    /// When bytes became outstanding. Written by egress.
    pub unacked_since: u64,
    /// When an acknowledgement last covered new bytes. Written by ingress.
    pub ack_progress_at: u64,
    /// All retransmissions. Written by the retransmit tracepoint.
    pub retransmits: u32,
    /// The lower half of `retransmits` as of the last ack progress. Written by ingress.
    pub retransmits_at_progress: u16,
    /// The share of acknowledged bytes that were retransmitted, smoothed over about [`LOSS_MEMORY`]
    /// acknowledgements; of 65,536. Written by ingress.
    pub loss: u16,
    /// Transmissions that elicit an answer, modulo 65,536: TCP stops long before so many are unanswered.
    /// Written by egress.
    pub eliciting_sends: u16,
    /// `eliciting_sends` as of the last packet from the peer. Written by ingress.
    pub eliciting_sends_at_answer: u16,
    /// Since when the peer has advertised a window of 0, which is 0 at any scale. Written by ingress.
    pub peer_window_closed_at: Moment,
    /// When the first unanswered one left. Written by egress.
    pub unanswered_since: Moment,
    /// The length of the idle gap that ended at `gap_to`, rounded down.
    pub gap_ticks: u32,
    /// When the last idle gap ended that took at least [`IDLE_GAP_FLOOR`](crate::stats::IDLE_GAP_FLOOR), or
    /// longer than the idle limit. After this host ended one, a shorter gap does not replace it until the
    /// peer is heard. So transmissions into a dead path do not hide when it died.
    pub gap_to: u64,
    /// When a transmission from this host last ended an idle gap longer than the idle limit. Written by
    /// egress.
    pub resumed_at: u64,
    /// When the first *try* left. A try is a ping that left while new payload from the peer could still
    /// arrive, and since which none has arrived. Written by egress, cleared by ingress: if both happen at
    /// once, either outcome is right.
    pub first_try: Moment,
    /// Since when this host has advertised a window of 0. Written by egress.
    pub own_window_closed_at: Moment,
    /// The last ping round trip, by the side that pinged; microseconds, at least 1 once measured.
    pub ping_rtt_us: [u32; 2],
    /// The last window the peer advertised, unscaled.
    pub peer_window: u16,
    /// Ticks from the first try to the second. The second try is the first later ping that is a try and
    /// leaves at least [`TRY_APART`] after the first. 0 if there was none within 65,535 ticks (9 min).
    /// Valid only while there is a first try. Of inferred pings further apart, the first try counts as left
    /// that long before the second. Written by egress.
    pub second_try_after: u16,
    /// 1 once `snd_una` / `snd_nxt` are valid.
    pub una_known: u8,
    pub nxt_known: u8,
    /// A [`Direction`].
    pub gap_ended_by: u8,
    /// A [`closing_by`].
    pub closing_by: u8,
}

/// The facts of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DirectionFacts {
    pub last_packet: u64,
    pub last_payload: u64,
    pub last_frame: u64,
    pub last_data_frame: u64,
    pub last_ping: u64,
    /// When the oldest unanswered ping of this direction passed.
    pub first_unanswered_ping: u64,
    /// Frame payload, bytes.
    pub payload_bytes: u64,
    pub frames: u32,
    pub pings: u32,
    /// `pings` as of the last pong from the other side.
    pub pings_answered: u32,
    pub fin: u8,
    /// Deviation of this direction's pings from [`ping_interval`](Self::ping_interval), smoothed; in units
    /// of [`PING_UNIT`], at most 255 (4.3 s).
    pub ping_jitter: u8,
    /// Interval between consecutive pings of this direction, smoothed; in units of [`PING_UNIT`], at least
    /// 1 once measured, at most 65,535 (18 min).
    pub ping_interval: u16,
}

/// Acknowledgements over which a flow's losses are smoothed.
pub const LOSS_MEMORY: u16 = 32;

/// Nanoseconds: pings sent closer together than this are one try. They were queued together, so a delay of
/// one answer also delays the other.
pub const TRY_APART: u64 = 250_000_000;

/// Nanoseconds: if TCP has had bytes outstanding for this long without a break, a ping waits behind them.
/// Then a missing answer says nothing about the peer.
pub const TRY_QUEUED: u64 = 1_000_000_000;

/// Nanoseconds: a window, of either side, that has been closed for longer is reported. Slow readers close
/// and open their window often.
pub const CLOSED_WINDOW_REPORT: u64 = 2_000_000_000;

/// Nanoseconds: the unit of heartbeat times, 16.8 ms.
pub const PING_UNIT: u64 = 1 << 24;

impl DirectionFacts {
    #[inline(always)]
    pub const fn pings_unanswered(&self) -> u32 {
        self.pings.wrapping_sub(self.pings_answered)
    }
}

impl Snapshot {
    /// All zero, like new storage from the kernel.
    pub const EMPTY: Self = {
        const NONE: DirectionFacts = DirectionFacts {
            last_packet: 0,
            last_payload: 0,
            last_frame: 0,
            last_data_frame: 0,
            last_ping: 0,
            first_unanswered_ping: 0,
            payload_bytes: 0,
            frames: 0,
            pings: 0,
            pings_answered: 0,
            fin: 0,
            ping_jitter: 0,
            ping_interval: 0,
        };
        Self {
            cookie: 0,
            published_at: 0,
            established_at: 0,
            opened_at: 0,
            closing_at: 0,
            cgroup_id: 0,
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: 0,
            remote_port: 0,
            listener: 0,
            multipath: multipath::UNKNOWN,
            close_code: 0,
            ip_version: 0,
            role: role::SERVER,
            protocol: protocol::UNKNOWN,
            origin: origin::ESTABLISHMENT,
            close_initiator: 0,
            rst_rx: 0,
            rst_tx: 0,
            unpublished: 0,
            rx: NONE,
            tx: NONE,
            snd_nxt: 0,
            snd_una: 0,
            unacked_since: 0,
            ack_progress_at: 0,
            retransmits: 0,
            retransmits_at_progress: 0,
            loss: 0,
            eliciting_sends: 0,
            eliciting_sends_at_answer: 0,
            peer_window_closed_at: Moment::NEVER,
            unanswered_since: Moment::NEVER,
            gap_ticks: 0,
            gap_to: 0,
            resumed_at: 0,
            first_try: Moment::NEVER,
            own_window_closed_at: Moment::NEVER,
            ping_rtt_us: [0; 2],
            peer_window: 0,
            second_try_after: 0,
            una_known: 0,
            nxt_known: 0,
            gap_ended_by: 0,
            closing_by: closing_by::NOTHING,
        }
    };

    /// Whether the daemon should receive this flow. Plain HTTP on a watched port is not reported.
    #[inline(always)]
    pub const fn is_watched(&self) -> bool {
        matches!(
            self.protocol,
            protocol::WEBSOCKET | protocol::OPAQUE | protocol::ASSUMED
        )
    }

    /// Bytes sent and not acknowledged.
    #[inline(always)]
    pub const fn outstanding(&self) -> u32 {
        if self.una_known == 0 || self.nxt_known == 0 {
            return 0;
        }
        let bytes = self.snd_nxt.wrapping_sub(self.snd_una);
        // The two halves have different writers: an acknowledgement may be recorded before the bytes that
        // it acknowledges.
        if bytes as i32 > 0 { bytes } else { 0 }
    }

    #[inline(always)]
    pub const fn retransmits_without_progress(&self) -> u32 {
        (self.retransmits as u16).wrapping_sub(self.retransmits_at_progress) as u32
    }

    #[inline(always)]
    pub const fn unanswered_sends(&self) -> u32 {
        self.eliciting_sends
            .wrapping_sub(self.eliciting_sends_at_answer) as u32
    }

    /// Whether a ping waits for a sign of life. A peer whose bytes arrive is alive: its pong may be queued
    /// behind them.
    #[inline(always)]
    pub const fn has_tries(&self) -> bool {
        self.first_try.is_some()
    }

    /// When the second try left, with `first` the time of the first try; 0 = there was none.
    #[inline(always)]
    pub const fn second_try(&self, first: u64) -> u64 {
        if first == 0 || self.second_try_after == 0 {
            return 0;
        }
        first.saturating_add(self.second_try_after as u64 * TICK)
    }

    /// What is known of a TLS connection; `None` of others, and while no record was recognised.
    #[inline(always)]
    pub const fn tls(&self) -> Option<TlsFacts> {
        let facts = TlsFacts(self.close_code);
        if self.protocol == protocol::OPAQUE && facts.is_followed() {
            Some(facts)
        } else {
            None
        }
    }

    #[inline(always)]
    pub(crate) const fn set_tls(&mut self, facts: TlsFacts) {
        self.close_code = facts.0;
    }

    /// The length of the last idle gap, nanoseconds, rounded down to a tick.
    #[inline(always)]
    pub const fn last_idle_gap(&self) -> u64 {
        self.gap_ticks as u64 * TICK
    }

    /// 1 if the client sends the frames of this direction, so that they must be masked (RFC 6455 §5.1),
    /// else 0.
    #[inline(always)]
    pub const fn from_client(&self, direction: Direction) -> u8 {
        match direction {
            Direction::Rx => (self.role & 1) ^ 1,
            Direction::Tx => self.role & 1,
        }
    }

    /// How the connection ended, reported at its end: the first thing that decided it.
    ///
    /// A local abort (`tcp_disconnect` and `tcp_close` in net/ipv4/tcp.c) sets the state first and sends
    /// its reset afterwards. It is recognised by what is missing: no FIN, no reset from the peer, and no
    /// retransmission that TCP gave up on.
    pub const fn close_how(&self) -> CloseHow {
        if self.close_initiator != 0 {
            CloseHow::CloseFrame
        } else if self.rx.fin != 0 || self.tx.fin != 0 {
            CloseHow::Fin
        } else if self.rst_rx != 0 {
            CloseHow::RstReceived
        } else if self.rst_tx != 0 {
            CloseHow::RstSent
        } else if self.outstanding() > 0 && self.retransmits_without_progress() > 0 {
            CloseHow::Timeout
        } else if self.origin == origin::SEEDED {
            // No packet was ever seen, so no FIN either.
            CloseHow::Unknown
        } else {
            CloseHow::RstSent
        }
    }

    #[inline(always)]
    pub(crate) fn facts_mut(&mut self, direction: Direction) -> &mut DirectionFacts {
        match direction {
            Direction::Rx => &mut self.rx,
            Direction::Tx => &mut self.tx,
        }
    }

    #[inline(always)]
    pub(crate) const fn last_packet(&self) -> u64 {
        if self.rx.last_packet > self.tx.last_packet {
            self.rx.last_packet
        } else {
            self.tx.last_packet
        }
    }
}

const _: () = assert!(size_of::<DirectionFacts>() == 72);
const _: () = assert!(size_of::<Snapshot>() == 328);
const _: () = assert!(core::mem::offset_of!(Snapshot, rx) == 96);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only; the paddings are named fields.
unsafe impl aya::Pod for Snapshot {}
