//! Detects packets that were captured more than once, for example on a bridge and on the interface
//! behind it.

use std::hash::{DefaultHasher, Hash, Hasher};

use monitor_common::segment::tcp_flags;

use super::headers::TcpSegment;

/// Maximum number of packets between a packet and its copy.
const REMEMBERED: usize = 8;

/// A copy passes the next interface within microseconds; no retransmission comes this soon.
const MAX_DISTANCE: u64 = 2_000_000;

/// The last packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecentPackets {
    /// Their fingerprints and times.
    packets: [(u64, u64); REMEMBERED],
    next: usize,
}

impl RecentPackets {
    /// Whether this packet was just seen; otherwise remembers it.
    pub(super) fn holds(&mut self, tcp: &TcpSegment<'_>, now: u64) -> bool {
        let flags = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
        let says_something = tcp.segment.payload_len > 0 || tcp.segment.has(flags);
        if tcp.id == 0 && !says_something {
            // Duplicate acknowledgements have the same content, and each is significant.
            return false;
        }
        let fingerprint = fingerprint(tcp);
        let same = |(other, at): &(u64, u64)| *other == fingerprint && now - at <= MAX_DISTANCE;
        if self.packets.iter().any(same) {
            return true;
        }
        self.packets[self.next] = (fingerprint, now);
        self.next = (self.next + 1) % REMEMBERED;
        false
    }
}

/// Everything that is constant along the path. The checksum may be filled in later.
fn fingerprint(tcp: &TcpSegment<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    tcp.id.hash(&mut hasher);
    tcp.segment.payload_len.hash(&mut hasher);
    let (front, rest) = tcp.header.split_at(CHECKSUM.min(tcp.header.len()));
    front.hash(&mut hasher);
    rest.get(2..).hash(&mut hasher);
    hasher.finish()
}

/// Its offset in the TCP header (RFC 9293 §3.1).
const CHECKSUM: usize = 16;
