//! Runs segments through the packet logic outside the kernel, in the order of the kernel programs.

mod queue;

use alloc::boxed::Box;

use queue::SegmentQueue;

use crate::{
    Direction,
    connection_totals::ConnectionTotals,
    flow::{Flow, SegmentPlace},
    frame::{Head, Header},
    handshake::Needle,
    holes::{BRIDGE_STEPS, Bridge, Holes, Landing, PENDING_RUN_STEPS},
    listener::ListenerLimits,
    proxy_header::ProxyHeader,
    segment::{Segment, after, tcp_flags},
    stats::ListenerStats,
    stream::{MAX_STEPS, Payload, Step},
    tls::{RECORD_STEPS, RecordHeader, RecordStep, TlsFlow},
};

/// One connection: the contents of a socket's storages in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub flow: Flow,
    pub totals: ConnectionTotals,
    /// From the first TLS record on.
    tls: Option<Box<TlsFlow>>,
    /// By [`Direction`].
    holes: [Option<Box<Holes>>; 2],
    /// By [`Direction`], if segments are put in order first.
    queues: Option<Box<[SegmentQueue; 2]>>,
}

/// What one segment caused, in addition to the changes in [`Flow`] and [`ListenerStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Notable changes; see [`crate::flow::notable`].
    pub notes: u32,
    /// The [`head_kind`](crate::event::head_kind) with which it begins if that belongs to an upgrade,
    /// otherwise 0.
    pub head: u8,
    /// Offset at which the head begins: after a [`ProxyHeader`].
    pub head_at: u32,
    /// Steps of the walk; at most [`MAX_STEPS`].
    pub steps: u32,
    /// The walk reached the limit: the rest is counted in
    /// [`unsynced_bytes`](ListenerStats::unsynced_bytes).
    pub too_long: bool,
    /// Some of the payload was not in `payload`.
    pub unreadable: bool,
}

impl Taken {
    const NOTHING: Self = Self {
        notes: 0,
        head: 0,
        head_at: 0,
        steps: 0,
        too_long: false,
        unreadable: false,
    };
}

/// A frame that was accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenFrame {
    /// Not always the direction of the segment: an acknowledgement may show that nothing more will come to
    /// prove the frames seen in the other direction.
    pub direction: Direction,
    pub header: Header,
    /// For a pong that answers a ping: the round trip in microseconds, at least 1; otherwise 0.
    pub ping_rtt_us: u32,
}

impl Connection {
    /// A connection of which nothing was seen.
    pub const EMPTY: Self = Self {
        flow: Flow::EMPTY,
        totals: ConnectionTotals::EMPTY,
        tls: None,
        holes: [None, None],
        queues: None,
    };

    /// A connection that puts segments in order before it walks over them. A recording allows this; the
    /// kernel does not, because it keeps no payload.
    pub fn in_order() -> Self {
        Self {
            queues: Some(Box::default()),
            ..Self::EMPTY
        }
    }

    /// Processes one segment at `now` (CLOCK_MONOTONIC, nanoseconds). `payload` may be shorter than the
    /// segment's length if it was truncated. `seen` receives each frame once it is accounted for.
    #[expect(
        clippy::too_many_arguments,
        reason = "a connection and its listener on one side, a segment on the other"
    )]
    pub fn take(
        &mut self,
        direction: Direction,
        segment: &Segment,
        payload: &[u8],
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
        mut seen: impl FnMut(&SeenFrame),
    ) -> Taken {
        // Borrowed separately from the rest of the connection.
        let mut totals = self.totals;
        let mut segment_walk = SegmentWalk {
            direction,
            segment,
            payload: PayloadBytes(payload),
            now,
            stats,
            totals: &mut totals,
            seen: &mut seen,
            taken: Taken::NOTHING,
        };
        match direction {
            Direction::Rx => self.flow.receive(segment, now, limits, segment_walk.stats),
            Direction::Tx => self.flow.send(segment, now, limits, segment_walk.stats),
        }
        let gap = self.flow.ended_gap(now);
        segment_walk.totals.idle_gap(direction, gap);
        if segment.has(tcp_flags::ACK) {
            segment_walk.pass_acknowledged(self);
        }
        if segment.payload_len > 0 {
            segment_walk.go(self);
        }
        let mut taken = segment_walk.taken;
        self.totals = totals;
        taken.notes = self.flow.walk_mut(direction).take_notes();
        taken
    }

    /// Counts what is unfinished when the connection ends.
    pub fn end(&mut self, stats: &mut ListenerStats) {
        for direction in Direction::ALL {
            let waiting = self.waiting_bytes(direction);
            stats.unsynced_bytes[direction.index()].add(waiting);
            self.totals.unsynced(direction, waiting);
        }
        self.holes = [None, None];
        self.queues = None;
        self.flow.end(stats);
    }

    /// Bytes that arrived after a hole and are not accounted for: lost if the stream ends now.
    pub fn waiting_bytes(&self, direction: Direction) -> u64 {
        let behind_holes = self.holes[direction.index()]
            .as_ref()
            .map_or(0, |holes| holes.waiting_bytes());
        let in_queue = self
            .queues
            .as_ref()
            .map_or(0, |queues| queues[direction.index()].bytes());
        behind_holes + in_queue
    }
}

/// One segment being processed.
struct SegmentWalk<'a> {
    direction: Direction,
    segment: &'a Segment,
    payload: PayloadBytes<'a>,
    now: u64,
    stats: &'a mut ListenerStats,
    totals: &'a mut ConnectionTotals,
    seen: &'a mut dyn FnMut(&SeenFrame),
    taken: Taken,
}

impl SegmentWalk<'_> {
    /// Acknowledged bytes have arrived: a hole in them exists only in the recording.
    fn pass_acknowledged(&mut self, connection: &mut Connection) {
        let other = self.direction.opposite();
        self.go_on_in_queue(connection, other, |front, queue| {
            !queue.is_empty() && after(self.segment.ack, front)
        });
        let Connection { flow, holes, .. } = connection;
        if let Some(waiting) = &mut holes[other.index()] {
            while !waiting.is_empty() && after(self.segment.ack, flow.walk_mut(other).next_seq) {
                let lost = waiting.give_up(flow.walk_mut(other));
                self.count_unsynced(other, lost.into());
                self.bridge(other, flow, waiting);
            }
            forget_filled(other, flow, &mut holes[other.index()]);
        }
    }

    fn go(&mut self, connection: &mut Connection) {
        let direction = self.direction;
        let Connection { flow, queues, .. } = connection;
        let Some(queue) = queues.as_mut().map(|queues| &mut queues[direction.index()]) else {
            self.pass(connection);
            return;
        };
        if flow
            .walk_mut(direction)
            .waits_for(self.segment.payload_seq(), self.segment.payload_len)
        {
            queue.push(self.segment, self.payload.0);
        } else {
            self.pass(connection);
        }
        self.go_on_in_queue(connection, direction, |_, queue| queue.is_too_long());
    }

    /// Takes the next in-order segments from a queue. Skips a hole where `gives_up` returns true for the
    /// next sequence number.
    fn go_on_in_queue(
        &mut self,
        connection: &mut Connection,
        direction: Direction,
        gives_up: impl Fn(u32, &SegmentQueue) -> bool,
    ) {
        loop {
            let Connection { flow, queues, .. } = &mut *connection;
            let Some(queue) = queues.as_mut().map(|queues| &mut queues[direction.index()]) else {
                return;
            };
            let walk = flow.walk_mut(direction);
            let next = match queue.pop(walk.next_seq) {
                Some(next) => next,
                None if gives_up(walk.next_seq, queue) => {
                    let Some(hole) = queue.distance(walk.next_seq) else {
                        return;
                    };
                    let lost = walk.leap(hole);
                    self.count_unsynced(direction, lost.into());
                    continue;
                }
                None => return,
            };
            let mut segment_walk = SegmentWalk {
                direction,
                segment: &next.segment,
                payload: PayloadBytes(&next.payload),
                now: self.now,
                stats: &mut *self.stats,
                totals: &mut *self.totals,
                seen: &mut *self.seen,
                taken: Taken::NOTHING,
            };
            segment_walk.pass(connection);
        }
    }

    /// Runs the walk, now or when the missing bytes have arrived.
    fn pass(&mut self, connection: &mut Connection) {
        let Connection {
            flow, tls, holes, ..
        } = connection;
        let (direction, segment) = (self.direction, self.segment);
        let holes = &mut holes[direction.index()];
        let mut skip = 0;
        if flow.is_undecided(direction, segment) {
            let len = segment.payload_len;
            if flow.may_be_proxied(direction) {
                skip = ProxyHeader::len_in(&self.payload, len);
            }
            let (rest, len) = (self.payload.behind(skip), len - skip);
            self.taken.head_at = skip;
            let recognised = flow.recognise(
                direction,
                segment,
                len,
                &rest,
                self.now,
                self.stats,
                |needle| find(needle, &rest, len),
            );
            self.taken.head = recognised.head;
            self.count_unsynced(direction.opposite(), recognised.unsynced_bytes);
        }
        if flow.may_have_records() {
            self.pass_records(flow, tls, skip);
        }
        let mut place = self.place(flow, true);
        if place == SegmentPlace::Ahead {
            let waiting = holes.get_or_insert_with(|| Box::new(Holes::EMPTY));
            flow.walk_mut(direction).set_holes(true);
            match waiting.land(segment.payload_seq(), segment.payload_len) {
                Landing::Old => {}
                Landing::PendingRun(begin) => self.walk_pending_run(flow, waiting, begin),
                Landing::NoRoom => place = self.place(flow, false),
            }
        }
        if let SegmentPlace::Front(at) = place {
            self.walk(flow, at);
        }
        if let Some(waiting) = holes {
            self.bridge(direction, flow, waiting);
            forget_filled(direction, flow, holes);
        }
    }

    fn place(&mut self, flow: &mut Flow, patient: bool) -> SegmentPlace {
        let (seq, len) = (self.segment.payload_seq(), self.segment.payload_len);
        let (place, lost) = flow.place(self.direction, seq, len, patient);
        self.count_unsynced(self.direction, lost.into());
        place
    }

    /// Walks over the unseen part of the segment, which begins at `begin`.
    fn walk(&mut self, flow: &mut Flow, begin: u32) {
        let len = self.segment.payload_len;
        let from_client = flow.snapshot.from_client(self.direction);
        let mut at = begin;
        while self.taken.steps < MAX_STEPS {
            self.taken.steps += 1;
            let walk = flow.walk_mut(self.direction);
            match walk.step(&mut at, begin, len, from_client, &self.payload) {
                Step::End => return,
                Step::Unreadable => {
                    self.taken.unreadable = true;
                    self.count_unsynced(self.direction, (len - at).into());
                    return;
                }
                Step::Again => {}
                Step::Frame(header) => self.frame(self.direction, flow, &header),
                Step::Unsynced(bytes) => self.count_unsynced(self.direction, bytes.into()),
                Step::Synced(bytes) => {
                    self.count_unsynced(self.direction, bytes.into());
                    flow.resync(self.direction, self.now, self.stats);
                }
            }
        }
        let walk = flow.walk_mut(self.direction);
        let left = walk.abandon(at, begin, len);
        self.taken.too_long = left > 0;
        self.count_unsynced(self.direction, left.into());
    }

    /// Walks over the TLS records of the segment, which begin after `skip` bytes.
    fn pass_records(&mut self, flow: &mut Flow, tls: &mut Option<Box<TlsFlow>>, skip: u32) {
        let payload = self.payload.behind(skip);
        let len = self.segment.payload_len - skip;
        if tls.is_none() && !RecordHeader::may_begin(&payload, len) {
            return;
        }
        let tls = tls.get_or_insert_with(|| Box::new(TlsFlow::EMPTY));
        let seq = self.segment.payload_seq().wrapping_add(skip);
        let Some(begin) = tls.walk_mut(self.direction).place(seq, len) else {
            return;
        };
        let mut at = begin;
        for _ in 0..RECORD_STEPS {
            let walk = tls.walk_mut(self.direction);
            match walk.step(&mut at, begin, len, &payload) {
                RecordStep::End => return,
                RecordStep::Again => {}
                RecordStep::Hello(fact) => flow.tls_hello(tls, fact),
                RecordStep::Record(header) => {
                    flow.tls_record(tls, self.direction, &header, self.now, self.stats);
                }
            }
        }
        tls.walk_mut(self.direction).lose_sync();
    }

    fn walk_pending_run(&mut self, flow: &Flow, holes: &mut Holes, begin: u32) {
        let len = self.segment.payload_len;
        let from_client = flow.snapshot.from_client(self.direction);
        let mut at = begin;
        for _ in 0..PENDING_RUN_STEPS {
            self.taken.steps += 1;
            let seq = self.segment.payload_seq();
            if !holes.step(&mut at, begin, seq, len, from_client, &self.payload) {
                return;
            }
        }
        holes.give_up_segment();
    }

    fn bridge(&mut self, direction: Direction, flow: &mut Flow, holes: &mut Holes) {
        holes.begin_bridge();
        for _ in 0..BRIDGE_STEPS {
            match holes.bridge(flow.walk_mut(direction)) {
                Bridge::End => return,
                Bridge::Again => {}
                Bridge::Frame(header) => self.frame(direction, flow, &header),
                Bridge::Unsynced(bytes) => self.count_unsynced(direction, bytes.into()),
            }
        }
    }

    fn frame(&mut self, direction: Direction, flow: &mut Flow, header: &Header) {
        let effect = flow.frame(direction, header, self.now, self.stats);
        let first_byte = header.first_byte();
        self.totals
            .frame(direction, first_byte, effect.broken_rules());
        if effect.ping_rtt_us() != 0 {
            self.totals.round_trip(direction, effect.ping_rtt_us());
        }
        (self.seen)(&SeenFrame {
            direction,
            header: *header,
            ping_rtt_us: effect.ping_rtt_us(),
        });
    }

    fn count_unsynced(&mut self, direction: Direction, bytes: u64) {
        self.stats.unsynced_bytes[direction.index()].add(bytes);
        self.totals.unsynced(direction, bytes);
    }
}

fn forget_filled(direction: Direction, flow: &mut Flow, holes: &mut Option<Box<Holes>>) {
    if holes.as_ref().is_some_and(|waiting| waiting.is_empty()) {
        flow.walk_mut(direction).set_holes(false);
        *holes = None;
    }
}

/// The header field that makes a 101 a WebSocket upgrade may be in the truncated part. Then only the status
/// line is available.
fn find(needle: Needle, payload: &impl Payload, len: u32) -> bool {
    let is_cut = payload.readable(0) < len;
    (is_cut && needle == Needle::ACCEPT) || is_there(needle, payload, len)
}

fn is_there(needle: Needle, payload: &impl Payload, len: u32) -> bool {
    (0..Needle::MAX_STEPS)
        .map(|step| step * Needle::STRIDE)
        .take_while(|at| *at < len)
        .filter_map(|at| payload.read(at, 14.min(len - at).min(payload.readable(at)).max(1)))
        .any(|bytes| needle.is_in(&bytes))
}

/// The payload after its [`ProxyHeader`], if it begins with one.
pub fn behind_proxy_header(payload: &[u8]) -> &[u8] {
    let bytes = PayloadBytes(payload);
    bytes
        .behind(ProxyHeader::len_in(&bytes, payload.len() as u32))
        .0
}

struct PayloadBytes<'a>(&'a [u8]);

impl<'a> PayloadBytes<'a> {
    /// The payload after the first `skip` bytes.
    fn behind(&self, skip: u32) -> PayloadBytes<'a> {
        PayloadBytes(self.0.get(skip as usize..).unwrap_or_default())
    }
}

impl Payload for PayloadBytes<'_> {
    fn read(&self, offset: u32, len: u32) -> Option<Head> {
        let range = offset as usize..offset as usize + len as usize;
        let mut head = Head::default();
        for (i, byte) in (0_u8..).zip(self.0.get(range)?) {
            head.put(i, *byte);
        }
        Some(head)
    }

    fn readable(&self, offset: u32) -> u32 {
        (self.0.len() as u32).saturating_sub(offset)
    }
}
