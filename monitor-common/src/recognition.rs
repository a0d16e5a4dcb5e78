//! Recognises the protocol of a connection from the first bytes of its segments.

use crate::{
    Direction,
    event::head_kind,
    flow::{Flow, notable},
    handshake::{self, Needle, OPENING_LEN, Opening},
    segment::Segment,
    snapshot::{origin, protocol},
    stats::{ListenerStats, RTT_BOUNDS, response},
    stream::{Payload, mode},
};

/// HTTP status code of a finished upgrade (RFC 6455 §4.2.2).
const SWITCHING: u16 = 101;

impl Flow {
    /// Whether a segment may show the protocol of the connection.
    #[inline(always)]
    pub fn is_undecided(&mut self, direction: Direction, segment: &Segment) -> bool {
        let protocol = self.snapshot.protocol;
        let walk = self.walk_mut(direction);
        match protocol {
            protocol::UNKNOWN | protocol::HTTP | protocol::UPGRADING => {
                !walk.is_old(segment.payload_seq(), segment.payload_len)
            }
            protocol::ASSUMED => walk.mode == mode::UNSYNCED,
            _ => false,
        }
    }

    /// Whether a segment of this direction may begin with a
    /// [`ProxyHeader`](crate::proxy_header::ProxyHeader), which must be skipped before [`Flow::recognise`].
    #[inline(always)]
    pub const fn may_be_proxied(&self, direction: Direction) -> bool {
        self.snapshot.protocol == protocol::UNKNOWN && self.snapshot.from_client(direction) != 0
    }

    /// Examines the first bytes of a segment. `find` searches for a needle in the payload.
    ///
    /// `payload` is that of `segment` without the part to skip, `len` bytes.
    #[inline(always)]
    #[expect(
        clippy::too_many_arguments,
        reason = "a segment and its payload on one side, the listener and the clock on the other"
    )]
    pub fn recognise(
        &mut self,
        direction: Direction,
        segment: &Segment,
        len: u32,
        payload: &impl Payload,
        now: u64,
        stats: &mut ListenerStats,
        find: impl FnOnce(Needle) -> bool,
    ) -> Recognised {
        let have = OPENING_LEN.min(len).min(payload.readable(0));
        let Some(head) = (have > 0).then(|| payload.read(0, have)).flatten() else {
            return Recognised::NOTHING;
        };
        let from_client = self.snapshot.from_client(direction) != 0;
        let before = self.snapshot.protocol;
        let (head, have) = if from_client {
            (head, have)
        } else {
            match self.walk_mut(direction).gather(head, have) {
                Some(gathered) => gathered,
                None => return Recognised::NOTHING,
            }
        };
        let opening = Opening::of(&head, have);
        if from_client && before == protocol::UPGRADING && opening != Opening::Request {
            // The rest of the head, or frames sent before the answer.
            let walk = self.walk_mut(direction);
            if walk.mode == mode::HANDSHAKE && ends_head(payload, len) {
                walk.begin_early(segment);
            }
            return Recognised::NOTHING;
        }
        let needle = match opening {
            Opening::Request if from_client => Needle::KEY,
            // The Accept field proves an upgrade even if the request was not recognised.
            Opening::Switching if matches!(before, protocol::HTTP | protocol::ASSUMED) => {
                Needle::ACCEPT
            }
            // The server's answer is sufficient where the client's first bytes were not seen.
            Opening::Tls
                if before == protocol::UNKNOWN || (from_client && before != protocol::ASSUMED) =>
            {
                self.open(direction, protocol::OPAQUE, now, stats);
                return Recognised::NOTHING;
            }
            Opening::Switching | Opening::Response if !from_client => {
                let status = handshake::status(&head, have);
                return self.answered(direction, status, segment.ack, now, stats);
            }
            _ => return Recognised::NOTHING,
        };
        if !find(needle) {
            // The rest of the head may come in another segment.
            let whole = !from_client || ends_head(payload, len);
            if whole || before != protocol::UNKNOWN {
                self.dismiss(direction);
            }
            return Recognised::NOTHING;
        }
        if from_client {
            if before == protocol::ASSUMED {
                self.dismiss(direction);
            }
            self.snapshot.protocol = protocol::UPGRADING;
            if ends_head(payload, len) {
                self.walk_mut(direction).begin_early(segment);
            }
            stats.upgrade_requests.add(1);
            return Recognised {
                head: head_kind::REQUEST,
                ..Recognised::NOTHING
            };
        }
        self.answered(direction, SWITCHING, segment.ack, now, stats)
    }

    /// The answer to a request passes in `direction`; `status` is 0 if it has none.
    #[inline(always)]
    fn answered(
        &mut self,
        direction: Direction,
        status: u16,
        ack: u32,
        now: u64,
        stats: &mut ListenerStats,
    ) -> Recognised {
        let requested = self.snapshot.protocol == protocol::UPGRADING;
        if status != SWITCHING {
            if !requested {
                self.dismiss(direction);
                return Recognised::NOTHING;
            }
            // 100 Continue and 103 Early Hints are not the final answer (RFC 9110 §15.2).
            if matches!(status, 100..=199) {
                return Recognised::NOTHING;
            }
        }
        let slot = if status == 0 {
            response::MALFORMED
        } else {
            status as usize - 100
        };
        if let Some(counter) = stats.handshakes.get_mut(slot) {
            counter.add(1);
        }
        let mut unsynced_bytes = 0;
        if status == SWITCHING {
            unsynced_bytes = self.upgrade(direction, ack);
            self.open(direction, protocol::WEBSOCKET, now, stats);
        } else {
            self.snapshot.protocol = protocol::HTTP;
            self.walk_mut(direction.opposite()).end_early();
            self.walk_mut(direction).note(notable::DISMISSED);
        }
        Recognised {
            head: head_kind::RESPONSE,
            unsynced_bytes,
        }
    }

    /// The 101 passes in `direction`, and its head ends later. The frames of the other side begin with its
    /// next byte, or have already begun. Returns how many bytes of them have passed.
    #[inline(always)]
    fn upgrade(&mut self, direction: Direction, ack: u32) -> u64 {
        let (server, client) = match direction {
            Direction::Rx => (&mut self.rx_walk, &mut self.tx_walk),
            Direction::Tx => (&mut self.tx_walk, &mut self.rx_walk),
        };
        server.begin_head();
        client.begin_frames(ack)
    }

    /// A direction was found in step. A connection that was only assumed until now is a WebSocket.
    #[inline(always)]
    pub fn resync(&mut self, direction: Direction, now: u64, stats: &mut ListenerStats) {
        if self.snapshot.protocol == protocol::ASSUMED {
            self.open(direction, protocol::WEBSOCKET, now, stats);
        }
    }

    /// Counts the connection as watched from now on.
    #[inline(always)]
    pub(crate) fn open(
        &mut self,
        direction: Direction,
        protocol: u8,
        now: u64,
        stats: &mut ListenerStats,
    ) {
        let s = &mut self.snapshot;
        s.protocol = protocol;
        s.opened_at = now;
        if s.origin == origin::ESTABLISHMENT {
            stats.opened.add(1);
            if protocol == protocol::WEBSOCKET && s.established_at != 0 {
                let took = now.saturating_sub(s.established_at);
                stats.handshake_time.observe(took, &RTT_BOUNDS);
            }
        }
        self.walk_mut(direction).note(notable::OPENED);
    }

    /// HTTP passes: whatever was assumed, this isn't a WebSocket yet.
    #[inline(always)]
    fn dismiss(&mut self, direction: Direction) {
        let before = self.snapshot.protocol;
        self.snapshot.protocol = protocol::HTTP;
        self.rx_walk.end_early();
        self.tx_walk.end_early();
        if before == protocol::ASSUMED {
            self.rx_walk.mode = mode::HANDSHAKE;
            self.tx_walk.mode = mode::HANDSHAKE;
            // From here on it is as well known as a connection seen from its start.
            self.snapshot.origin = origin::ESTABLISHMENT;
        }
        if before == protocol::ASSUMED || before == protocol::UPGRADING {
            self.walk_mut(direction).note(notable::DISMISSED);
        }
    }
}

/// What the first bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The [`head_kind`] with which the segment begins if it belongs to an upgrade, otherwise 0.
    pub head: u8,
    /// Bytes of the opposite direction that passed before the 101 and are not attributed to frames.
    pub unsynced_bytes: u64,
}

impl Recognised {
    const NOTHING: Self = Self {
        head: 0,
        unsynced_bytes: 0,
    };
}

/// Bytes that `ends_head` examines.
pub const ENDING_LEN: u32 = 12;

/// Whether an HTTP head ends with this segment, or 8 bytes before its end. A request of the draft hybi-00,
/// which browsers used before RFC 6455, has 8 bytes after its head.
#[inline(always)]
fn ends_head(payload: &impl Payload, len: u32) -> bool {
    const CRLF_CRLF: u32 = u32::from_le_bytes(*b"\r\n\r\n");
    len >= ENDING_LEN
        && payload.readable(len - ENDING_LEN) >= ENDING_LEN
        && payload
            .read(len - ENDING_LEN, ENDING_LEN)
            .is_some_and(|end| end.0[0] as u32 == CRLF_CRLF || end.0[1] as u32 == CRLF_CRLF)
}
