//! Per-listener aggregates, for facts that need no event.

use strum::{IntoStaticStr, VariantArray};

use crate::{event::CloseHow, idle_gap_scale};

/// Upper bounds in nanoseconds of the ping round-trip buckets; one more bucket holds the rest.
pub const RTT_BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds in nanoseconds of the response buckets; one more bucket holds the rest. Data frames are timed
/// by the coarse clock, whose ticks take up to 10 ms.
pub const RESPONSE_BOUNDS: [u64; 12] = [
    SECOND / 100,
    SECOND / 40,
    SECOND / 20,
    SECOND / 10,
    SECOND / 4,
    SECOND / 2,
    SECOND,
    5 * SECOND / 2,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
];

/// Shorter idle gaps are normal traffic and are not recorded.
pub const IDLE_GAP_FLOOR: u64 = SECOND;

/// Upper bounds in nanoseconds of the idle-gap buckets; one more bucket holds the rest. The well-known
/// limits of load balancers are bucket bounds.
pub const IDLE_GAP_BOUNDS: [u64; 20] = [
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    20 * SECOND,
    25 * SECOND,
    30 * SECOND,
    45 * SECOND,
    50 * SECOND,
    55 * SECOND,
    60 * SECOND,
    75 * SECOND,
    100 * SECOND,
    120 * SECOND,
    180 * SECOND,
    240 * SECOND,
    300 * SECOND,
    350 * SECOND,
    600 * SECOND,
    3600 * SECOND,
];

const SECOND: u64 = 1_000_000_000;

/// Upper bounds in bytes of the message-size buckets; one more bucket holds the rest.
pub const SIZE_BOUNDS: [u64; 8] = [
    125,
    1024,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    16 << 20,
];

/// Answers to upgrade requests: one slot for each status code from 100 to 599, then the two of
/// [`response`].
pub const RESPONSE_SLOTS: usize = 502;

/// Slots of [`ListenerStats::handshakes`] without a status code.
pub mod response {
    /// A status line without a status code between 100 and 599.
    pub const MALFORMED: usize = 500;
    /// The connection ended before there was an answer.
    pub const NONE: usize = 501;
}

/// The kind of a pong (RFC 6455 §5.5.3); index into [`ListenerStats::pongs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[repr(u8)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum PongKind {
    /// It has the payload of an outstanding ping.
    Matched = 0,
    /// No ping was outstanding: a one-way heartbeat, which is legal.
    Unsolicited = 1,
    /// Pings were outstanding, but none had this payload.
    Mismatched = 2,
}

impl PongKind {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// A rule of RFC 6455 that an endpoint broke; index into [`ListenerStats::protocol_errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[repr(u8)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ProtocolError {
    /// RSV2 or RSV3, or RSV1 on a frame other than the start of a data message (§5.2, RFC 7692 §6).
    ReservedBits = 0,
    /// Opcode 3 to 7 or 11 to 15 (§5.2).
    ReservedOpcode = 1,
    /// A control frame without FIN (§5.5).
    FragmentedControl = 2,
    /// A control frame with more than 125 bytes (§5.5).
    OversizedControl = 3,
    /// A client's frame without a mask (§5.1).
    UnmaskedClient = 4,
    /// A server's frame with a mask (§5.1).
    MaskedServer = 5,
    /// A close code that must not be sent, or a close frame with one byte (§5.5.1, §7.4).
    InvalidCloseCode = 6,
    /// A length in more bytes than needed, or with its top bit set (§5.2).
    NonMinimalLength = 7,
    /// A continuation without a message to continue (§5.4).
    UnexpectedContinuation = 8,
    /// A new message inside an unfinished one (§5.4).
    InterleavedMessage = 9,
}

impl ProtocolError {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// A counter in a per-CPU map.
///
/// Per-CPU alone does not give an exact count: cgroup_skb runs preemptible in process context, and a
/// softirq on the same CPU may count in between. So additions are atomic; there is no contention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Counter(u64);

impl Counter {
    pub(crate) const ZERO: Self = Self(0);

    #[inline(always)]
    pub fn add(&mut self, n: u64) {
        add(&mut self.0, n);
    }

    pub const fn get(&self) -> u64 {
        self.0
    }
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
fn add(counter: &mut u64, n: u64) {
    // `AtomicU64::fetch_add` does not exist for this target, but the instruction does.
    // SAFETY: the pointer comes from a live, aligned, exclusive reference.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {n}",
            counter = in(reg) core::ptr::from_mut(counter),
            n = in(reg) n,
            options(nostack),
        );
    }
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn add(counter: &mut u64, n: u64) {
    // Natively a counter has one owner.
    *counter = counter.wrapping_add(n);
}

/// A histogram with `N` buckets; `N - 1` bounds belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram<const N: usize> {
    /// Not cumulative.
    pub buckets: [Counter; N],
    /// Nanoseconds, or the unit of the bounds.
    pub sum: Counter,
}

impl<const N: usize> Histogram<N> {
    pub const EMPTY: Self = Self {
        buckets: [Counter(0); N],
        sum: Counter(0),
    };

    /// Adds one value to the first bucket whose bound it does not exceed. Bounds are below 2⁶³.
    #[inline(always)]
    pub fn observe(&mut self, value: u64, bounds: &[u64]) {
        let mut bucket = 0;
        let mut i = 0;
        // Counting the bounds below the value needs no variable-length loop. Each is the borrow of a
        // subtraction, not a comparison: in BPF that is a branch, which the verifier follows, and the
        // compiler keeps the results of that many on the stack.
        while i < N - 1 {
            bucket += ((bounds[i].wrapping_sub(value) | value) >> 63) as usize;
            i += 1;
        }
        if let Some(counter) = self.buckets.get_mut(bucket) {
            counter.add(1);
        }
        self.sum.add(value);
    }

    fn merge(&mut self, other: &Self) {
        merge(&mut self.buckets, &other.buckets);
        self.sum.add(other.sum.get());
    }
}

/// One entry of the per-CPU `STATS` array, indexed by listener. Pairs are `[rx, tx]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerStats {
    /// Connections recognised since the monitor started (upgrade finished, or TLS begun).
    pub opened: Counter,
    /// Connections that ended, by [`crate::event::CloseHow`].
    pub closed: [Counter; CloseHow::ALL.len()],
    /// Frames by raw opcode.
    pub frames: [[Counter; 16]; 2],
    /// Frame payload, bytes.
    pub payload_bytes: [Counter; 2],
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: [Counter; 2],
    /// Messages that began with FIN=0 (RFC 6455 §5.4).
    pub fragmented_messages: [Counter; 2],
    /// Messages that were still unfinished when their connection ended.
    pub unfinished_messages: [Counter; 2],
    /// Messages that began with RSV1: compressed by permessage-deflate (RFC 7692 §6).
    pub compressed_messages: [Counter; 2],
    /// Finished data messages by size on the wire: payload bytes of all their frames.
    pub message_sizes: [Histogram<{ SIZE_BOUNDS.len() + 1 }>; 2],
    /// By [`PongKind`].
    pub pongs: [[Counter; PongKind::ALL.len()]; 2],
    /// By [`ProtocolError`].
    pub protocol_errors: [Counter; ProtocolError::ALL.len()],
    /// Upgrade requests, answered or not.
    pub upgrade_requests: Counter,
    /// Answers to upgrade requests: status code - 100, or a [`response`].
    pub handshakes: [Counter; RESPONSE_SLOTS],
    /// From TCP's ESTABLISHED to the 101.
    pub handshake_time: Histogram<{ RTT_BOUNDS.len() + 1 }>,
    /// From the first close frame to the other side's (RFC 6455 §7.1.4).
    pub close_handshake_time: Histogram<{ RTT_BOUNDS.len() + 1 }>,
    /// Pings without a pong before the next ping.
    pub pings_unanswered: [Counter; 2],
    pub retransmits: Counter,
    /// Segments covered by acknowledgements: at least one per acknowledgement.
    pub segments_delivered: Counter,
    /// How many of them were retransmitted.
    pub segments_delivered_late: Counter,
    /// Retransmissions of those segments.
    pub retransmits_delivered: Counter,
    pub duplicate_acks: Counter,
    /// How often a window closed: the peer's (rx) or ours (tx).
    pub zero_windows: [Counter; 2],
    /// Ping to pong, by the side that sent the ping.
    pub ping_rtt: [Histogram<{ RTT_BOUNDS.len() + 1 }>; 2],
    /// From the last data frame of a client to the first data frame of the server after it.
    pub response_time: Histogram<{ RESPONSE_BOUNDS.len() + 1 }>,
    /// Ended idle gaps of at least [`IDLE_GAP_FLOOR`].
    pub idle_gaps: Histogram<{ IDLE_GAP_BOUNDS.len() + 1 }>,
    /// Idle gaps of watched connections after which the peer was heard, so the path had survived; by the
    /// slots of [`idle_gap_scale`]. Slot 0 holds shorter ones if the listener's limit is shorter.
    pub idle_gaps_survived: [Counter; idle_gap_scale::SLOTS],
    /// Times between consecutive pings of one connection, by the side that pings and the slots of
    /// [`idle_gap_scale`]; slot 0 holds all shorter times.
    pub ping_intervals: [[Counter; idle_gap_scale::SLOTS]; 2],
}

impl ListenerStats {
    pub const EMPTY: Self = Self {
        opened: Counter(0),
        closed: [Counter(0); CloseHow::ALL.len()],
        frames: [[Counter(0); 16]; 2],
        payload_bytes: [Counter(0); 2],
        unsynced_bytes: [Counter(0); 2],
        fragmented_messages: [Counter(0); 2],
        unfinished_messages: [Counter(0); 2],
        compressed_messages: [Counter(0); 2],
        message_sizes: [Histogram::EMPTY; 2],
        pongs: [[Counter(0); PongKind::ALL.len()]; 2],
        protocol_errors: [Counter(0); ProtocolError::ALL.len()],
        upgrade_requests: Counter(0),
        handshakes: [Counter(0); RESPONSE_SLOTS],
        handshake_time: Histogram::EMPTY,
        close_handshake_time: Histogram::EMPTY,
        pings_unanswered: [Counter(0); 2],
        retransmits: Counter(0),
        segments_delivered: Counter(0),
        segments_delivered_late: Counter(0),
        retransmits_delivered: Counter(0),
        duplicate_acks: Counter(0),
        zero_windows: [Counter(0); 2],
        ping_rtt: [Histogram::EMPTY; 2],
        response_time: Histogram::EMPTY,
        idle_gaps: Histogram::EMPTY,
        idle_gaps_survived: [Counter(0); idle_gap_scale::SLOTS],
        ping_intervals: [[Counter(0); idle_gap_scale::SLOTS]; 2],
    };

    /// Adds the counts of another CPU.
    pub fn merge(&mut self, other: &Self) {
        // Exhaustive, so that a new counter cannot be forgotten here.
        let Self {
            opened,
            closed,
            frames: [frames_rx, frames_tx],
            payload_bytes,
            unsynced_bytes,
            fragmented_messages,
            unfinished_messages,
            compressed_messages,
            message_sizes: [sizes_rx, sizes_tx],
            pongs: [pongs_rx, pongs_tx],
            protocol_errors,
            upgrade_requests,
            handshakes,
            handshake_time,
            close_handshake_time,
            pings_unanswered,
            retransmits,
            segments_delivered,
            segments_delivered_late,
            retransmits_delivered,
            duplicate_acks,
            zero_windows,
            ping_rtt: [rtt_rx, rtt_tx],
            response_time,
            idle_gaps,
            idle_gaps_survived,
            ping_intervals: [intervals_rx, intervals_tx],
        } = self;
        opened.add(other.opened.get());
        merge(closed, &other.closed);
        merge(frames_rx, &other.frames[0]);
        merge(frames_tx, &other.frames[1]);
        merge(payload_bytes, &other.payload_bytes);
        merge(unsynced_bytes, &other.unsynced_bytes);
        merge(fragmented_messages, &other.fragmented_messages);
        merge(unfinished_messages, &other.unfinished_messages);
        merge(compressed_messages, &other.compressed_messages);
        sizes_rx.merge(&other.message_sizes[0]);
        sizes_tx.merge(&other.message_sizes[1]);
        merge(pongs_rx, &other.pongs[0]);
        merge(pongs_tx, &other.pongs[1]);
        merge(protocol_errors, &other.protocol_errors);
        upgrade_requests.add(other.upgrade_requests.get());
        merge(handshakes, &other.handshakes);
        handshake_time.merge(&other.handshake_time);
        close_handshake_time.merge(&other.close_handshake_time);
        merge(pings_unanswered, &other.pings_unanswered);
        retransmits.add(other.retransmits.get());
        segments_delivered.add(other.segments_delivered.get());
        segments_delivered_late.add(other.segments_delivered_late.get());
        retransmits_delivered.add(other.retransmits_delivered.get());
        duplicate_acks.add(other.duplicate_acks.get());
        merge(zero_windows, &other.zero_windows);
        rtt_rx.merge(&other.ping_rtt[0]);
        rtt_tx.merge(&other.ping_rtt[1]);
        response_time.merge(&other.response_time);
        idle_gaps.merge(&other.idle_gaps);
        merge(idle_gaps_survived, &other.idle_gaps_survived);
        merge(intervals_rx, &other.ping_intervals[0]);
        merge(intervals_tx, &other.ping_intervals[1]);
    }
}

fn merge(into: &mut [Counter], from: &[Counter]) {
    for (into, from) in into.iter_mut().zip(from) {
        into.add(from.get());
    }
}

const _: () = assert!(size_of::<ListenerStats>().is_multiple_of(8));
// The kernel refuses more for one CPU (`PCPU_MIN_UNIT_SIZE` in include/linux/percpu.h).
const _: () = assert!(size_of::<ListenerStats>() <= 32 << 10);

#[cfg(feature = "user")]
// SAFETY: repr(C), u64 all through, no padding.
unsafe impl aya::Pod for ListenerStats {}
#[cfg(feature = "user")]
// SAFETY: transparent over u64.
unsafe impl aya::Pod for Counter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_counts_below_it() {
        let mut histogram = Histogram::<{ IDLE_GAP_BOUNDS.len() + 1 }>::EMPTY;
        histogram.observe(60 * SECOND, &IDLE_GAP_BOUNDS);
        histogram.observe(60 * SECOND + 1, &IDLE_GAP_BOUNDS);
        histogram.observe(u64::MAX / 2, &IDLE_GAP_BOUNDS);
        let filled: Vec<_> = (0..=IDLE_GAP_BOUNDS.len())
            .filter(|i| histogram.buckets[*i].get() > 0)
            .collect();
        assert_eq!(filled, [10, 11, 20]);
        assert_eq!(histogram.sum.get(), 120 * SECOND + 1 + u64::MAX / 2);
    }

    #[test]
    fn a_value_goes_to_the_bucket_of_the_first_bound_that_is_not_below_it() {
        let around = |bound: u64| [bound.saturating_sub(1), bound, bound.saturating_add(1)];
        for value in IDLE_GAP_BOUNDS
            .into_iter()
            .chain([0, 1 << 62, 1 << 63, u64::MAX])
            .flat_map(around)
        {
            let mut histogram = Histogram::<{ IDLE_GAP_BOUNDS.len() + 1 }>::EMPTY;
            histogram.observe(value, &IDLE_GAP_BOUNDS);
            let filled = histogram.buckets.iter().position(|n| n.get() > 0);
            let bucket = IDLE_GAP_BOUNDS.partition_point(|bound| *bound < value);
            assert_eq!(filled, Some(bucket), "{value}");
        }
    }
}
