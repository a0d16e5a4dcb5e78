//! The published form of a socket's [`Snapshot`], in 192 bytes.
//!
//! An element of the kernel's hash map consists of key, value and 56 more bytes, and takes 128, 192, 256 or
//! 512 bytes: a whole snapshot would take twice as much. So moments are rounded up to a tick, small numbers
//! have narrow fields, and the fields that only the kernel programs need are left out.

use crate::{
    listener::MAX_LISTENERS,
    moment::{AHEAD, HALF_TICK_SHIFT, Moment, TICK},
    snapshot::{DirectionFacts, Snapshot},
};

/// The facts of one socket, except its cookie, which is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Published {
    cgroup_id: u64,
    local_addr: [u8; 16],
    remote_addr: [u8; 16],
    published_at: Moment,
    established_at: Moment,
    opened_at: Moment,
    closing_at: Moment,
    rx: PublishedDirection,
    tx: PublishedDirection,
    /// When the first try left. If `kinds` has the bit [`CLOSED`]: since when this host's window is closed;
    /// else, if `rx.ends` has the bit [`PEER_CLOSED`]: since when the peer's is. A closed window clears the
    /// tries.
    first_try_or_closed: Moment,
    unacked_since: Moment,
    ack_progress_at: Moment,
    unanswered_since: Moment,
    gap_to: Moment,
    gap_ticks: u32,
    outstanding: u32,
    retransmits: u32,
    loss: u16,
    unanswered_sends: u16,
    local_port: u16,
    remote_port: u16,
    close_code: u16,
    /// As in the snapshot.
    second_try_after: u16,
    /// Saturates at 255.
    retransmits_without_progress: u8,
    /// There are at most 256.
    listener: u8,
    /// The fields with few values; see [`pack`].
    kinds: u16,
}

/// The facts of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct PublishedDirection {
    last_packet: Moment,
    last_payload: Moment,
    last_frame: Moment,
    last_data_frame: Moment,
    last_ping: Moment,
    payload_bytes: u32,
    payload_bytes_high: u16,
    ping_interval: u16,
    frames: u32,
    pings: u32,
    ping_rtt_us: u32,
    /// Saturates at 65,535.
    pings_unanswered: u16,
    ping_jitter: u8,
    /// Bit 0 for a FIN, bit 1 for a reset; of the received direction also [`PEER_CLOSED`].
    ends: u8,
}

impl Published {
    /// All zero.
    pub const EMPTY: Self = Self {
        cgroup_id: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        published_at: Moment::NEVER,
        established_at: Moment::NEVER,
        opened_at: Moment::NEVER,
        closing_at: Moment::NEVER,
        rx: PublishedDirection::EMPTY,
        tx: PublishedDirection::EMPTY,
        first_try_or_closed: Moment::NEVER,
        unacked_since: Moment::NEVER,
        ack_progress_at: Moment::NEVER,
        unanswered_since: Moment::NEVER,
        gap_to: Moment::NEVER,
        gap_ticks: 0,
        outstanding: 0,
        retransmits: 0,
        loss: 0,
        unanswered_sends: 0,
        local_port: 0,
        remote_port: 0,
        close_code: 0,
        second_try_after: 0,
        retransmits_without_progress: 0,
        listener: 0,
        kinds: 0,
    };

    pub const fn of(s: &Snapshot) -> Self {
        let mut published = Self::EMPTY;
        published.fill(s);
        published
    }

    /// Takes over all facts of a snapshot. In place, because a value would occupy the kernel's stack of 512
    /// bytes more than once.
    #[inline(always)]
    pub const fn fill(&mut self, s: &Snapshot) {
        // Fields with branches come first. Otherwise the compiler sets zeros and then overwrites them.
        self.outstanding = s.outstanding();
        self.fill_tries(s);
        self.cgroup_id = s.cgroup_id;
        self.local_addr = s.local_addr;
        self.remote_addr = s.remote_addr;
        self.published_at = Moment::of(s.published_at);
        self.established_at = Moment::of(within_reach(s.established_at, s.published_at));
        self.opened_at = Moment::of(within_reach(s.opened_at, s.published_at));
        self.closing_at = Moment::of(s.closing_at);
        self.rx.fill(&s.rx, s.ping_rtt_us[0], s.rst_rx);
        self.rx.ends |= peer_closed(s);
        self.tx.fill(&s.tx, s.ping_rtt_us[1], s.rst_tx);
        self.unacked_since = Moment::of(s.unacked_since);
        self.ack_progress_at = Moment::of(s.ack_progress_at);
        self.unanswered_since = s.unanswered_since;
        // Rounded down, like its length.
        self.gap_to = Moment::of(s.gap_to.wrapping_sub(TICK - 1));
        self.gap_ticks = s.gap_ticks;
        self.retransmits = s.retransmits;
        self.retransmits_without_progress = narrowed_to_byte(s.retransmits_without_progress());
        self.loss = s.loss;
        self.unanswered_sends = s.unanswered_sends() as u16;
        self.local_port = s.local_port;
        self.remote_port = s.remote_port;
        self.listener = s.listener;
        self.close_code = s.close_code;
        self.kinds = pack(s);
    }

    /// A closed window clears the tries, so they share a field. If both windows are closed, only this host's
    /// is published: its own application does not read either.
    #[inline(always)]
    const fn fill_tries(&mut self, s: &Snapshot) {
        if s.own_window_closed_at.is_some() {
            self.first_try_or_closed = s.own_window_closed_at;
        } else if s.peer_window_closed_at.is_some() {
            self.first_try_or_closed = s.peer_window_closed_at;
        } else if s.has_tries() {
            self.first_try_or_closed = s.first_try;
            self.second_try_after = s.second_try_after;
        }
    }

    /// Restores a snapshot that was published before `now`, with moments rounded up. The fields that only
    /// the kernel programs need stay as they are in `s`, so `s` should be [`Snapshot::EMPTY`].
    #[inline(always)]
    pub const fn restore(&self, s: &mut Snapshot, now: u64) {
        s.published_at = self.published_at.nanos(now);
        let near = if s.published_at == 0 {
            now
        } else {
            s.published_at
        };
        s.established_at = self.established_at.nanos(near);
        s.opened_at = self.opened_at.nanos(near);
        s.closing_at = self.closing_at.nanos(near);
        s.cgroup_id = self.cgroup_id;
        s.local_addr = self.local_addr;
        s.remote_addr = self.remote_addr;
        s.local_port = self.local_port;
        s.remote_port = self.remote_port;
        s.listener = self.listener;
        s.close_code = self.close_code;
        self.rx.restore(&mut s.rx, near);
        self.tx.restore(&mut s.tx, near);
        s.rst_rx = self.rx.ends >> 1 & 1;
        s.rst_tx = self.tx.ends >> 1 & 1;
        s.ping_rtt_us = [self.rx.ping_rtt_us, self.tx.ping_rtt_us];
        if value(self.kinds, CLOSED) != 0 {
            s.own_window_closed_at = self.first_try_or_closed;
        } else if self.rx.ends & PEER_CLOSED != 0 {
            s.peer_window_closed_at = self.first_try_or_closed;
        } else {
            s.first_try = self.first_try_or_closed;
            s.second_try_after = self.second_try_after;
        }
        // Only the difference is meaningful until a packet brings real sequence numbers.
        s.snd_nxt = self.outstanding;
        s.snd_una = 0;
        s.una_known = 1;
        s.nxt_known = 1;
        s.unacked_since = self.unacked_since.nanos(near);
        s.ack_progress_at = self.ack_progress_at.nanos(near);
        s.retransmits = self.retransmits;
        s.retransmits_at_progress =
            (self.retransmits as u16).wrapping_sub(self.retransmits_without_progress as u16);
        s.loss = self.loss;
        s.eliciting_sends = self.unanswered_sends;
        s.eliciting_sends_at_answer = 0;
        s.unanswered_since = self.unanswered_since;
        s.gap_to = self.gap_to.nanos(near);
        s.gap_ticks = self.gap_ticks;
        unpack(self.kinds, s);
    }

    /// Like `restore`, but returns the snapshot.
    pub const fn snapshot(&self, cookie: u64, now: u64) -> Snapshot {
        let mut s = Snapshot::EMPTY;
        s.cookie = cookie;
        self.restore(&mut s, now);
        s
    }
}

impl PublishedDirection {
    const EMPTY: Self = Self {
        last_packet: Moment::NEVER,
        last_payload: Moment::NEVER,
        last_frame: Moment::NEVER,
        last_data_frame: Moment::NEVER,
        last_ping: Moment::NEVER,
        payload_bytes: 0,
        payload_bytes_high: 0,
        ping_interval: 0,
        frames: 0,
        pings: 0,
        ping_rtt_us: 0,
        pings_unanswered: 0,
        ping_jitter: 0,
        ends: 0,
    };

    #[inline(always)]
    const fn fill(&mut self, facts: &DirectionFacts, ping_rtt_us: u32, rst: u8) {
        self.last_packet = Moment::of(facts.last_packet);
        self.last_payload = Moment::of(facts.last_payload);
        self.last_frame = Moment::of(facts.last_frame);
        self.last_data_frame = Moment::of(facts.last_data_frame);
        self.last_ping = Moment::of(facts.last_ping);
        self.payload_bytes = facts.payload_bytes as u32;
        self.payload_bytes_high = (facts.payload_bytes >> 32) as u16;
        self.ping_interval = facts.ping_interval;
        self.frames = facts.frames;
        self.pings = facts.pings;
        self.ping_rtt_us = ping_rtt_us;
        self.pings_unanswered = narrowed(facts.pings_unanswered());
        self.ping_jitter = facts.ping_jitter;
        self.ends = (facts.fin & 1) | (rst & 1) << 1;
    }

    #[inline(always)]
    const fn restore(&self, facts: &mut DirectionFacts, near: u64) {
        facts.last_packet = self.last_packet.nanos(near);
        facts.last_payload = self.last_payload.nanos(near);
        facts.last_frame = self.last_frame.nanos(near);
        facts.last_data_frame = self.last_data_frame.nanos(near);
        facts.last_ping = self.last_ping.nanos(near);
        facts.payload_bytes = (self.payload_bytes_high as u64) << 32 | self.payload_bytes as u64;
        facts.ping_interval = self.ping_interval;
        facts.frames = self.frames;
        facts.pings = self.pings;
        facts.pings_answered = self.pings.wrapping_sub(self.pings_unanswered as u32);
        facts.ping_jitter = self.ping_jitter;
        facts.fin = self.ends & 1;
    }
}

/// In [`PublishedDirection::ends`]: the peer's window is closed and this host's is not.
const PEER_CLOSED: u8 = 1 << 2;

#[inline(always)]
const fn peer_closed(s: &Snapshot) -> u8 {
    let is_published = s.peer_window_closed_at.is_some() & !s.own_window_closed_at.is_some();
    is_published as u8 * PEER_CLOSED
}

/// Clamps a moment to [`REACH`] before `near`.
#[inline(always)]
const fn within_reach(nanos: u64, near: u64) -> u64 {
    if nanos != 0 && near.wrapping_sub(nanos) as i64 > REACH {
        // An invalid moment gives an invalid result.
        near.wrapping_sub(REACH as u64)
    } else {
        nanos
    }
}

/// Saturates at 65,535; without a branch, as in [`Moment::of`].
#[inline(always)]
const fn narrowed(count: u32) -> u16 {
    let is_more = (u16::MAX as u64).wrapping_sub(count as u64) >> 63;
    (count as u64 | is_more.wrapping_neg()) as u16
}

/// Saturates at 255.
#[inline(always)]
const fn narrowed_to_byte(count: u32) -> u8 {
    let is_more = (u8::MAX as u64).wrapping_sub(count as u64) >> 63;
    (count as u64 | is_more.wrapping_neg()) as u8
}

/// All fields with few values, in 16 bits.
#[inline(always)]
const fn pack(s: &Snapshot) -> u16 {
    bits(s.ip_version >> 1, VERSION)
        | bits(s.role, ROLE)
        | bits(s.protocol, PROTOCOL)
        | bits(s.origin, ORIGIN)
        | bits(s.close_initiator, INITIATOR)
        | bits(s.gap_ended_by, ENDED_BY)
        | bits(s.closing_by, CLOSING_BY)
        | bits(s.own_window_closed_at.is_some() as u8, CLOSED)
        | bits(s.multipath >> 1, SUBFLOW)
}

#[inline(always)]
const fn unpack(kinds: u16, s: &mut Snapshot) {
    s.ip_version = value(kinds, VERSION) << 1;
    s.role = value(kinds, ROLE);
    s.protocol = value(kinds, PROTOCOL);
    s.origin = value(kinds, ORIGIN);
    s.close_initiator = value(kinds, INITIATOR);
    s.gap_ended_by = value(kinds, ENDED_BY);
    s.closing_by = value(kinds, CLOSING_BY);
    s.multipath = value(kinds, SUBFLOW) << 1;
}

/// The position of a field in the 16 bits: its first bit and its width.
type BitRange = (u32, u32);

const VERSION: BitRange = (0, 2);
const ROLE: BitRange = (2, 1);
const PROTOCOL: BitRange = (3, 3);
const ORIGIN: BitRange = (6, 2);
const INITIATOR: BitRange = (8, 2);
const ENDED_BY: BitRange = (10, 1);
const CLOSING_BY: BitRange = (11, 3);
const CLOSED: BitRange = (14, 1);
/// The upper bit of a [`multipath`](crate::snapshot::multipath): plain TCP is restored as unknown.
const SUBFLOW: BitRange = (15, 1);

#[inline(always)]
const fn bits(value: u8, (first, width): BitRange) -> u16 {
    (value as u16 & mask(width)) << first
}

#[inline(always)]
const fn value(kinds: u16, (first, width): BitRange) -> u8 {
    (kinds >> first & mask(width)) as u8
}

#[inline(always)]
const fn mask(width: u32) -> u16 {
    (1 << width) - 1
}

/// Nanoseconds, 208 days: how much earlier than the publication a moment may be.
const REACH: i64 = ((1 << 32) - 2 * AHEAD as i64) << HALF_TICK_SHIFT;

const _: () = assert!(size_of::<Published>() == 192);
const _: () = assert!(MAX_LISTENERS <= 1 << u8::BITS);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding: the sizes of the fields add up to that of the whole.
unsafe impl aya::Pod for Published {}

#[cfg(test)]
mod tests;
