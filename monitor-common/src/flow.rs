//! What a socket's storage holds, and how packets change it.

use crate::{
    Direction,
    frame::{Header, opcode},
    handshake::{OPENING_LEN, Opening},
    listener::ListenerLimits,
    segment::{Segment, after, tcp_flags},
    snapshot::{Snapshot, origin, protocol},
    stats::{GAP_BOUNDS, GAP_FLOOR, ListenerStats, RTT_BOUNDS},
    stream::{Payload, Step, Walk, mode},
};

/// Things that happened in one packet, as bits.
pub mod notable {
    pub const OPENED: u32 = 1 << 0;
    pub const CLOSING: u32 = 1 << 1;
    pub const DISMISSED: u32 = 1 << 2;
    pub const RESUMED: u32 = 1 << 3;
    pub const ANSWERED: u32 = 1 << 4;
    pub const PING_UNANSWERED: u32 = 1 << 5;
    pub const RETRANSMIT: u32 = 1 << 6;
    /// Something the daemon may not see late, though it is no event by itself: a control frame, a
    /// FIN, the end of a loss.
    pub const PUBLISH: u32 = 1 << 7;

    /// The bits that go to the `VITALS` ring.
    pub const EVENTS: u32 =
        OPENED | CLOSING | DISMISSED | RESUMED | ANSWERED | PING_UNANSWERED | RETRANSMIT;

    /// The records they become, in the order in which they are sent. [`DISMISSED`] is not among
    /// them: it goes alone.
    pub const RECORDS: [(u32, EventKind); 6] = [
        (OPENED, EventKind::Opened),
        (RESUMED, EventKind::Resumed),
        (ANSWERED, EventKind::Answered),
        (RETRANSMIT, EventKind::Retransmit),
        (PING_UNANSWERED, EventKind::PingUnanswered),
        (CLOSING, EventKind::Closing),
    ];

    use crate::event::EventKind;
}

/// Retransmissions without progress at which the daemon is woken: the first that is more than a
/// tail-loss probe, and the one that makes a black hole.
pub const RETRANSMIT_WAKES: [u32; 2] = [2, 5];

/// Everything kept in a socket's storage: what is published, and the parse state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    pub snapshot: Snapshot,
    pub rx_walk: Walk,
    pub tx_walk: Walk,
    /// By [`Direction`]: how much of the segment in hand is done. Kept here between the steps of
    /// a kernel walk, because the verifier follows every value of a local variable by itself.
    pub done: [u32; 2],
}

impl Flow {
    pub const EMPTY: Self = Self {
        snapshot: Snapshot::EMPTY,
        rx_walk: Walk::EMPTY,
        tx_walk: Walk::EMPTY,
        done: [0; 2],
    };

    /// A socket older than the monitor, met at a packet: nothing is known of its stream, and of
    /// its past only what the daemon may have seeded.
    #[inline(always)]
    pub fn adopt(&mut self, met_in: Direction) {
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

    /// Takes in a received segment: clocks, acknowledgements, flags.
    #[inline(always)]
    pub fn receive(
        &mut self,
        segment: &Segment,
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
    ) {
        if segment.has(tcp_flags::RST) {
            // No sign of life: it is how a hop says that the connection is long dead. Whether TCP
            // believes it is for `tcp_receive_reset` to tell.
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
        s.rx.last_packet = now;
        if segment.payload_len > 0 {
            s.rx.last_payload = now;
        }
        s.asks_at_answer = s.asks;
        if segment.has(tcp_flags::ACK) {
            s.acknowledge(segment, now, walk, stats);
        }
        if segment.window == 0 && s.peer_window != 0 {
            stats.zero_windows[Direction::Rx.index()].add(1);
        }
        s.peer_window = segment.window;
        if segment.has(tcp_flags::FIN) && s.rx.fin == 0 {
            if !s.is_closing() {
                walk.note(notable::CLOSING);
            }
            walk.note(notable::PUBLISH);
            s.rx.fin = 1;
        }
    }

    /// Takes in a segment that leaves.
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
        let keepalive = segment.payload_len == 0
            && s.nxt_known != 0
            && segment.seq == s.snd_nxt.wrapping_sub(1);
        let asks = segment.payload_len > 0 || keepalive;
        if s.end_silence(Direction::Tx, now, limits, stats) {
            walk.note(notable::RESUMED);
            if asks {
                s.resumed_at = now;
            }
        }
        s.tx.last_packet = now;
        if segment.payload_len > 0 {
            s.tx.last_payload = now;
        }
        if asks {
            if s.unanswered_asks() == 0 {
                s.unanswered_since = now;
            }
            s.asks = s.asks.wrapping_add(1);
            if s.resumed_at > s.rx.last_packet && s.unanswered_asks() == 2 {
                walk.note(notable::RETRANSMIT);
            }
        }
        s.extend(segment, now);
        if segment.window == 0 && s.own_window != 0 && !segment.has(tcp_flags::RST) {
            stats.zero_windows[Direction::Tx.index()].add(1);
        }
        s.own_window = segment.window;
        if segment.has(tcp_flags::FIN) && s.tx.fin == 0 {
            if !s.is_closing() {
                walk.note(notable::CLOSING);
            }
            walk.note(notable::PUBLISH);
            s.tx.fin = 1;
        }
    }

    /// Takes in a retransmission, as TCP itself tells it; true if the daemon has to hear of it.
    #[inline(always)]
    pub fn retransmit(&mut self, stats: &mut ListenerStats) -> bool {
        let s = &mut self.snapshot;
        s.retransmits = s.retransmits.wrapping_add(1);
        stats.retransmits.add(1);
        let [first, second] = RETRANSMIT_WAKES;
        let count = s.retransmits_without_progress();
        count == first || count == second
    }

    /// Takes in the payload of a segment up to the point where the walk over its frames begins:
    /// returns the offset to begin at, if there is anything to walk over.
    #[inline(always)]
    pub fn place(
        &mut self,
        direction: Direction,
        segment: &Segment,
        payload: &impl Payload,
        stats: &mut ListenerStats,
    ) -> Option<u32> {
        let undecided = match self.snapshot.protocol {
            protocol::UNKNOWN | protocol::HTTP => true,
            protocol::ASSUMED => self.walk_mut(direction).mode == mode::UNSYNCED,
            _ => false,
        };
        if undecided {
            self.recognise(direction, segment.payload_len, payload, stats);
        }
        let walk = self.walk_mut(direction);
        let admission = walk.admit(segment.seq, segment.payload_len)?;
        let walks = walk.mode != mode::HANDSHAKE;
        if admission.lost > 0 {
            stats.unsynced_bytes[direction.index()].add(admission.lost as u64);
        }
        walks.then_some(admission.offset)
    }

    /// Looks at the first bytes of a segment until it is known what the flow carries.
    #[inline(always)]
    fn recognise(
        &mut self,
        direction: Direction,
        len: u32,
        payload: &impl Payload,
        stats: &mut ListenerStats,
    ) {
        let have = OPENING_LEN.min(len);
        let Some(head) = (have > 0).then(|| payload.read(0, have)).flatten() else {
            return;
        };
        let from_client = self.snapshot.from_client(direction) != 0;
        let assumed = self.snapshot.protocol == protocol::ASSUMED;
        match Opening::of(&head, have) {
            Opening::Switching if !from_client => {
                self.upgrade(direction);
                self.open(direction, protocol::WEBSOCKET, stats);
            }
            Opening::Tls if from_client && !assumed => {
                self.open(direction, protocol::OPAQUE, stats);
            }
            Opening::Request if from_client => self.dismiss(direction, assumed),
            Opening::Response if !from_client => self.dismiss(direction, assumed),
            _ => {}
        }
    }

    /// Accounts for one step of the walk.
    #[inline(always)]
    pub fn account(
        &mut self,
        direction: Direction,
        step: &Step,
        now: u64,
        stats: &mut ListenerStats,
    ) {
        match step {
            Step::Frame(header) => self.frame(direction, header, now, stats),
            Step::Unsynced(bytes) => {
                stats.unsynced_bytes[direction.index()].add(*bytes as u64);
            }
            Step::Synced if self.snapshot.protocol == protocol::ASSUMED => {
                self.open(direction, protocol::WEBSOCKET, stats);
            }
            _ => {}
        }
    }

    #[inline(always)]
    pub fn walk_mut(&mut self, direction: Direction) -> &mut Walk {
        match direction {
            Direction::Rx => &mut self.rx_walk,
            Direction::Tx => &mut self.tx_walk,
        }
    }

    #[inline(always)]
    fn frame(
        &mut self,
        direction: Direction,
        header: &Header,
        now: u64,
        stats: &mut ListenerStats,
    ) {
        let i = direction.index();
        stats.frames[i][(header.opcode() & 0x0f) as usize].add(1);
        stats.payload_bytes[i].add(header.payload_len);
        if !header.fin() && header.opcode() != opcode::CONTINUATION {
            stats.fragmented_messages[i].add(1);
        }
        let own = self.snapshot.facts_mut(direction);
        own.frames = own.frames.wrapping_add(1);
        own.payload_bytes = own.payload_bytes.wrapping_add(header.payload_len);
        own.last_frame = now;
        match header.opcode() {
            opcode::PING => self.ping(direction, now, stats),
            opcode::PONG => self.pong(direction, now, stats),
            opcode::CLOSE => self.close(direction, header),
            _ => own.last_data_frame = now,
        }
    }

    #[inline(always)]
    fn ping(&mut self, direction: Direction, now: u64, stats: &mut ListenerStats) {
        let own = self.snapshot.facts_mut(direction);
        let earlier = own.pings_unanswered();
        if earlier == 0 {
            own.first_unanswered_ping = now;
        }
        own.last_ping = now;
        own.pings = own.pings.wrapping_add(1);
        let walk = self.walk_mut(direction);
        walk.note(notable::PUBLISH);
        if earlier != 0 {
            stats.pings_unanswered[direction.index()].add(1);
            if matches!(direction, Direction::Tx) {
                walk.note(notable::PING_UNANSWERED);
            }
        }
    }

    /// A pong answers the latest ping of the other side and all before it (RFC 6455 §5.5.3).
    #[inline(always)]
    fn pong(&mut self, direction: Direction, now: u64, stats: &mut ListenerStats) {
        let pinger = direction.opposite();
        self.walk_mut(direction).note(notable::PUBLISH);
        let other = self.snapshot.facts_mut(pinger);
        let unanswered = other.pings_unanswered();
        if unanswered == 0 {
            // Unsolicited: a legal one-way heartbeat.
            return;
        }
        let rtt = now.saturating_sub(other.last_ping);
        other.pings_answered = other.pings;
        self.snapshot.ping_rtt_us[pinger.index()] = micros(rtt);
        stats.ping_rtt[pinger.index()].observe(rtt, &RTT_BOUNDS);
        if unanswered > 1 && matches!(direction, Direction::Rx) {
            self.walk_mut(direction).note(notable::ANSWERED);
        }
    }

    #[inline(always)]
    fn close(&mut self, direction: Direction, header: &Header) {
        let s = &mut self.snapshot;
        let first = !s.is_closing();
        if s.close_initiator == 0 {
            s.close_initiator = 1 + direction as u8;
            s.close_code = header.close_code();
        }
        let walk = self.walk_mut(direction);
        walk.note(notable::PUBLISH);
        if first {
            walk.note(notable::CLOSING);
        }
    }

    /// The 101 passes in `direction`: its head ends somewhere behind, the other side's frames
    /// begin with its next byte.
    #[inline(always)]
    fn upgrade(&mut self, direction: Direction) {
        let (server, client) = match direction {
            Direction::Rx => (&mut self.rx_walk, &mut self.tx_walk),
            Direction::Tx => (&mut self.tx_walk, &mut self.rx_walk),
        };
        server.mode = mode::HEAD;
        client.mode = mode::FRAMES;
        client.skip = 0;
    }

    #[inline(always)]
    fn open(&mut self, direction: Direction, protocol: u8, stats: &mut ListenerStats) {
        let s = &mut self.snapshot;
        s.protocol = protocol;
        if s.origin == origin::BIRTH {
            stats.opened.add(1);
        }
        self.walk_mut(direction).note(notable::OPENED);
    }

    /// HTTP passes: whatever was assumed, it is no WebSocket yet.
    #[inline(always)]
    fn dismiss(&mut self, direction: Direction, assumed: bool) {
        self.snapshot.protocol = protocol::HTTP;
        if !assumed {
            return;
        }
        self.rx_walk.mode = mode::HANDSHAKE;
        self.tx_walk.mode = mode::HANDSHAKE;
        // From here on it is as well known as one that was met at its birth.
        self.snapshot.origin = origin::BIRTH;
        self.walk_mut(direction).note(notable::DISMISSED);
    }
}

impl Snapshot {
    /// Notes the end of a silence; true if it was longer than the listener's limit.
    ///
    /// With bytes outstanding it is no silence but a loss, and the retransmissions tell of it.
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
        if last == 0 || (silence < GAP_FLOOR && !exceeds) || self.outstanding() > 0 {
            return false;
        }
        if silence >= GAP_FLOOR {
            stats.idle_gaps.observe(silence, &GAP_BOUNDS);
        }
        if !exceeds {
            return false;
        }
        self.gap_from = last;
        self.gap_to = now;
        self.gap_ended_by = by as u8;
        true
    }

    /// The acknowledgement of a received segment (RFC 9293 §3.4).
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
            self.retransmits_at_progress = self.retransmits;
            return;
        }
        if after(segment.ack, self.snd_una) {
            let retransmits = self.retransmits_without_progress();
            self.snd_una = segment.ack;
            self.ack_progress_at = now;
            self.retransmits_at_progress = self.retransmits;
            if retransmits >= RETRANSMIT_WAKES[0] {
                walk.note(notable::ANSWERED);
            } else if retransmits > 0 {
                walk.note(notable::PUBLISH);
            }
            return;
        }
        // Replies to keepalive probes look the same but come with nothing outstanding; a changed
        // window makes it a window update (RFC 5681 §2).
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

    /// The sequence space of a sent segment.
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
            // A flow that was seeded with bytes outstanding already knows since when.
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

/// A round trip in microseconds, never 0, which means none.
#[inline(always)]
const fn micros(nanos: u64) -> u32 {
    match nanos / 1000 {
        0 => 1,
        micros if micros > u32::MAX as u64 => u32::MAX,
        micros => micros as u32,
    }
}

const _: () = assert!(size_of::<Flow>() == 416);
