//! Payload that comes before its socket is there: with the segment that completes the handshake.
//!
//! The hook sees such a segment with the listening socket. That is what TCP_DEFER_ACCEPT makes of every
//! connection, a lost third acknowledgement of any, and TCP Fast Open (RFC 7413) puts the data into the
//! SYN already. The kernel makes the child while it has the segment in hand, on the same CPU: what it
//! says is kept for that long, until the next one comes to a listening socket on this CPU.

use crate::{
    Direction, event::HandshakeRecord, flow::Flow, frame::Head, listener::ListenerLimits,
    segment::Segment, stats::ListenerStats, stream::Payload,
};

/// Nanoseconds within which the child must have been born. It takes microseconds; in a virtual machine the
/// CPU may stand still in between.
const LIFETIME: u64 = 1_000_000_000;

/// What such a segment says. There is one in hand on each CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EarlySegment {
    /// CLOCK_MONOTONIC, nanoseconds; 0 = there is none, or it has its socket.
    pub at: u64,
    /// Of the listening socket, which its children inherit.
    pub cgroup_id: u64,
    /// The first bytes of the payload behind `skip`, and its last [`ENDING_LEN`](crate::recognition::ENDING_LEN).
    pub opening: Head,
    pub ending: Head,
    pub segment: Segment,
    /// 1 if it begins with a request for an upgrade to WebSocket.
    pub has_key: u32,
    /// Bytes of [`ProxyHeader`](crate::proxy_header::ProxyHeader) in front of what is described here.
    pub skip: u32,
    pub _pad: u32,
    /// Addresses, ports and the beginning of the payload behind `skip`; the rest is known with the socket.
    pub record: HandshakeRecord,
}

impl EarlySegment {
    /// Takes the segment for the socket with these ports that is born at `now`: true once, and only if it
    /// is this socket's.
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

/// As much as a socket at its birth needs of it.
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
    /// Takes in the segment that made this socket. Returns the [`head_kind`] that it begins with, as
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
        let head = self.recognise(Direction::Rx, segment, rest, early, now, stats, |_| {
            early.has_key != 0
        });
        self.place(Direction::Rx, seq, len, false, stats);
        head
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
    fn a_segment_is_claimed_once_by_its_own_socket_and_soon() {
        let mut early = kept(5, 8080, 40_000);
        assert!(!early.claim(8080, 40_001, 6));
        assert!(!early.claim(8081, 40_000, 6));
        assert!(!early.claim(8080, 40_000, 5 + LIFETIME));
        assert!(early.claim(8080, 40_000, 4 + LIFETIME));
        assert!(!early.claim(8080, 40_000, 6), "it has its socket");
        // The clock of the hook has ticks.
        assert!(kept(500, 1, 2).claim(1, 2, 499));
        assert!(!kept(0, 0, 0).claim(0, 0, 1), "nothing was kept yet");
    }
}
