//! Ring-buffer records.

use num_enum::TryFromPrimitive;
use strum::{IntoStaticStr, VariantArray};

use crate::{connection_totals::ConnectionTotals, snapshot::Snapshot};

/// One record of the `VITALS` ring: an event on which a verdict may depend, with a copy of the flow's facts
/// at that moment. The daemon needs no later look-up, which could come too late.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VitalEvent {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// For [`EventKind::Closed`] a [`CloseHow`], otherwise 0.
    pub detail: u32,
    pub snapshot: Snapshot,
}

/// An [`EventKind::Closed`] with the connection's account, if the daemon needs it. The length of a record
/// distinguishes the kinds.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ClosedEvent {
    pub vital: VitalEvent,
    pub totals: ConnectionTotals,
}

/// A socket began or stopped listening on a watched port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenEvent {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: u64,
    /// [`EventKind::Listening`] or [`EventKind::ListenEnded`].
    pub kind: u32,
    /// The inode of its network namespace.
    pub netns: u32,
    pub cookie: u64,
    pub listener: u16,
    pub port: u16,
    pub _pad: u32,
}

/// Why a [`VitalEvent`] or a [`ListenEvent`] was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromPrimitive)]
#[num_enum(error_type(name = u32, constructor = core::convert::identity))]
#[repr(u32)]
pub enum EventKind {
    /// Recognised as WebSocket or TLS, or adopted in mid-stream.
    Opened = 1,
    /// The first FIN or close frame.
    Closing = 2,
    /// The socket reached CLOSE.
    Closed = 3,
    /// Recognised as plain HTTP.
    Dismissed = 4,
    /// The second or fifth transmission of bytes without progress.
    Retransmit = 5,
    /// An idle gap longer than the idle limit ended.
    Resumed = 6,
    /// The peer answered after a trouble, or a window is open again.
    Answered = 7,
    /// This host sent the first ping, or the second try; see [`Snapshot::second_try`].
    PingUnanswered = 8,
    /// A reset was sent or received.
    Reset = 9,
    /// A socket listens on a watched port of this host.
    Listening = 10,
    /// The socket stopped listening.
    ListenEnded = 11,
    /// This host or the peer has advertised a window of 0 for
    /// [`CLOSED_WINDOW_REPORT`](crate::snapshot::CLOSED_WINDOW_REPORT).
    WindowClosed = 12,
}

/// How a connection ended: the first event that decided it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoStaticStr,
    TryFromPrimitive,
    VariantArray,
)]
#[num_enum(error_type(name = u32, constructor = core::convert::identity))]
#[repr(u32)]
#[strum(serialize_all = "snake_case")]
pub enum CloseHow {
    CloseFrame = 0,
    Fin = 1,
    RstSent = 2,
    RstReceived = 3,
    /// TCP gave up: data was outstanding and neither side had closed.
    Timeout = 4,
    Unknown = 5,
}

impl CloseHow {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One record of the `HANDSHAKES` ring: the first bytes of an upgrade request or response (RFC 6455 §4),
/// sent once each per attempt. Userspace parses them.
///
/// `ROOM` is the smallest of [`HEAD_ROOMS`] that fits the head. Most heads need a quarter of the largest
/// room, so the ring holds three times as many.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HandshakeRecord<const ROOM: usize = REQUEST_HEAD_MAX> {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: u64,
    pub cookie: u64,
    /// When TCP reached ESTABLISHED; 0 if that was before the monitor started.
    pub established_at: u64,
    /// Network byte order; IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    pub listener: u16,
    /// Number of valid bytes in `head`: up to [`REQUEST_HEAD_MAX`] or [`RESPONSE_HEAD_MAX`].
    pub len: u16,
    /// 4 or 6.
    pub ip_version: u8,
    /// A [`crate::snapshot::role`].
    pub role: u8,
    /// A [`head_kind`].
    pub kind: u8,
    pub _pad: [u8; 5],
    pub head: [u8; ROOM],
}

/// Room for a head in a [`HandshakeRecord`], bytes.
pub const HEAD_ROOMS: [usize; 3] = [256, RESPONSE_HEAD_MAX, REQUEST_HEAD_MAX];

/// The kind of head in a [`HandshakeRecord`].
pub mod head_kind {
    pub const REQUEST: u8 = 1;
    pub const RESPONSE: u8 = 2;
}

/// Bytes of an upgrade request that are sent to userspace.
pub const REQUEST_HEAD_MAX: usize = 1024;
/// Bytes of an upgrade response that are sent to userspace.
pub const RESPONSE_HEAD_MAX: usize = 512;

/// One record of the `SAMPLES` ring: a frame header, for a live viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FrameSample {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: u64,
    pub cookie: u64,
    /// Bytes.
    pub payload_len: u64,
    /// For a pong that answers a ping: the round trip in microseconds, at least 1; otherwise 0.
    pub ping_rtt_us: u32,
    /// 0 = none.
    pub close_code: u16,
    pub listener: u16,
    /// FIN, RSV and opcode as on the wire (RFC 6455 §5.2).
    pub first_byte: u8,
    /// 1 = masked.
    pub masked: u8,
    /// A [`crate::Direction`].
    pub direction: u8,
    // A byte and a word, because the compiler zeroes an array of five with a call of `memset`.
    pub _pad: u8,
    pub _pad_word: u32,
}

const _: () = assert!(size_of::<VitalEvent>() == 16 + size_of::<Snapshot>());
const _: () = assert!(core::mem::offset_of!(VitalEvent, snapshot) == 16);
const _: () =
    assert!(size_of::<ClosedEvent>() == size_of::<VitalEvent>() + size_of::<ConnectionTotals>());
const _: () = assert!(size_of::<ListenEvent>() == 32);
const _: () = assert!(size_of::<HandshakeRecord>() == 72 + REQUEST_HEAD_MAX);
const _: () = assert!(core::mem::offset_of!(HandshakeRecord, head) == 72);
const _: () = assert!(size_of::<HandshakeRecord<256>>() == 72 + HEAD_ROOMS[0]);
const _: () = assert!(size_of::<FrameSample>() == 40);
const _: () = assert!(core::mem::offset_of!(FrameSample, first_byte) == 32);
