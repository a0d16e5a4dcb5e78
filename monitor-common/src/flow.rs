//! The facts of one socket, and how packets change them.
//!
//! A flow lives in the socket's own storage. Egress runs under the socket lock and ingress in
//! softirq, so the two can run at the same moment on two CPUs: every field has one writer (the
//! doc says which where it is not obvious), and what needs both sides is derived on reading.

use crate::{
    Direction,
    event::CloseHow,
    frame::{Header, opcode},
    handshake::{OPENING_LEN, Opening},
    listener::ListenerLimits,
    segment::{Segment, after, tcp_flags},
    stats::{GAP_BOUNDS, GAP_FLOOR, ListenerStats, RTT_BOUNDS},
    stream::{Payload, Step, Walk, mode},
};

/// What the bytes of a flow are known to be.
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
    /// Its end was reported. A reset that follows the death, or a packet that another CPU has in
    /// hand, must not bring it back.
    pub const GONE: u8 = 5;
}

/// Which end of the connection this socket is.
pub mod role {
    pub const SERVER: u8 = 0;
    pub const CLIENT: u8 = 1;
}

/// How the flow came to be known.
pub mod origin {
    /// Seen when TCP reached ESTABLISHED.
    pub const BIRTH: u8 = 0;
    /// Older than the monitor; met at a packet.
    pub const ADOPTED: u8 = 1;
    /// Older than the monitor; written by the daemon from sock_diag.
    pub const SEEDED: u8 = 2;
}

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
}

/// Retransmissions without progress at which the daemon is woken: the first that is more than a
/// tail-loss probe, and the one that makes a black hole.
pub const RETRANSMIT_WAKES: [u32; 2] = [2, 5];

/// The published facts of one socket. All times are CLOCK_MONOTONIC nanoseconds, 0 = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Snapshot {
    /// The socket's cookie: unique until reboot.
    pub cookie: u64,
    /// When a packet last made the flow be published. Nothing else moves it: a packet may stay
    /// unpublished for one publish interval after it, and no longer.
    pub published_at: u64,
    /// When TCP reached ESTABLISHED; 0 if that was before the monitor.
    pub established_at: u64,
    pub cgroup_id: u64,
    /// Network byte order; IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    pub listener: u16,
    /// The first close frame's code; 0 = none.
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
    /// End of what was sent. Written by egress.
    pub snd_nxt: u32,
    /// End of what was acknowledged. Written by ingress.
    pub snd_una: u32,
    /// When bytes became outstanding. Written by egress.
    pub unacked_since: u64,
    /// When an acknowledgement last covered new bytes. Written by ingress.
    pub ack_progress_at: u64,
    /// All retransmissions. Written by the retransmit tracepoint.
    pub retransmits: u32,
    /// `retransmits` as of the last ack progress. Written by ingress.
    pub retransmits_at_progress: u32,
    /// Transmissions that ask for an answer. Written by egress.
    pub asks: u32,
    /// `asks` as of the last packet from the peer. Written by ingress.
    pub asks_at_answer: u32,
    /// When the first unanswered one left. Written by egress.
    pub unanswered_since: u64,
    /// The last ended silence longer than the idle limit.
    pub gap_from: u64,
    pub gap_to: u64,
    /// When a transmission from here last ended such a silence. Written by egress.
    pub resumed_at: u64,
    /// The last ping round trip, by the side that pinged; nanoseconds.
    pub ping_rtt: [u64; 2],
    pub duplicate_acks: u32,
    /// The last window the peer advertised, unscaled.
    pub peer_window: u16,
    /// The last window we advertised, unscaled.
    pub own_window: u16,
    /// 1 once `snd_una` / `snd_nxt` mean something.
    pub una_known: u8,
    pub nxt_known: u8,
    /// A [`Direction`].
    pub gap_ended_by: u8,
    pub _pad: [u8; 5],
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
    /// When the first ping of this direction that has no pong yet passed.
    pub first_unanswered_ping: u64,
    pub last_pong: u64,
    /// Frame payload, bytes.
    pub payload_bytes: u64,
    pub frames: u32,
    pub pings: u32,
    /// `pings` as of the last pong from the other side.
    pub pings_answered: u32,
    pub fin: u8,
    pub _pad: [u8; 3],
}

impl DirectionFacts {
    #[inline(always)]
    pub const fn pings_unanswered(&self) -> u32 {
        self.pings.wrapping_sub(self.pings_answered)
    }
}

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

impl Snapshot {
    /// All zero, which is also how the kernel hands out new storage.
    pub const EMPTY: Self = {
        const NONE: DirectionFacts = DirectionFacts {
            last_packet: 0,
            last_payload: 0,
            last_frame: 0,
            last_data_frame: 0,
            last_ping: 0,
            first_unanswered_ping: 0,
            last_pong: 0,
            payload_bytes: 0,
            frames: 0,
            pings: 0,
            pings_answered: 0,
            fin: 0,
            _pad: [0; 3],
        };
        Self {
            cookie: 0,
            published_at: 0,
            established_at: 0,
            cgroup_id: 0,
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: 0,
            remote_port: 0,
            listener: 0,
            close_code: 0,
            ip_version: 0,
            role: role::SERVER,
            protocol: protocol::UNKNOWN,
            origin: origin::BIRTH,
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
            asks: 0,
            asks_at_answer: 0,
            unanswered_since: 0,
            gap_from: 0,
            gap_to: 0,
            resumed_at: 0,
            ping_rtt: [0; 2],
            duplicate_acks: 0,
            peer_window: 0,
            own_window: 0,
            una_known: 0,
            nxt_known: 0,
            gap_ended_by: 0,
            _pad: [0; 5],
        }
    };

    /// Whether the daemon should hear of this flow: plain HTTP on a watched port is none of its
    /// business.
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
        // The two halves have different writers: an acknowledgement may overtake the note of
        // what it acknowledges.
        if bytes as i32 > 0 { bytes } else { 0 }
    }

    #[inline(always)]
    pub const fn retransmits_without_progress(&self) -> u32 {
        self.retransmits.wrapping_sub(self.retransmits_at_progress)
    }

    #[inline(always)]
    pub const fn unanswered_asks(&self) -> u32 {
        self.asks.wrapping_sub(self.asks_at_answer)
    }

    /// 1 if frames of this direction are the client's, so that they must be masked (RFC 6455
    /// §5.1), else 0.
    #[inline(always)]
    pub const fn from_client(&self, direction: Direction) -> u8 {
        match direction {
            Direction::Rx => (self.role & 1) ^ 1,
            Direction::Tx => self.role & 1,
        }
    }

    /// How the connection ended, told at its death: the first thing that decided it.
    ///
    /// A local abort (`tcp_disconnect` and `tcp_close` in net/ipv4/tcp.c) sets the state first and
    /// sends its reset afterwards. It is known by what is missing: no FIN, no reset from the peer,
    /// and no retransmission that TCP gave up on.
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
            // No packet was ever seen, a FIN neither.
            CloseHow::Unknown
        } else {
            CloseHow::RstSent
        }
    }

    #[inline(always)]
    fn facts_mut(&mut self, direction: Direction) -> &mut DirectionFacts {
        match direction {
            Direction::Rx => &mut self.rx,
            Direction::Tx => &mut self.tx,
        }
    }

    #[inline(always)]
    const fn is_closing(&self) -> bool {
        self.rx.fin != 0 || self.tx.fin != 0 || self.close_initiator != 0
    }

    #[inline(always)]
    const fn last_packet(&self) -> u64 {
        if self.rx.last_packet > self.tx.last_packet {
            self.rx.last_packet
        } else {
            self.tx.last_packet
        }
    }
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
        self.snapshot.facts_mut(direction).last_pong = now;
        self.walk_mut(direction).note(notable::PUBLISH);
        let other = self.snapshot.facts_mut(pinger);
        let unanswered = other.pings_unanswered();
        if unanswered == 0 {
            // Unsolicited: a legal one-way heartbeat.
            return;
        }
        let rtt = now.saturating_sub(other.last_ping);
        other.pings_answered = other.pings;
        self.snapshot.ping_rtt[pinger.index()] = rtt;
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
        if last == 0 || silence < GAP_FLOOR || self.outstanding() > 0 {
            return false;
        }
        stats.idle_gaps.observe(silence, &GAP_BOUNDS);
        if limits.idle_limit_ns == 0 || silence <= limits.idle_limit_ns {
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
            self.duplicate_acks = self.duplicate_acks.wrapping_add(1);
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

const _: () = assert!(size_of::<DirectionFacts>() == 80);
const _: () = assert!(size_of::<Snapshot>() == 344);
const _: () = assert!(size_of::<Flow>() == 432);
const _: () = assert!(core::mem::offset_of!(Snapshot, rx) == 80);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only; the paddings are named fields.
unsafe impl aya::Pod for Snapshot {}
