//! Detects Multipath TCP (RFC 8684) from packets. Each TCP connection that is part of an MPTCP connection
//! is a *subflow*, and may end while the others continue.

use crate::{
    Direction,
    bounds::within,
    segment::{Segment, tcp_flags},
    snapshot::{Snapshot, multipath},
};

/// Maximum length of the options in a TCP header, bytes (RFC 9293 §3.1).
const OPTIONS_MAX: usize = 40;
/// Buffer size for them; a power of two, so that a mask keeps every index within.
pub const OPTIONS_ROOM: usize = 64;
const MASK: usize = OPTIONS_ROOM - 1;

/// Kinds of options (RFC 9293 §3.2; RFC 8684 §3).
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MPTCP: u8 = 30;
}

/// Length of the shortest MPTCP option, MP_PRIO (RFC 8684 §3.3.8).
const SHORTEST: usize = 3;

impl Snapshot {
    /// Determines from a segment whether the flow is a subflow, while that is unknown. `options` are the
    /// options of its header: `len` bytes, followed by zeros.
    ///
    /// A SYN only offers MPTCP, and the SYN-ACK only accepts it: a connection that falls back to plain TCP
    /// has no such option from the third acknowledgement on. A segment without the option proves plain TCP
    /// only if this host sent it, because Linux adds the option to each segment of a subflow. Other systems
    /// sometimes omit it.
    #[inline(always)]
    pub fn note_options(
        &mut self,
        direction: Direction,
        segment: &Segment,
        options: &[u8; OPTIONS_ROOM],
        len: u32,
    ) {
        if self.multipath != multipath::UNKNOWN || segment.has(tcp_flags::SYN) {
            return;
        }
        if has_mptcp(options, len) {
            self.multipath = multipath::SUBFLOW;
        } else if matches!(direction, Direction::Tx) {
            self.multipath = multipath::PLAIN;
        }
    }
}

/// Whether one of the options is a complete MPTCP option.
#[inline(always)]
fn has_mptcp(options: &[u8; OPTIONS_ROOM], len: u32) -> bool {
    let end = len as usize;
    let mut at = 0;
    for _ in 0..OPTIONS_MAX {
        if at >= end {
            return false;
        }
        // The bounds are the same on every path here, so the verifier follows only one of them.
        at = within(at, MASK);
        let kind = options[at];
        let option_len = options[within(at + 1, MASK)] as usize;
        if kind == kind::MPTCP {
            return option_len >= SHORTEST && at + option_len <= end;
        }
        // Kind and length take two bytes.
        at += match kind {
            kind::END => return false,
            kind::NO_OPERATION => 1,
            _ if option_len < 2 => return false,
            _ => option_len,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::TCP_HEADER;

    /// A timestamp, as in nearly every segment.
    const TIME_STAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];
    /// DSS with a Data ACK of 8 bytes (RFC 8684 §3.3).
    const DSS: [u8; 12] = [30, 12, 0x20, 0x03, 0, 0, 0, 0, 0, 0, 0, 7];
    const PRIO: [u8; 3] = [30, 3, 0x50];

    fn found(options: &[u8]) -> bool {
        let mut room = [0; OPTIONS_ROOM];
        room[..options.len()].copy_from_slice(options);
        has_mptcp(&room, options.len() as u32)
    }

    #[test]
    fn an_mptcp_option_is_found_at_any_position() {
        for options in [
            &DSS[..],
            &PRIO,
            &[TIME_STAMP, DSS].concat(),
            &[DSS, TIME_STAMP].concat(),
            &[&[1; 37][..], &PRIO].concat(),
        ] {
            assert!(found(options), "{options:?}");
        }
    }

    #[test]
    fn plain_tcp_has_none() {
        let sack = [
            1, 1, 5, 26, 30, 12, 30, 12, 30, 12, 30, 12, 30, 12, 30, 12, 30, 12, 30, 12, 30, 12,
            30, 12, 30, 12, 30, 12,
        ];
        for options in [
            &[][..],
            &TIME_STAMP,
            &sack,
            &[1; 40],
            &[0, 30, 12, 0x20],
            &[2, 4, 30, 12],
            &[&TIME_STAMP[..], &[0], &DSS].concat(),
        ] {
            assert!(!found(options), "{options:?}");
        }
    }

    #[test]
    fn a_truncated_option_or_an_invalid_length_is_ignored() {
        for len in 0..DSS.len() {
            assert!(!found(&DSS[..len]), "{len} bytes of it");
        }
        let bytes = |kind, len| [&[kind, len][..], &DSS].concat();
        for (kind, len) in [(8, 0), (8, 1), (30, 0), (30, 1), (30, 2), (8, 13), (8, 255)] {
            assert!(!found(&bytes(kind, len)), "kind {kind}, length {len}");
        }
        assert!(found(&bytes(8, 2)));
    }

    #[test]
    fn arbitrary_options_are_read_within_bounds() {
        for byte in 0..=u8::MAX {
            for len in [0, 1, 39, 40, 63, 64, u32::MAX] {
                has_mptcp(&[byte; OPTIONS_ROOM], len);
            }
        }
    }

    fn detected(segments: &[(Direction, u16, &[u8])]) -> u8 {
        let mut s = Snapshot::EMPTY;
        for (direction, flags, options) in segments {
            let mut header = [0; TCP_HEADER];
            (header[12], header[13]) = (5 << 4, *flags as u8);
            let segment = Segment::parse(&header, 20, 40).expect("a valid header");
            let mut room = [0; OPTIONS_ROOM];
            room[..options.len()].copy_from_slice(options);
            s.note_options(*direction, &segment, &room, options.len() as u32);
        }
        s.multipath
    }

    #[test]
    fn a_subflow_is_detected_after_its_handshake() {
        use Direction::{Rx, Tx};
        const SYN: u16 = tcp_flags::SYN;
        const ACK: u16 = tcp_flags::ACK;
        let offered = [(Tx, SYN, &DSS[..]), (Rx, SYN | ACK, &DSS)];
        assert_eq!(detected(&offered), multipath::UNKNOWN);
        let and = |then| detected(&[&offered[..], then].concat());
        assert_eq!(and(&[(Tx, ACK, &DSS)]), multipath::SUBFLOW);
        assert_eq!(and(&[(Tx, ACK, &TIME_STAMP)]), multipath::PLAIN);
    }

    #[test]
    fn only_this_host_proves_plain_tcp_by_omitting_the_option() {
        use Direction::{Rx, Tx};
        const ACK: u16 = tcp_flags::ACK;
        assert_eq!(detected(&[(Rx, ACK, &TIME_STAMP)]), multipath::UNKNOWN);
        let peer_leaves_it_out = [(Rx, ACK, &TIME_STAMP[..]), (Tx, ACK, &DSS)];
        assert_eq!(detected(&peer_leaves_it_out), multipath::SUBFLOW);
        let known = [(Tx, ACK, &DSS[..]), (Tx, ACK, &TIME_STAMP)];
        assert_eq!(detected(&known), multipath::SUBFLOW);
        let plain = [(Tx, ACK, &TIME_STAMP[..]), (Rx, ACK, &DSS)];
        assert_eq!(detected(&plain), multipath::PLAIN);
    }
}
