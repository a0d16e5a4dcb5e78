//! The contents of a socket's storage, and how packets change it.

use crate::{
    Direction, idle_gap_scale,
    listener::ListenerLimits,
    moment::{Moment, TICK, ticks_between},
    segment::{Segment, after, tcp_flags},
    snapshot::{LOSS_MEMORY, Snapshot, TRY_APART, TRY_QUEUED, closing_by, protocol},
    stats::{IDLE_GAP_BOUNDS, IDLE_GAP_FLOOR, ListenerStats},
    stream::{Admission, Walk, mode},
};

/// What one packet changed, as bits.
pub mod notable {
    pub const OPENED: u32 = 1 << 0;
    pub const CLOSING: u32 = 1 << 1;
    pub const DISMISSED: u32 = 1 << 2;
    pub const RESUMED: u32 = 1 << 3;
    pub const ANSWERED: u32 = 1 << 4;
    pub const PING_UNANSWERED: u32 = 1 << 5;
    pub const RETRANSMIT: u32 = 1 << 6;
    /// Requires prompt publication without being an event: a control frame, a FIN, the end of a loss.
    pub const PUBLISH: u32 = 1 << 7;
    pub const WINDOW_CLOSED: u32 = 1 << 8;

    /// The bits that are sent to the `VITALS` ring.
    pub const EVENTS: u32 = OPENED
        | CLOSING
        | DISMISSED
        | RESUMED
        | ANSWERED
        | PING_UNANSWERED
        | RETRANSMIT
        | WINDOW_CLOSED;

    /// The events these bits become, in sending order. [`DISMISSED`] is not among them because it is sent
    /// alone.
    pub const RECORDS: [(u32, EventKind); 7] = [
        (OPENED, EventKind::Opened),
        (RESUMED, EventKind::Resumed),
        (ANSWERED, EventKind::Answered),
        (RETRANSMIT, EventKind::Retransmit),
        (PING_UNANSWERED, EventKind::PingUnanswered),
        (WINDOW_CLOSED, EventKind::WindowClosed),
        (CLOSING, EventKind::Closing),
    ];

    use crate::event::EventKind;
}

/// Numbers of retransmissions without progress that wake the daemon: the first that is more than a
/// tail-loss probe, and the one that indicates a black hole.
pub const RETRANSMIT_WAKES: [u32; 2] = [2, 5];

/// Acknowledged bytes that count as one segment. Larger than most segments, so the loss estimate errs on
/// the high side.
const SEGMENT_BYTES: u32 = 2048;

/// The whole contents of a socket's storage: published facts and parse state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    pub snapshot: Snapshot,
    pub rx_walk: Walk,
    pub tx_walk: Walk,
    /// By [`Direction`]: how many bytes of the current segment are done. A kernel walk keeps this here
    /// between steps, because the verifier follows every value of a local variable separately.
    pub done: [u32; 2],
    /// By [`Direction`]: size of the current message, bytes; saturates.
    pub(crate) message_len: [u32; 2],
    /// By the side that pings: tags of the oldest outstanding ping and of the last one; see
    /// [`Header::tag`](crate::frame::Header::tag).
    pub(crate) ping_tags: [PingTags; 2],
    /// 1 while a received segment is being processed. `tcp_filter` runs before the socket's lock, so two
    /// CPUs may process packets of one socket at once. This happens where senders share this host, or where
    /// the network card does not keep a connection on one CPU.
    pub receiving: u64,
}

/// Tags that identify the outstanding pings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PingTags {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Flow {
    pub const EMPTY: Self = Self {
        snapshot: Snapshot::EMPTY,
        rx_walk: Walk::EMPTY,
        tx_walk: Walk::EMPTY,
        done: [0; 2],
        message_len: [0; 2],
        ping_tags: [PingTags { first: 0, last: 0 }; 2],
        receiving: 0,
    };

    /// Adopts a socket older than the monitor at its first packet. Nothing is known of its stream, and only
    /// the daemon's seed may be known of its past.
    #[inline(always)]
    pub fn join_mid_stream(&mut self, met_in: Direction) {
        let s = &mut self.snapshot;
        if s.outstanding() == 0 {
            s.unacked_since = 0;
        }
        s.una_known = 0;
        s.nxt_known = 0;
        s.protocol = protocol::ASSUMED;
        for walk in [&mut self.rx_walk, &mut self.tx_walk] {
            walk.mode = mode::UNSYNCED;
        }
        self.walk_mut(met_in).note(notable::OPENED);
    }

    /// Processes a received segment: clocks, acknowledgements, flags.
    #[inline(always)]
    pub fn receive(
        &mut self,
        segment: &Segment,
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
    ) {
        if segment.has(tcp_flags::RST) {
            // A reset isn't a sign of life: a hop sends one when the connection is long dead.
            // `tcp_receive_reset` reports whether TCP accepted it.
            return;
        }
        let s = &mut self.snapshot;
        let walk = &mut self.rx_walk;
        if s.end_silence(Direction::Rx, now, limits, stats) {
            walk.note(notable::RESUMED);
        }
        if s.resumed_at > s.rx.last_packet {
            walk.note(notable::ANSWERED);
        }
        // A FIN proves nothing: some hops end idle connections with one.
        if s.gap_is_unanswered() && !segment.has(tcp_flags::FIN) {
            s.count_survival(stats);
        }
        let last_packet = s.rx.last_packet;
        s.rx.last_packet = now;
        if segment.payload_len > 0 && !walk.is_probe(segment) {
            s.rx.last_payload = now;
            if s.has_tries() && walk.has_new_payload(segment) {
                s.excuse_tries(walk);
            }
        }
        s.eliciting_sends_at_answer = s.eliciting_sends;
        if segment.has(tcp_flags::ACK) {
            s.acknowledge(segment, now, walk, stats);
        }
        s.peer_window = segment.window;
        let is_closed = segment.window == 0;
        if is_closed || s.peer_window_closed_at.is_some() {
            s.hear_window(is_closed, last_packet, now, walk, stats);
        }
        if segment.has(tcp_flags::FIN) && s.rx.fin == 0 {
            if s.begin_closing(closing_by::FIN_RX, now) {
                walk.note(notable::CLOSING);
            }
            walk.note(notable::PUBLISH);
            s.rx.fin = 1;
        }
    }

    /// Processes a sent segment.
    #[inline(always)]
    pub fn send(
        &mut self,
        segment: &Segment,
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
    ) {
        let s = &mut self.snapshot;
        let walk = &mut self.tx_walk;
        let last_packet = s.tx.last_packet;
        // A keepalive repeats the last byte sent, or carries no data at its number (RFC 9293 §3.8.4).
        let keepalive = (segment.payload_len == 0
            || (segment.payload_len == 1 && s.outstanding() == 0))
            && s.nxt_known != 0
            && segment.seq == s.snd_nxt.wrapping_sub(1);
        let elicits = segment.payload_len > 0 || keepalive;
        if s.end_silence(Direction::Tx, now, limits, stats) {
            walk.note(notable::RESUMED);
            if elicits {
                s.resumed_at = now;
            }
        }
        s.tx.last_packet = now;
        if segment.payload_len > 0 && !keepalive {
            s.tx.last_payload = now;
        }
        if elicits {
            if s.unanswered_sends() == 0 {
                s.unanswered_since = Moment::of(now);
            }
            s.eliciting_sends = s.eliciting_sends.wrapping_add(1);
            if s.resumed_at > s.rx.last_packet && s.unanswered_sends() == 2 {
                walk.note(notable::RETRANSMIT);
            }
        }
        s.extend(segment, now);
        let is_closed = segment.window == 0;
        if (is_closed || s.own_window_closed_at.is_some()) && !segment.has(tcp_flags::RST) {
            s.advertise(is_closed, last_packet, now, walk, stats);
        }
        if segment.has(tcp_flags::FIN) && s.tx.fin == 0 {
            if s.begin_closing(closing_by::FIN_TX, now) {
                walk.note(notable::CLOSING);
            }
            walk.note(notable::PUBLISH);
            s.tx.fin = 1;
        }
    }

    /// Counts a retransmission reported by TCP; true if it must be reported to the daemon.
    #[inline(always)]
    pub fn retransmit(&mut self, stats: &mut ListenerStats) -> bool {
        let s = &mut self.snapshot;
        s.retransmits = s.retransmits.wrapping_add(1);
        stats.retransmits.add(1);
        let [first, second] = RETRANSMIT_WAKES;
        let count = s.retransmits_without_progress();
        count == first || count == second
    }

    /// Places `len` bytes of payload at `seq` in the stream. Also returns how many bytes before them were
    /// lost. `patient`: the caller keeps [`Holes`] for this direction.
    ///
    /// [`Holes`]: crate::holes::Holes
    #[inline(always)]
    pub fn place(
        &mut self,
        direction: Direction,
        seq: u32,
        len: u32,
        patient: bool,
    ) -> (SegmentPlace, u32) {
        let walk = self.walk_mut(direction);
        match walk.admit(seq, len, patient) {
            Admission::Old => (SegmentPlace::Nowhere, 0),
            Admission::Ahead => (SegmentPlace::Ahead, 0),
            Admission::New { offset, lost } if walk.mode != mode::HANDSHAKE => {
                (SegmentPlace::Front(offset), lost)
            }
            Admission::New { lost, .. } => (SegmentPlace::Nowhere, lost),
        }
    }

    /// The length in ticks of the idle gap that the packet at `now` ended; 0 if it ended none.
    #[inline(always)]
    pub const fn ended_gap(&self, now: u64) -> u32 {
        if self.snapshot.gap_to == now {
            self.snapshot.gap_ticks
        } else {
            0
        }
    }

    #[inline(always)]
    pub fn walk_mut(&mut self, direction: Direction) -> &mut Walk {
        match direction {
            Direction::Rx => &mut self.rx_walk,
            Direction::Tx => &mut self.tx_walk,
        }
    }
}

/// What a frame means beyond the changes in the flow. One word, because the kernel's stack is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEffect(u64);

impl FrameEffect {
    const RTT_SHIFT: u32 = 16;

    /// `broken_rules` are bits by [`ProtocolError`](crate::stats::ProtocolError).
    #[inline(always)]
    pub(crate) const fn new(broken_rules: u16) -> Self {
        Self(broken_rules as u64)
    }

    #[inline(always)]
    pub(crate) const fn with_broken_rules(self, broken_rules: u16) -> Self {
        Self(self.0 | broken_rules as u64)
    }

    #[inline(always)]
    pub(crate) const fn with_ping_rtt(self, micros: u32) -> Self {
        Self(self.0 | (micros as u64) << Self::RTT_SHIFT)
    }

    /// The rules that the frame breaks, as bits by [`ProtocolError`](crate::stats::ProtocolError).
    #[inline(always)]
    pub const fn broken_rules(self) -> u16 {
        self.0 as u16
    }

    /// For a pong that answers a ping: the round trip in microseconds, at least 1; otherwise 0.
    #[inline(always)]
    pub const fn ping_rtt_us(self) -> u32 {
        (self.0 >> Self::RTT_SHIFT) as u32
    }
}

/// Where the payload of a segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPlace {
    /// Nothing to walk over: old bytes, or HTTP.
    Nowhere,
    /// The walk continues at this offset.
    Front(u32),
    /// After a hole that may hide a header: for [`Holes::land`](crate::holes::Holes::land).
    Ahead,
}

impl Snapshot {
    /// Records the first close frame or FIN; false if there was one before.
    #[inline(always)]
    pub(crate) fn begin_closing(&mut self, by: u8, now: u64) -> bool {
        if self.closing_by != closing_by::NOTHING {
            return false;
        }
        self.closing_by = by;
        self.closing_at = now;
        true
    }

    /// Records a sent ping; true if it is the second try. A ping does not count as a try while a closed
    /// window, or the queue in front of the ping, delays the answer.
    #[inline(always)]
    pub(crate) fn try_again(&mut self, now: u64) -> bool {
        let queued = self.outstanding() > 0 && now.saturating_sub(self.unacked_since) >= TRY_QUEUED;
        let is_closed = self.own_window_closed_at.is_some() || self.peer_window_closed_at.is_some();
        if is_closed || queued {
            return false;
        }
        if !self.has_tries() {
            self.second_try_after = 0;
            self.first_try = Moment::of(now);
            return false;
        }
        let first = self.first_try.nanos(now);
        let is_second = self.second_try_after == 0 && now.saturating_sub(first) >= TRY_APART;
        if is_second {
            let ticks = now.saturating_sub(first).div_ceil(TICK);
            self.second_try_after = if ticks <= u16::MAX as u64 {
                ticks as u16
            } else {
                0
            };
        }
        is_second
    }

    /// New payload arrived from the peer.
    #[inline(always)]
    fn excuse_tries(&mut self, walk: &mut Walk) {
        walk.note(if self.second_try_after != 0 {
            notable::ANSWERED
        } else {
            notable::PUBLISH
        });
        self.first_try = Moment::NEVER;
    }

    /// Whether nothing was received since the end of the last idle gap.
    #[inline(always)]
    const fn gap_is_unanswered(&self) -> bool {
        self.gap_to > self.rx.last_packet
    }

    /// Counts an idle gap that the path survived. Plain HTTP is excluded, because other timers keep it
    /// open.
    #[inline(always)]
    fn count_survival(&self, stats: &mut ListenerStats) {
        if self.is_watched() {
            stats.idle_gaps_survived[idle_gap_scale::slot_of(self.last_idle_gap())].add(1);
        }
    }

    /// Records the end of an idle gap; true if it was longer than the listener's limit.
    ///
    /// With bytes outstanding it isn't an idle gap but a loss, which the retransmissions report.
    #[inline(always)]
    fn end_silence(
        &mut self,
        by: Direction,
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
    ) -> bool {
        let last = self.last_packet();
        let silence = now.saturating_sub(last);
        let limit = limits.idle_limit_ns;
        let exceeds = limit != 0 && silence > limit;
        if last == 0 || (silence < IDLE_GAP_FLOOR && !exceeds) || self.outstanding() > 0 {
            return false;
        }
        if silence >= IDLE_GAP_FLOOR {
            stats.idle_gaps.observe(silence, &IDLE_GAP_BOUNDS);
        }
        if matches!(by, Direction::Rx)
            || !self.gap_is_unanswered()
            || silence > self.last_idle_gap()
        {
            self.gap_ticks = ticks_between(last, now);
            self.gap_to = now;
            self.gap_ended_by = by as u8;
        }
        exceeds
    }

    /// Processes the acknowledgement of a received segment (RFC 9293 §3.4).
    #[inline(always)]
    fn acknowledge(
        &mut self,
        segment: &Segment,
        now: u64,
        walk: &mut Walk,
        stats: &mut ListenerStats,
    ) {
        if self.una_known == 0 {
            self.una_known = 1;
            self.snd_una = segment.ack;
            self.ack_progress_at = now;
            self.retransmits_at_progress = self.retransmits as u16;
            return;
        }
        if after(segment.ack, self.snd_una) {
            let retransmits = self.retransmits_without_progress();
            self.count_delivery(segment.ack.wrapping_sub(self.snd_una), retransmits, stats);
            self.snd_una = segment.ack;
            self.ack_progress_at = now;
            self.retransmits_at_progress = self.retransmits as u16;
            if retransmits >= RETRANSMIT_WAKES[0] {
                walk.note(notable::ANSWERED);
            } else if retransmits > 0 {
                walk.note(notable::PUBLISH);
            }
            return;
        }
        // Replies to keepalive probes look the same but arrive with nothing outstanding. A changed window
        // makes it a window update (RFC 5681 §2).
        if segment.ack == self.snd_una
            && segment.payload_len == 0
            && segment.window == self.peer_window
            && !segment.has(tcp_flags::FIN)
            && !segment.has(tcp_flags::RST)
            && self.outstanding() > 0
        {
            stats.duplicate_acks.add(1);
        }
    }

    /// Counts bytes delivered after some retransmissions, which shows how lossy the path is. Bytes that
    /// were never acknowledged do not count.
    #[inline(always)]
    fn count_delivery(&mut self, bytes: u32, retransmits: u32, stats: &mut ListenerStats) {
        let mut segments = bytes / SEGMENT_BYTES;
        if segments == 0 {
            segments = 1;
        }
        let late = if retransmits < segments {
            retransmits
        } else {
            segments
        };
        stats.segments_delivered.add(segments as u64);
        if late > 0 {
            stats.segments_delivered_late.add(late as u64);
            stats.retransmits_delivered.add(retransmits as u64);
        }
        let mut share = u16::MAX as u64 * late as u64;
        if segments > 1 {
            share /= segments as u64;
        }
        self.loss = self.loss - self.loss / LOSS_MEMORY + share as u16 / LOSS_MEMORY;
    }

    /// Advances the sequence space by a sent segment.
    #[inline(always)]
    fn extend(&mut self, segment: &Segment, now: u64) {
        let end = segment.end();
        if self.nxt_known == 0 {
            self.nxt_known = 1;
            self.snd_nxt = end;
            if self.una_known == 0 {
                self.una_known = 1;
                self.snd_una = segment.seq;
            }
            // A flow seeded with bytes outstanding already has this time.
            if self.unacked_since == 0 {
                self.unacked_since = now;
            }
        } else if after(end, self.snd_nxt) {
            if self.outstanding() == 0 {
                self.unacked_since = now;
            }
            self.snd_nxt = end;
        }
    }
}

// With the kernel's 72 bytes, an element fills its 512 bytes exactly.
const _: () = assert!(size_of::<Flow>() == 440);
