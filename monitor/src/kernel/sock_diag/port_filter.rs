//! A filter of ports in the kernel: `INET_DIAG_REQ_BYTECODE` (`include/uapi/linux/inet_diag.h`, run by
//! `inet_diag_bc_run` in `net/ipv4/inet_diag.c`).
//!
//! Reporting a socket costs the kernel far more than skipping it. If both ends of the connections are
//! on this host, half of the sockets are skipped.

use std::ops::RangeInclusive;

use crate::config::listeners::ListenerConfig;

/// The ports of the sockets in a dump. Passes all wanted ports, and perhaps more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFilter {
    /// At least one of these must hold; without any, everything passes.
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    end: PortEnd,
    ports: RangeInclusive<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortEnd {
    Local,
    Peer,
}

/// Maximum number of port ranges for each end. The kernel checks them one by one, some nanoseconds
/// each. More ranges are replaced by a single one that covers them all.
const MAX_RANGES: usize = 16;

/// `INET_DIAG_REQ_BYTECODE`, the type of the attribute.
const REQ_BYTECODE: u16 = 1;

/// `INET_DIAG_BC_…`.
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;

/// Bytes of a `struct inet_diag_bc_op`, and of one that is followed by a port.
const OP: u8 = 4;
const COMPARISON: u8 = 8;
/// Bytes of one condition: two comparisons, and the jump to the end if both hold.
const CONDITION: usize = 20;

impl PortFilter {
    /// A filter that passes the ports of these listeners.
    pub fn of(listeners: &[ListenerConfig]) -> Self {
        let ranges = |remote: bool| {
            let listeners = listeners.iter().filter(move |l| l.remote == remote);
            listeners.flat_map(|listener| listener.ports.iter().map(|range| range.0.clone()))
        };
        let local = bounded(ranges(false).collect()).into_iter();
        let peer = bounded(ranges(true).collect()).into_iter();
        let condition = |end| move |ports| Condition { end, ports };
        Self {
            conditions: local
                .map(condition(PortEnd::Local))
                .chain(peer.map(condition(PortEnd::Peer)))
                .collect(),
        }
    }

    /// Whether everything passes.
    pub(super) fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The netlink attribute; empty if everything passes.
    pub(super) fn attribute(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let program = self.program();
        // At most 2 * 16 conditions of 20 bytes.
        let length = 4 + program.len() as u16;
        let header = [length.to_ne_bytes(), REQ_BYTECODE.to_ne_bytes()].concat();
        [header, program].concat()
    }

    /// A socket passes if the program ends exactly at its end. `yes` and `no` are distances from the
    /// current position; every target must be reachable from the beginning by `yes` alone.
    fn program(&self) -> Vec<u8> {
        let mut program = Vec::new();
        let mut op = |code: u8, yes: u8, no: u16| {
            program.extend([code, yes]);
            program.extend(no.to_ne_bytes());
        };
        let (one, whole) = (u16::from(COMPARISON), CONDITION as u16);
        // The jump that refuses follows all conditions.
        let refusal = u16::from(OP);
        for (index, condition) in (0..).zip(&self.conditions) {
            let behind = (self.conditions.len() as u16 - index - 1) * whole;
            let (at_least, at_most) = match condition.end {
                PortEnd::Local => (S_GE, S_LE),
                PortEnd::Peer => (D_GE, D_LE),
            };
            op(at_least, COMPARISON, whole);
            op(0, 0, *condition.ports.start());
            op(at_most, COMPARISON, whole - one);
            op(0, 0, *condition.ports.end());
            op(JMP, OP, u16::from(OP) + behind + refusal);
        }
        // Beyond the end.
        op(JMP, OP, 2 * u16::from(OP));
        program
    }
}

/// At most [`MAX_RANGES`] that cover the same ports.
fn bounded(ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    if ranges.len() <= MAX_RANGES {
        return ranges;
    }
    let first = ranges.iter().map(|range| *range.start()).min();
    let last = ranges.iter().map(|range| *range.end()).max();
    first
        .zip(last)
        .map(|(first, last)| first..=last)
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::listeners::PortRange,
        kernel::{
            sock_diag::{SockDiag, inet_diag::DiagSocket},
            testing::{Connection, key_of},
        },
    };
    use monitor_core::ListenerRules;

    fn listener(remote: bool, ports: &[RangeInclusive<u16>]) -> ListenerConfig {
        ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: ports.iter().cloned().map(PortRange).collect(),
            remote,
        }
    }

    /// `inet_diag_bc_run`.
    fn passes(program: &[u8], local: u16, peer: u16) -> bool {
        let word = |at: usize| u16::from_ne_bytes([program[at + 2], program[at + 3]]);
        let mut at = 0;
        while at < program.len() {
            let holds = match program[at] {
                JMP => false,
                S_GE => local >= word(at + 4),
                S_LE => local <= word(at + 4),
                D_GE => peer >= word(at + 4),
                D_LE => peer <= word(at + 4),
                code => panic!("code {code} at {at}"),
            };
            at += match holds {
                true => usize::from(program[at + 1]),
                false => usize::from(word(at)),
            };
        }
        at == program.len()
    }

    #[test]
    fn watched_ports_pass_and_their_neighbours_do_not() {
        let listeners = [
            listener(false, &[80..=80, 9000..=9010]),
            listener(true, &[443..=443]),
        ];
        let program = PortFilter::of(&listeners).program();
        for local in [1, 79, 80, 81, 8999, 9000, 9005, 9010, 9011, u16::MAX] {
            for peer in [1, 442, 443, 444, 80, 9000] {
                let watched = ListenerConfig::watching(&listeners, local, peer).is_some();
                assert_eq!(passes(&program, local, peer), watched, "{local} {peer}");
            }
        }
    }

    #[test]
    fn the_kernel_reports_only_sockets_that_pass() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let (local, peer) = (key.local().port(), key.peer().port());
        for (remote, port, expected) in
            [(false, local, [local, peer]), (true, local, [peer, local])]
        {
            let filter =
                PortFilter::of(&[listener(remote, &[port..=port]), listener(remote, &[1..=1])]);
            let mut shown = Vec::new();
            let show = |socket: DiagSocket| {
                shown.push([socket.local.port(), socket.peer.port()]);
            };
            let mut sock_diag = SockDiag::open().unwrap();
            sock_diag.dump(&filter, |_, _| true, show).unwrap();
            assert_eq!(shown, [expected], "remote: {remote}");
        }
    }

    #[test]
    fn each_of_many_ranges_passes_and_the_program_stays_short() {
        let ranges: Vec<_> = (1..1000_u16).map(|n| n * 60..=n * 60).collect();
        let listeners = [listener(false, &ranges)];
        let program = PortFilter::of(&listeners).program();
        assert_eq!(program.len(), CONDITION + usize::from(OP));
        assert!(
            ranges
                .iter()
                .all(|range| passes(&program, *range.start(), 1))
        );
        assert!(!passes(&program, 59, 1));
    }

    #[test]
    fn without_ports_there_is_no_attribute_and_with_them_its_length_is_right() {
        assert!(PortFilter::of(&[]).attribute().is_empty());
        let attribute = PortFilter::of(&[listener(false, &[1..=2])]).attribute();
        assert_eq!(attribute[..2], 28_u16.to_ne_bytes());
        assert_eq!(attribute.len(), 28);
    }
}
