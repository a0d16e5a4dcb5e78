//! Per-listener aggregates: what need not be an event.

use crate::event::CLOSE_HOW_COUNT;

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

/// Silences below this are traffic, not gaps, and are not recorded.
pub const GAP_FLOOR: u64 = SECOND;

/// Upper bounds in nanoseconds of the idle-gap buckets; one more bucket holds the rest. The
/// well-known limits of load balancers stand at bucket edges.
pub const GAP_BOUNDS: [u64; 20] = [
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

/// A counter in a per-CPU map.
///
/// Per-CPU is not enough for an exact count: cgroup_skb runs preemptible in process context, and
/// a softirq on the same CPU may count in between. So it adds atomically; nobody contends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Counter(u64);

impl Counter {
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
    // `AtomicU64::fetch_add` does not exist for this target, the instruction does.
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
    /// Nanoseconds.
    pub sum: Counter,
}

impl<const N: usize> Histogram<N> {
    pub const EMPTY: Self = Self {
        buckets: [Counter(0); N],
        sum: Counter(0),
    };

    /// Adds one value to the first bucket whose bound it does not exceed.
    #[inline(always)]
    pub fn observe(&mut self, nanos: u64, bounds: &[u64]) {
        let mut bucket = 0;
        let mut i = 0;
        // Counting the bounds below the value needs no branch and no variable-length loop.
        while i < N - 1 {
            bucket += (nanos > bounds[i]) as usize;
            i += 1;
        }
        if let Some(counter) = self.buckets.get_mut(bucket) {
            counter.add(1);
        }
        self.sum.add(nanos);
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
    pub closed: [Counter; CLOSE_HOW_COUNT],
    /// Frames by raw opcode.
    pub frames: [[Counter; 16]; 2],
    /// Frame payload, bytes.
    pub payload_bytes: [Counter; 2],
    /// Stream bytes that could not be attributed to frames.
    pub unsynced_bytes: [Counter; 2],
    /// Messages that began with FIN=0 (RFC 6455 §5.4).
    pub fragmented_messages: [Counter; 2],
    /// Pings that saw no pong before the next ping.
    pub pings_unanswered: [Counter; 2],
    pub retransmits: Counter,
    pub duplicate_acks: Counter,
    /// Times that a window closed: the peer's (rx) or ours (tx).
    pub zero_windows: [Counter; 2],
    /// Ping to pong, by the side that sent the ping.
    pub ping_rtt: [Histogram<{ RTT_BOUNDS.len() + 1 }>; 2],
    /// Silences of at least [`GAP_FLOOR`] that ended.
    pub idle_gaps: Histogram<{ GAP_BOUNDS.len() + 1 }>,
}

impl ListenerStats {
    pub const EMPTY: Self = Self {
        opened: Counter(0),
        closed: [Counter(0); CLOSE_HOW_COUNT],
        frames: [[Counter(0); 16]; 2],
        payload_bytes: [Counter(0); 2],
        unsynced_bytes: [Counter(0); 2],
        fragmented_messages: [Counter(0); 2],
        pings_unanswered: [Counter(0); 2],
        retransmits: Counter(0),
        duplicate_acks: Counter(0),
        zero_windows: [Counter(0); 2],
        ping_rtt: [Histogram::EMPTY; 2],
        idle_gaps: Histogram::EMPTY,
    };

    /// Adds what another CPU counted.
    pub fn merge(&mut self, other: &Self) {
        // Exhaustive, so that a new counter cannot be forgotten here.
        let Self {
            opened,
            closed,
            frames: [frames_rx, frames_tx],
            payload_bytes,
            unsynced_bytes,
            fragmented_messages,
            pings_unanswered,
            retransmits,
            duplicate_acks,
            zero_windows,
            ping_rtt: [rtt_rx, rtt_tx],
            idle_gaps,
        } = self;
        opened.add(other.opened.get());
        merge(closed, &other.closed);
        merge(frames_rx, &other.frames[0]);
        merge(frames_tx, &other.frames[1]);
        merge(payload_bytes, &other.payload_bytes);
        merge(unsynced_bytes, &other.unsynced_bytes);
        merge(fragmented_messages, &other.fragmented_messages);
        merge(pings_unanswered, &other.pings_unanswered);
        retransmits.add(other.retransmits.get());
        duplicate_acks.add(other.duplicate_acks.get());
        merge(zero_windows, &other.zero_windows);
        rtt_rx.merge(&other.ping_rtt[0]);
        rtt_tx.merge(&other.ping_rtt[1]);
        idle_gaps.merge(&other.idle_gaps);
    }
}

fn merge(into: &mut [Counter], from: &[Counter]) {
    for (into, from) in into.iter_mut().zip(from) {
        into.add(from.get());
    }
}

const _: () = assert!(size_of::<ListenerStats>().is_multiple_of(8));

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
    fn a_value_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::<{ GAP_BOUNDS.len() + 1 }>::EMPTY;
        histogram.observe(60 * SECOND, &GAP_BOUNDS);
        histogram.observe(60 * SECOND + 1, &GAP_BOUNDS);
        histogram.observe(u64::MAX / 2, &GAP_BOUNDS);
        let filled: Vec<_> = (0..=GAP_BOUNDS.len())
            .filter(|i| histogram.buckets[*i].get() > 0)
            .collect();
        assert_eq!(filled, [10, 11, 20]);
        assert_eq!(histogram.sum.get(), 120 * SECOND + 1 + u64::MAX / 2);
    }
}
