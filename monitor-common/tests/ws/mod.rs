//! WebSocket byte streams with a list of their frames, and ways to cut them into segments.
//!
//! Shared with the tests of the kernel programs, which process the same segments.
#![allow(dead_code, reason = "each test target uses its part")]

use std::ops::Range;

use monitor_common::{
    Direction,
    flow::Flow,
    frame::Header,
    listener::ListenerLimits,
    replay::{Connection, Taken},
    segment::{Segment, tcp_flags},
    snapshot::{protocol, role},
    stats::ListenerStats,
    stream::{Walk, mode},
};
use proptest::{prelude::*, sample::select};
use wire::{BINARY, CLOSE, PING, PONG, REQUEST, RESPONSE, TEXT};

/// Fills payloads and masking keys: not the start of any legal header.
pub(crate) const FILL: u8 = 0xff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) len: usize,
    /// The first two bytes of a close frame's payload.
    pub(crate) code: Option<u16>,
}

impl Frame {
    pub(crate) const fn new(fin: bool, opcode: u8, len: usize) -> Self {
        Self {
            fin,
            opcode,
            len,
            code: None,
        }
    }

    pub(crate) const fn close(code: u16, reason: usize) -> Self {
        Self {
            fin: true,
            opcode: CLOSE,
            len: 2 + reason,
            code: Some(code),
        }
    }

    /// Bytes of the payload that are taken with the header.
    pub(crate) fn loaded(&self) -> usize {
        match self.opcode {
            CLOSE if self.code.is_some() => 2,
            PING | PONG => self.len.min(8),
            _ => 0,
        }
    }

    fn bytes(&self, masked: bool) -> Vec<u8> {
        // The same payload masked or not, so that pongs can match pings. Masked it is zeros, which have
        // no mask bit.
        let mut payload = vec![FILL; self.len];
        if let Some(code) = self.code {
            payload[..2].copy_from_slice(&code.to_be_bytes());
        }
        let key = masked.then_some([FILL; 4]);
        let mut bytes = wire::frame(self.opcode, &payload, key);
        bytes[0] = u8::from(self.fin) << 7 | self.opcode;
        bytes
    }
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of HTTP in front of the frames.
    pub(crate) http: usize,
    /// Each frame with the offset at which its header is complete, including the part of a control frame's
    /// payload that is taken with it.
    pub(crate) frames: Vec<(usize, Frame)>,
}

impl Stream {
    pub(crate) fn new(http: &[u8], frames: &[Frame], masked: bool) -> Self {
        let mut bytes = http.to_vec();
        let frames = frames
            .iter()
            .map(|frame| {
                bytes.extend(frame.bytes(masked));
                (bytes.len() - frame.len + frame.loaded(), *frame)
            })
            .collect();
        Self {
            bytes,
            http: http.len(),
            frames,
        }
    }

    /// Whether all of `range` is payload, so that losing it hides no header.
    pub(crate) fn is_payload(&self, range: &Range<usize>) -> bool {
        self.frames.iter().any(|(header_end, frame)| {
            *header_end <= range.start && range.end <= header_end - frame.loaded() + frame.len
        })
    }
}

/// Cuts `len` bytes into ranges of these sizes, repeatedly.
pub(crate) fn cut(len: usize, sizes: &[usize]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        if at == len {
            return ranges;
        }
        let end = len.min(at + size);
        ranges.push(at..end);
        at = end;
    }
    ranges
}

/// Whole messages, some in fragments with control frames between them; perhaps a close frame.
pub(crate) fn frames(
    lengths: impl Strategy<Value = usize> + Clone,
) -> impl Strategy<Value = Vec<Frame>> {
    let data = (select(vec![TEXT, BINARY]), lengths.clone())
        .prop_map(|(opcode, len)| vec![Frame::new(true, opcode, len)]);
    let control = (select(vec![PING, PONG]), 0..=125_usize)
        .prop_map(|(opcode, len)| Frame::new(true, opcode, len));
    let fragmented = (
        select(vec![TEXT, BINARY]),
        prop::collection::vec((lengths, prop::option::of(control.clone())), 2..5),
    )
        .prop_map(|(first, fragments)| {
            let last = fragments.len() - 1;
            let mut frames = Vec::new();
            for (i, (len, between)) in fragments.into_iter().enumerate() {
                let opcode = if i == 0 { first } else { 0 };
                frames.push(Frame::new(i == last, opcode, len));
                frames.extend(between);
            }
            frames
        });
    let message = prop_oneof![
        4 => data,
        3 => control.prop_map(|frame| vec![frame]),
        2 => fragmented,
    ];
    let close = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Frame::new(true, CLOSE, 0))),
        2 => (1000..5000_u16, 0..=123_usize).prop_map(|(code, reason)| Some(Frame::close(code, reason))),
    ];
    (prop::collection::vec(message, 0..8), close).prop_map(|(messages, close)| {
        let mut frames: Vec<_> = messages.into_iter().flatten().collect();
        frames.extend(close);
        frames
    })
}

/// All three encodings, with their limits.
pub(crate) fn lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![
        2 => Just(0),
        6 => 1..=125_usize,
        3 => select(vec![125, 126, 127, 1400, 0xffff]),
        2 => 126..=3000_usize,
        1 => select(vec![0x1_0000, 0x1_0001, 70_000]),
    ]
}

/// Segment sizes: from one byte to those that GRO produces.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        2 => Just(1),
        4 => 2..=20_usize,
        3 => 21..=200_usize,
        3 => Just(1448),
        1 => 10_000..=60_000_usize,
    ];
    prop::collection::vec(size, 1..12)
}

/// What happens to a segment in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    ArrivesTwice,
    /// A retransmission includes this many earlier bytes.
    Overlaps(usize),
    /// The monitor never sees it, but the receiver gets it.
    Unseen,
}

pub(crate) fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        1 => (1..200_usize).prop_map(Fate::Overlaps),
        2 => Just(Fate::Unseen),
    ];
    prop::collection::vec(fate, 1..20)
}

/// One connection that processes segments natively, and the exact account of each.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) connection: Connection,
    pub(crate) stats: ListenerStats,
    pub(crate) limits: ListenerLimits,
    pub(crate) now: u64,
}

/// What one segment added, in addition to its [`Taken`].
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) taken: Taken,
    pub(crate) frames: Vec<Header>,
    /// Bytes by which the stream advanced, holes included.
    pub(crate) advanced: u64,
    /// Bytes of the frames whose headers were completed.
    pub(crate) framed: u64,
    pub(crate) unsynced: u64,
    /// Change in bytes that wait for the rest of their frame or header.
    pub(crate) pending: i64,
}

impl Account {
    /// Bytes that were passed and are in no account.
    pub(crate) fn missing(&self) -> i64 {
        let reported = (self.framed + self.unsynced).cast_signed() + self.pending;
        self.advanced.cast_signed() - reported
    }
}

impl Monitor {
    pub(crate) fn new(role: u8) -> Self {
        let mut connection = Connection::EMPTY;
        connection.flow.snapshot.role = role;
        Self {
            connection,
            stats: ListenerStats::EMPTY,
            limits: ListenerLimits { idle_limit_ns: 0 },
            now: 1,
        }
    }

    /// After the upgrade, so that the next bytes of both directions are frames.
    pub(crate) fn upgraded(role: u8) -> Self {
        let mut monitor = Self::new(role);
        monitor.connection.flow.snapshot.protocol = protocol::WEBSOCKET;
        for direction in Direction::ALL {
            monitor.walk(direction).mode = mode::FRAMES;
        }
        monitor
    }

    /// After the upgrade, with the first byte of both directions at `seq`.
    pub(crate) fn upgraded_at(role: u8, seq: u32) -> Self {
        let mut monitor = Self::new(role);
        let (client, server) = (monitor.client(), monitor.client().opposite());
        monitor.take(client, seq.wrapping_sub(REQUEST.len() as u32), REQUEST);
        monitor.take(server, seq.wrapping_sub(RESPONSE.len() as u32), RESPONSE);
        assert_eq!(monitor.flow().snapshot.protocol, protocol::WEBSOCKET);
        monitor
    }

    /// Adopted in mid-stream.
    pub(crate) fn adopted(role: u8) -> Self {
        let mut monitor = Self::new(role);
        monitor.connection.flow.join_mid_stream(Direction::Rx);
        monitor
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.connection.flow
    }

    pub(crate) fn walk(&mut self, direction: Direction) -> &mut Walk {
        self.connection.flow.walk_mut(direction)
    }

    /// The direction in which the client sends.
    pub(crate) fn client(&self) -> Direction {
        if self.flow().snapshot.role == role::SERVER {
            Direction::Rx
        } else {
            Direction::Tx
        }
    }

    pub(crate) fn take(&mut self, direction: Direction, seq: u32, payload: &[u8]) -> Account {
        self.take_segment(direction, &data_segment(seq, payload.len()), payload)
    }

    pub(crate) fn take_segment(
        &mut self,
        direction: Direction,
        segment: &Segment,
        payload: &[u8],
    ) -> Account {
        let i = direction.index();
        let before = *self.walk(direction);
        let unsynced = self.stats.unsynced_bytes[i].get();
        self.now += 1;
        let mut frames = Vec::new();
        let taken = self.connection.take(
            direction,
            segment,
            payload,
            self.now,
            &self.limits,
            &mut self.stats,
            |frame| frames.extend((frame.direction == direction).then_some(frame.header)),
        );
        let after = *self.walk(direction);
        let advanced = if before.is_live() {
            u64::from(after.next_seq.wrapping_sub(before.next_seq))
        } else {
            u64::from(segment.payload_len)
        };
        let waiting = |walk: &Walk| match walk.mode {
            mode::FRAMES => i64::from(walk.carry_len) - walk.skip.cast_signed(),
            _ => 0,
        };
        Account {
            taken,
            advanced,
            framed: frames
                .iter()
                .map(|header| u64::from(header.taken) + header.bytes_to_skip())
                .sum(),
            frames,
            unsynced: self.stats.unsynced_bytes[i].get() - unsynced,
            pending: waiting(&after) - waiting(&before),
        }
    }
}

pub(crate) fn data_segment(seq: u32, len: usize) -> Segment {
    Segment {
        seq,
        ack: 0,
        window: 512,
        flags: tcp_flags::ACK,
        payload_offset: 40,
        payload_len: len as u32,
    }
}
