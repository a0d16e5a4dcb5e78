//! Converts a snapshot to the core's facts, and back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use monitor_common::{
    moment::Moment,
    published::Published,
    snapshot::{
        DirectionFacts, PING_UNIT, Snapshot, closing_by, multipath, origin, protocol, role,
    },
};

use super::DecodeError;
use monitor_core::{
    ConnId, Facts, Ktime, ListenerId,
    facts::{
        Close, Closing, ClosingBy, Direction, DirectionActivity, IdleGap, InferredHeartbeat,
        Origin, Protocol, Role,
    },
    loss::Loss,
};

/// Decodes a snapshot.
pub fn facts(s: &Snapshot) -> Result<Facts, DecodeError> {
    let outstanding = s.outstanding();
    let first_try = s.first_try.nanos(s.published_at);
    Ok(Facts {
        at: Ktime(s.published_at),
        conn: ConnId(s.cookie),
        listener: ListenerId(s.listener.into()),
        role: end(s.role),
        protocol: match s.protocol {
            protocol::WEBSOCKET => Protocol::WebSocket,
            protocol::OPAQUE => Protocol::Opaque,
            protocol::ASSUMED => Protocol::Assumed,
            other => return Err(DecodeError::Protocol(other)),
        },
        local: address(s.ip_version, &s.local_addr, s.local_port),
        peer: address(s.ip_version, &s.remote_addr, s.remote_port),
        is_subflow: s.multipath == multipath::SUBFLOW,
        origin: match s.origin {
            origin::ESTABLISHMENT => Origin::Establishment,
            origin::SEEDED => Origin::SockDiag,
            _ => Origin::Packet,
        },
        cgroup_id: (s.cgroup_id != 0).then_some(s.cgroup_id),
        established_at: moment(s.established_at),
        opened_at: moment(s.opened_at),
        rx: activity(&s.rx),
        tx: activity(&s.tx),
        unacked_bytes: outstanding,
        unacked_since: (outstanding > 0)
            .then(|| moment(s.unacked_since.max(s.ack_progress_at)))
            .flatten(),
        ack_progress_at: moment(s.ack_progress_at),
        retransmits: s.retransmits_without_progress(),
        loss: Loss::from_late(s.loss),
        unanswered_transmissions: s.unanswered_sends(),
        unanswered_since: (s.unanswered_sends() > 0)
            .then(|| moment(s.unanswered_since.nanos(s.published_at)))
            .flatten(),
        pings_unanswered: s.tx.pings_unanswered(),
        first_try: moment(first_try),
        second_try: moment(s.second_try(first_try)),
        own_window_closed_at: moment(s.own_window_closed_at.nanos(s.published_at)),
        peer_window_closed_at: moment(s.peer_window_closed_at.nanos(s.published_at)),
        ping_rtt: match s.ping_rtt_us[1] {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        },
        ping_interval: match s.tx.ping_interval {
            0 => None,
            units => Some(Duration::from_nanos(u64::from(units) * PING_UNIT)),
        },
        last_idle_gap: moment(s.gap_to).map(|to| IdleGap {
            from: Ktime(s.gap_to.saturating_sub(s.last_idle_gap())),
            to,
            ended_by: if s.gap_ended_by == 0 {
                Direction::Rx
            } else {
                Direction::Tx
            },
        }),
        heartbeat: heartbeat(s),
        close: match s.close_initiator {
            0 => None,
            1 => Some(close_frame(s, Direction::Rx)),
            _ => Some(close_frame(s, Direction::Tx)),
        },
        closing: closing(s)?,
        fin_rx: s.rx.fin != 0,
        fin_tx: s.tx.fin != 0,
        rst_rx: s.rst_rx != 0,
        rst_tx: s.rst_tx != 0,
    })
}

/// Encodes the facts of a socket that only sock_diag has reported as the kernel programs would have.
pub fn seed(facts: &Facts) -> Published {
    let (ip_version, local_addr) = octets(facts.local.ip());
    let (_, remote_addr) = octets(facts.peer.ip());
    let at = |moment: Option<Ktime>| moment.map_or(0, |at| at.0);
    let direction = |activity: &DirectionActivity, fin: bool| DirectionFacts {
        last_packet: at(activity.last_packet),
        last_payload: at(activity.last_payload),
        last_frame: at(activity.last_frame),
        last_data_frame: at(activity.last_message),
        fin: u8::from(fin),
        ..DirectionFacts::default()
    };
    Published::of(&Snapshot {
        cookie: facts.conn.0,
        published_at: facts.at.0,
        local_addr,
        remote_addr,
        local_port: facts.local.port(),
        remote_port: facts.peer.port(),
        listener: facts.listener.0 as u8,
        multipath: match facts.is_subflow {
            true => multipath::SUBFLOW,
            false => multipath::UNKNOWN,
        },
        ip_version,
        cgroup_id: facts.cgroup_id.unwrap_or_default(),
        role: match facts.role {
            Role::Server => role::SERVER,
            Role::Client => role::CLIENT,
        },
        protocol: protocol::ASSUMED,
        origin: origin::SEEDED,
        rx: direction(&facts.rx, facts.fin_rx),
        tx: direction(&facts.tx, facts.fin_tx),
        // Only the difference matters until a packet brings real sequence numbers.
        snd_nxt: facts.unacked_bytes,
        una_known: 1,
        nxt_known: 1,
        unacked_since: at(facts.unacked_since),
        retransmits: facts.retransmits,
        eliciting_sends: u16::try_from(facts.unanswered_transmissions).unwrap_or(u16::MAX),
        unanswered_since: Moment::of(at(facts.unanswered_since)),
        ..Snapshot::EMPTY
    })
}

fn heartbeat(s: &Snapshot) -> Option<InferredHeartbeat> {
    let tls = s.tls()?;
    let is_learned = s.rx.ping_interval != 0 || s.tx.ping_interval != 0;
    Some(match is_learned {
        _ if tls.is_refused() => InferredHeartbeat::Refused,
        true => InferredHeartbeat::Learned,
        false => InferredHeartbeat::Unlearned,
    })
}

fn close_frame(s: &Snapshot, initiator: Direction) -> Close {
    Close {
        initiator,
        code: (s.close_code != 0).then_some(s.close_code),
    }
}

fn closing(s: &Snapshot) -> Result<Option<Closing>, DecodeError> {
    let by = match s.closing_by {
        closing_by::NOTHING => return Ok(None),
        closing_by::CLOSE_FRAME_RX => ClosingBy::CloseFrame(close_frame(s, Direction::Rx)),
        closing_by::CLOSE_FRAME_TX => ClosingBy::CloseFrame(close_frame(s, Direction::Tx)),
        closing_by::FIN_RX => ClosingBy::Fin(Direction::Rx),
        closing_by::FIN_TX => ClosingBy::Fin(Direction::Tx),
        unknown => return Err(DecodeError::ClosingBy(unknown)),
    };
    let at = Ktime(s.closing_at);
    Ok(Some(Closing { at, by }))
}

pub(super) fn end(raw: u8) -> Role {
    if raw == role::CLIENT {
        Role::Client
    } else {
        Role::Server
    }
}

fn activity(facts: &DirectionFacts) -> DirectionActivity {
    DirectionActivity {
        last_packet: moment(facts.last_packet),
        last_payload: moment(facts.last_payload),
        last_frame: moment(facts.last_frame),
        last_message: moment(facts.last_data_frame),
    }
}

pub(super) fn moment(nanos: u64) -> Option<Ktime> {
    (nanos != 0).then_some(Ktime(nanos))
}

pub(super) fn address(version: u8, octets: &[u8; 16], port: u16) -> SocketAddr {
    let ip = if version == 6 {
        IpAddr::V6(Ipv6Addr::from(*octets))
    } else {
        IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
    };
    SocketAddr::new(ip, port)
}

/// As in a [`Snapshot`]: the version, and the bytes in network order.
pub(crate) fn octets(ip: IpAddr) -> (u8, [u8; 16]) {
    match ip {
        IpAddr::V4(v4) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&v4.octets());
            (4, wide)
        }
        IpAddr::V6(v6) => (6, v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::{
        flow::Flow,
        tls::{HelloFact, TlsFlow},
    };

    use super::*;

    #[test]
    fn only_a_tls_connection_whose_records_are_followed_has_a_state_of_the_heartbeat() {
        let heartbeat = |snapshot: &Snapshot| facts(snapshot).expect("facts").heartbeat;
        let mut s = Snapshot {
            protocol: protocol::OPAQUE,
            ..Snapshot::EMPTY
        };
        assert_eq!(heartbeat(&s), None);
        let mut flow = Flow::EMPTY;
        flow.snapshot = s;
        let mut tls = TlsFlow::EMPTY;
        flow.tls_hello(&mut tls, HelloFact::version(4));
        s = flow.snapshot;
        assert_eq!(heartbeat(&s), Some(InferredHeartbeat::Unlearned));
        s.rx.ping_interval = 1;
        assert_eq!(heartbeat(&s), Some(InferredHeartbeat::Learned));
        flow.tls_hello(&mut tls, HelloFact::OFFERS_H2);
        s = flow.snapshot;
        assert_eq!(heartbeat(&s), Some(InferredHeartbeat::Refused));
        s.protocol = protocol::WEBSOCKET;
        assert_eq!(heartbeat(&s), None);
    }

    #[test]
    fn the_beginning_of_a_close_is_decoded() {
        let close = |initiator| Close {
            initiator,
            code: Some(1001),
        };
        let (rx, tx) = (Direction::Rx, Direction::Tx);
        for (raw, by) in [
            (closing_by::CLOSE_FRAME_RX, ClosingBy::CloseFrame(close(rx))),
            (closing_by::CLOSE_FRAME_TX, ClosingBy::CloseFrame(close(tx))),
            (closing_by::FIN_RX, ClosingBy::Fin(rx)),
            (closing_by::FIN_TX, ClosingBy::Fin(tx)),
        ] {
            let snapshot = Snapshot {
                protocol: protocol::WEBSOCKET,
                opened_at: 3,
                closing_at: 4,
                closing_by: raw,
                close_code: 1001,
                ..Snapshot::EMPTY
            };
            let facts = facts(&snapshot).expect("facts");
            assert_eq!(facts.opened_at, Some(Ktime(3)));
            assert_eq!(facts.closing, Some(Closing { at: Ktime(4), by }));
        }
        let unknown = Snapshot {
            protocol: protocol::WEBSOCKET,
            closing_by: 9,
            ..Snapshot::EMPTY
        };
        assert_eq!(facts(&unknown), Err(DecodeError::ClosingBy(9)));
    }
}
