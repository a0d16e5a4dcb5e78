//! WebSocket byte streams with the list of what is in them, and ways to cut them into segments.
//!
//! Shared with the tests of the kernel programs, which take the same segments.
#![allow(dead_code, reason = "each test target uses its part")]

use std::ops::Range;

use monitor_common::{
    Direction,
    flow::Flow,
    listener::ListenerLimits,
    replay::{self, Taken},
    segment::{Segment, tcp_flags},
    snapshot::{protocol, role},
    stats::ListenerStats,
    stream::{Step, mode},
};
use proptest::{prelude::*, sample::select};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
pub(crate) const RESPONSE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

/// What fills payloads and masking keys: not the start of any legal header.
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

    /// Appends the frame as it is on the wire (RFC 6455 §5.2).
    fn write(&self, masked: bool, stream: &mut Vec<u8>) {
        stream.push(u8::from(self.fin) << 7 | self.opcode);
        let mask = u8::from(masked) << 7;
        match self.len {
            len @ 0..=125 => stream.push(mask | len as u8),
            len @ 126..=0xffff => {
                stream.push(mask | 126);
                stream.extend((len as u16).to_be_bytes());
            }
            len => {
                stream.push(mask | 127);
                stream.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            stream.extend([FILL; 4]);
        }
        let payload = stream.len();
        stream.resize(payload + self.len, FILL);
        if let Some(code) = self.code {
            let key = if masked {
                u16::from_be_bytes([FILL; 2])
            } else {
                0
            };
            stream[payload..payload + 2].copy_from_slice(&(code ^ key).to_be_bytes());
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of HTTP in front of the frames.
    pub(crate) http: usize,
    /// Each frame with the offset at which its header is complete, close code included.
    pub(crate) frames: Vec<(usize, Frame)>,
}

impl Stream {
    pub(crate) fn new(http: &[u8], frames: &[Frame], masked: bool) -> Self {
        let mut bytes = http.to_vec();
        let frames = frames
            .iter()
            .map(|frame| {
                frame.write(masked, &mut bytes);
                let code = if frame.code.is_some() { 2 } else { 0 };
                (bytes.len() - frame.len + code, *frame)
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
            let code = if frame.code.is_some() { 2 } else { 0 };
            *header_end <= range.start && range.end <= header_end - code + frame.len
        })
    }
}

/// Cuts `len` bytes into ranges of these sizes, over and over.
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

/// All three encodings, with their edges.
pub(crate) fn lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![
        2 => Just(0),
        6 => 1..=125_usize,
        3 => select(vec![125, 126, 127, 1400, 0xffff]),
        2 => 126..=3000_usize,
        1 => select(vec![0x1_0000, 0x1_0001, 70_000]),
    ]
}

/// Segment sizes: from one byte to what GRO joins.
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

/// What happens to a segment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    ArrivesTwice,
    /// A retransmission brings this many earlier bytes along.
    Overlaps(usize),
    /// It is never seen, though the receiver gets it.
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

/// One flow that takes segments natively, and the exact account of each.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) flow: Flow,
    pub(crate) stats: ListenerStats,
    pub(crate) limits: ListenerLimits,
    pub(crate) now: u64,
}

/// What one segment added, besides its [`Taken`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) taken: Taken,
    /// Bytes by which the stream went forward, holes included.
    pub(crate) advanced: u64,
    /// Bytes of the frames whose headers were completed.
    pub(crate) framed: u64,
    pub(crate) unsynced: u64,
    /// Bytes that wait for the rest of their frame or header: by how much they changed.
    pub(crate) pending: i64,
    /// The direction was in step before, after and all through.
    pub(crate) in_step: bool,
}

impl Monitor {
    pub(crate) fn new(role: u8) -> Self {
        let mut flow = Flow::EMPTY;
        flow.snapshot.role = role;
        Self {
            flow,
            stats: ListenerStats::EMPTY,
            limits: ListenerLimits { idle_limit_ns: 0 },
            now: 1,
        }
    }

    /// Past the upgrade, so that the next bytes of both directions are frames.
    pub(crate) fn upgraded(role: u8) -> Self {
        let mut monitor = Self::new(role);
        monitor.flow.snapshot.protocol = protocol::WEBSOCKET;
        monitor.flow.rx_walk.mode = mode::FRAMES;
        monitor.flow.tx_walk.mode = mode::FRAMES;
        monitor
    }

    /// Met in mid-stream.
    pub(crate) fn adopted(role: u8) -> Self {
        let mut monitor = Self::new(role);
        monitor.flow.adopt(Direction::Rx);
        monitor
    }

    /// The direction in which the client sends.
    pub(crate) fn client(&self) -> Direction {
        if self.flow.snapshot.role == role::SERVER {
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
        let before = *self.flow.walk_mut(direction);
        let unsynced = self.stats.unsynced_bytes[i].get();
        self.now += 1;
        let (mut framed, mut in_step) = (0, before.mode == mode::FRAMES);
        let taken = replay::take(
            &mut self.flow,
            direction,
            segment,
            payload,
            self.now,
            &self.limits,
            &mut self.stats,
            |step| match step {
                Step::Frame(header) => framed += u64::from(header.taken) + header.bytes_to_skip(),
                Step::Synced => in_step = false,
                _ => {}
            },
        );
        let after = *self.flow.walk_mut(direction);
        let advanced = if before.started == 0 {
            u64::from(segment.payload_len)
        } else {
            u64::from(after.next_seq.wrapping_sub(before.next_seq))
        };
        let carry = i64::from(after.carry_len) - i64::from(before.carry_len);
        let skip = after.skip.cast_signed() - before.skip.cast_signed();
        Account {
            taken,
            advanced,
            framed,
            unsynced: self.stats.unsynced_bytes[i].get() - unsynced,
            pending: carry - skip,
            in_step: in_step && after.mode == mode::FRAMES,
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
