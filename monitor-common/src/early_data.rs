//! Payload that arrives before its socket exists: with the segment that completes the handshake.
//!
//! The hook sees such a segment with the listening socket. TCP_DEFER_ACCEPT causes this for every
//! connection, a lost third acknowledgement for any connection. TCP Fast Open (RFC 7413) carries data even
//! in the SYN. The kernel creates the child socket while it processes the segment, on the same CPU. So the
//! contents of the segment are kept until the next segment reaches a listening socket on this CPU.

use crate::{
    Direction, event::HandshakeRecord, flow::Flow, frame::Head, listener::ListenerLimits,
    segment::Segment, stats::ListenerStats, stream::Payload,
};

/// Nanoseconds within which the child socket must be created. This takes microseconds, but a virtual
/// CPU may pause in between.
const LIFETIME: u64 = 1_000_000_000;

/// The contents of such a segment. Each CPU holds one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EarlySegment {
    /// CLOCK_MONOTONIC, nanoseconds; 0 = none, or already claimed by its socket.
    pub at: u64,
    /// The cgroup of the listening socket, which its children inherit.
    pub cgroup_id: u64,
    /// The first bytes of the payload after `skip`, and its last
    /// [`ENDING_LEN`](crate::recognition::ENDING_LEN).
    pub opening: Head,
    pub ending: Head,
    pub segment: Segment,
    /// 1 if it begins with a WebSocket upgrade request.
    pub has_key: u32,
    /// Length of the [`ProxyHeader`](crate::proxy_header::ProxyHeader) in front, bytes.
    pub skip: u32,
    pub _pad: u32,
    /// Addresses, ports and the beginning of the payload after `skip`; the other fields follow from the
    /// socket.
    pub record: HandshakeRecord,
}

impl EarlySegment {
    /// Claims the segment for the socket with these ports that is created at `now`. Returns true once, and
    /// only for the socket to which the segment belongs.
    #[inline(always)]
    pub fn claim(&mut self, local_port: u16, remote_port: u16, now: u64) -> bool {
        let is_its_own = self.at != 0
            && self.record.local_port == local_port
            && self.record.remote_port == remote_port
            && now.saturating_sub(self.at) < LIFETIME;
        if is_its_own {
            self.at = 0;
        }
        is_its_own
    }
}

/// Provides only what recognition needs when the socket is created.
impl Payload for EarlySegment {
    #[inline(always)]
    fn read(&self, offset: u32, _len: u32) -> Option<Head> {
        Some(if offset == 0 {
            self.opening
        } else {
            self.ending
        })
    }
}

impl Flow {
    /// Processes the segment that created this socket. Returns the [`head_kind`] with which it begins, as
    /// [`Flow::recognise`] does.
    ///
    /// [`head_kind`]: crate::event::head_kind
    #[inline(always)]
    pub fn take_early(
        &mut self,
        early: &EarlySegment,
        now: u64,
        limits: &ListenerLimits,
        stats: &mut ListenerStats,
    ) -> u8 {
        let segment = &early.segment;
        self.receive(segment, now, limits, stats);
        let (seq, len) = (segment.payload_seq(), segment.payload_len);
        let rest = len.saturating_sub(early.skip);
        let recognised = self.recognise(Direction::Rx, segment, rest, early, now, stats, |_| {
            early.has_key != 0
        });
        // Nothing can be lost before the first segment.
        self.place(Direction::Rx, seq, len, false);
        recognised.head
    }
}

const _: () = assert!(size_of::<EarlySegment>() == 80 + size_of::<HandshakeRecord>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::REQUEST_HEAD_MAX;

    fn kept(at: u64, local_port: u16, remote_port: u16) -> EarlySegment {
        EarlySegment {
            at,
            cgroup_id: 0,
            opening: Head::default(),
            ending: Head::default(),
            segment: Segment::EMPTY,
            has_key: 0,
            skip: 0,
            _pad: 0,
            record: HandshakeRecord {
                at: 0,
                cookie: 0,
                established_at: 0,
                local_addr: [0; 16],
                remote_addr: [0; 16],
                local_port,
                remote_port,
                listener: 0,
                len: 0,
                ip_version: 4,
                role: 0,
                kind: 0,
                _pad: [0; 5],
                head: [0; REQUEST_HEAD_MAX],
            },
        }
    }

    #[test]
    fn a_segment_is_claimed_once_in_time_and_only_by_its_own_socket() {
        let mut early = kept(5, 8080, 40_000);
        assert!(!early.claim(8080, 40_001, 6));
        assert!(!early.claim(8081, 40_000, 6));
        assert!(!early.claim(8080, 40_000, 5 + LIFETIME));
        assert!(early.claim(8080, 40_000, 4 + LIFETIME));
        assert!(!early.claim(8080, 40_000, 6), "already claimed");
        // The clock of the hook is coarse.
        assert!(kept(500, 1, 2).claim(1, 2, 499));
        assert!(!kept(0, 0, 0).claim(0, 0, 1), "no segment was kept");
    }
}
