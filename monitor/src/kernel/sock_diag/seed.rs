//! Converts TCP's state of a connection older than the daemon into the core's facts.

use std::time::Duration;

use monitor_common::moment::rounded;

use super::{
    inet_diag::{DiagSocket, TcpState},
    tcp_info::TcpInfo,
};
use monitor_core::{
    Ktime,
    facts::{ConnId, DirectionActivity, Facts, ListenerId, Protocol, Role},
};

/// The facts of one socket on a watched port, whose `tcp_info` was requested.
pub(super) fn facts(socket: &DiagSocket, listener: ListenerId, role: Role) -> Facts {
    as_published(described(socket, listener, role))
}

/// Anything TCP does not remember is `None`, never a guess that would make a connection look more idle
/// than it is.
fn described(socket: &DiagSocket, listener: ListenerId, role: Role) -> Facts {
    let clocks = socket
        .info
        .as_ref()
        .map(|info| Clocks::of(info, socket))
        .unwrap_or_default();
    Facts {
        is_subflow: socket.is_subflow,
        cgroup_id: socket.cgroup_id,
        rx: clocks.rx,
        tx: clocks.tx,
        unacked_bytes: clocks.unacked_bytes,
        unacked_since: clocks.unacked_since,
        ack_progress_at: clocks.ack_progress_at,
        retransmits: clocks.retransmits,
        unanswered_transmissions: clocks.unanswered_transmissions,
        unanswered_since: clocks.unanswered_since,
        fin_rx: socket.state.has_received_fin(),
        fin_tx: matches!(
            socket.state,
            TcpState::FinWait1 | TcpState::FinWait2 | TcpState::LastAck | TcpState::Closing
        ),
        ..Facts::new(
            socket.at,
            ConnId(socket.cookie),
            listener,
            role,
            Protocol::Assumed,
            socket.local,
            socket.peer,
        )
    }
}

/// Rounds the moments as the kernel's table does, because the rules compare what is reported now with
/// what is read there later.
fn as_published(mut facts: Facts) -> Facts {
    for moment in [
        &mut facts.rx.last_packet,
        &mut facts.rx.last_payload,
        &mut facts.tx.last_packet,
        &mut facts.tx.last_payload,
        &mut facts.unacked_since,
        &mut facts.ack_progress_at,
        &mut facts.unanswered_since,
    ] {
        *moment = moment.map(|at| Ktime(rounded(at.0)));
    }
    facts
}

/// The moments in `tcp_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Clocks {
    rx: DirectionActivity,
    tx: DirectionActivity,
    unacked_bytes: u32,
    unacked_since: Option<Ktime>,
    ack_progress_at: Option<Ktime>,
    retransmits: u32,
    unanswered_transmissions: u32,
    unanswered_since: Option<Ktime>,
}

impl Clocks {
    fn of(info: &TcpInfo, socket: &DiagSocket) -> Self {
        let at = socket.at;
        let data_sent_at = before(at, info.last_data_sent);
        let data_received_at = before(at, info.last_data_recv);
        let ack_received_at = before(at, info.last_ack_recv);
        // Data is acknowledged within 200 ms (delayed ACK), so it counts as a packet each way.
        let mut clocks = Self {
            rx: DirectionActivity {
                last_packet: data_received_at.max(ack_received_at),
                last_payload: data_received_at.filter(|_| info.bytes_received > 0),
                last_frame: None,
                last_message: None,
            },
            tx: DirectionActivity {
                last_packet: data_sent_at.max(data_received_at),
                last_payload: data_sent_at.filter(|_| info.data_segments_sent > 0),
                last_frame: None,
                last_message: None,
            },
            // The latest possible moment: an acknowledgement may have repeated an earlier one.
            ack_progress_at: ack_received_at.filter(|_| info.bytes_acked > 0),
            ..Self::default()
        };
        if info.unacked_segments > 0 {
            clocks.add_outstanding(info, socket);
        }
        clocks
    }

    /// Bytes are outstanding since they were first sent, or since the last acknowledgement if that came
    /// later. The last acknowledgement alone would date a send after a long idle gap back to the
    /// beginning of the gap.
    fn add_outstanding(&mut self, info: &TcpInfo, socket: &DiagSocket) {
        let first_sent_at = before(socket.at, info.outstanding_for());
        self.unacked_bytes = socket.send_queue.saturating_sub(info.notsent_bytes);
        self.unacked_since = first_sent_at.max(self.ack_progress_at);
        self.retransmits = u32::from(info.retransmits);
        // Since the peer's last packet even the first transmission may be a retransmission. Its number
        // is unknown, so only the last one counts.
        let last_sent_at = before(socket.at, info.last_data_sent);
        if first_sent_at >= self.rx.last_packet {
            self.unanswered_transmissions = 1 + self.retransmits;
            self.unanswered_since = first_sent_at;
        } else if last_sent_at > self.rx.last_packet {
            self.unanswered_transmissions = 1;
            self.unanswered_since = last_sent_at;
        }
    }
}

/// `None` for a time before boot: such a clock was never set.
fn before(at: Ktime, ago: Duration) -> Option<Ktime> {
    (ago <= at.since(Ktime::ZERO)).then(|| at - ago)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sock_diag::inet_diag::AddressFamily;

    const AT: Ktime = Ktime(100_000_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// 60 s old; 3 bytes arrived 30 s ago, 5 bytes were sent 20 s ago and acknowledged at once.
    fn quiet() -> TcpInfo {
        TcpInfo {
            last_data_recv: seconds(30),
            last_data_sent: seconds(20),
            last_ack_recv: seconds(20),
            bytes_received: 3,
            bytes_acked: 5,
            data_segments_sent: 1,
            retransmission_timeout: Duration::from_millis(204),
            ..TcpInfo::default()
        }
    }

    fn seeded(state: TcpState, send_queue: u32, info: Option<TcpInfo>) -> Facts {
        let socket = DiagSocket {
            at: AT,
            cookie: 42,
            family: AddressFamily::Inet,
            state,
            local: "127.0.0.1:8080".parse().unwrap(),
            peer: "127.0.0.1:40000".parse().unwrap(),
            interface: 0,
            receive_queue: 0,
            send_queue,
            inode: 1,
            cgroup_id: None,
            is_subflow: false,
            info,
        };
        described(&socket, ListenerId(3), Role::Server)
    }

    #[test]
    fn the_moments_of_an_idle_connection_are_dated_back() {
        let facts = seeded(TcpState::Established, 0, Some(quiet()));
        assert_eq!(facts.conn, ConnId(42));
        assert_eq!(facts.rx.last_packet, Some(AT - seconds(20)));
        assert_eq!(facts.rx.last_payload, Some(AT - seconds(30)));
        assert_eq!(facts.tx.last_packet, Some(AT - seconds(20)));
        assert_eq!(facts.tx.last_payload, Some(AT - seconds(20)));
        assert_eq!(facts.ack_progress_at, Some(AT - seconds(20)));
        assert_eq!((facts.unacked_since, facts.unanswered_since), (None, None));
        assert!(facts.is_open());
    }

    #[test]
    fn a_connection_that_never_carried_data_has_its_establishment_as_last_packet() {
        let age = seconds(7);
        let fresh = TcpInfo {
            last_data_recv: age,
            last_data_sent: age,
            last_ack_recv: age,
            ..TcpInfo::default()
        };
        let facts = seeded(TcpState::Established, 0, Some(fresh));
        assert_eq!(facts.last_activity(), Some(AT - age));
        assert_eq!((facts.rx.last_payload, facts.tx.last_payload), (None, None));
        assert_eq!(facts.ack_progress_at, None);
    }

    #[test]
    fn bytes_sent_just_now_after_a_long_idle_gap_are_not_outstanding_since_the_gap() {
        let info = TcpInfo {
            unacked_segments: 1,
            last_data_sent: Duration::from_millis(40),
            ..quiet()
        };
        let facts = seeded(TcpState::Established, 100, Some(info));
        assert_eq!(facts.unacked_since, Some(AT - Duration::from_millis(40)));
        assert_eq!(facts.unanswered_since, facts.unacked_since);
        assert_eq!((facts.unanswered_transmissions, facts.retransmits), (1, 0));
        assert_eq!(facts.unacked_bytes, 100);
    }

    #[test]
    fn a_black_hole_is_outstanding_since_its_first_transmission() {
        let info = TcpInfo {
            unacked_segments: 1,
            backoff: 4,
            retransmits: 4,
            retransmission_timeout: Duration::from_millis(3264),
            last_data_sent: Duration::from_millis(1652),
            notsent_bytes: 900,
            ..quiet()
        };
        let facts = seeded(TcpState::Established, 1000, Some(info));
        assert_eq!(facts.unacked_since, Some(AT - Duration::from_millis(4712)));
        assert_eq!((facts.unanswered_transmissions, facts.retransmits), (5, 4));
        assert_eq!(facts.unacked_bytes, 100);
    }

    #[test]
    fn only_the_last_transmission_is_unanswered_by_a_peer_that_sends_without_acknowledging() {
        let info = TcpInfo {
            unacked_segments: 1,
            backoff: 2,
            retransmits: 2,
            retransmission_timeout: Duration::from_millis(816),
            last_data_sent: Duration::from_millis(100),
            last_data_recv: Duration::from_millis(300),
            ..quiet()
        };
        let facts = seeded(TcpState::Established, 10, Some(info));
        assert_eq!(facts.unanswered_transmissions, 1);
        assert_eq!(
            facts.unanswered_since,
            Some(AT - Duration::from_millis(100))
        );
        let spoke_last = TcpInfo {
            last_data_recv: Duration::from_millis(50),
            ..info
        };
        let facts = seeded(TcpState::Established, 10, Some(spoke_last));
        assert_eq!(
            (facts.unanswered_transmissions, facts.unanswered_since),
            (0, None)
        );
    }

    #[test]
    fn clocks_from_before_boot_or_without_tcp_info_are_unknown() {
        let absurd = TcpInfo {
            last_data_recv: seconds(4_294_967),
            last_data_sent: seconds(4_294_967),
            last_ack_recv: seconds(4_294_967),
            ..quiet()
        };
        for info in [Some(absurd), None] {
            let facts = seeded(TcpState::Established, 0, info);
            assert_eq!(facts.last_activity(), None);
            assert_eq!(facts.tx.last_payload, None);
        }
    }

    #[test]
    fn a_state_shows_which_side_has_begun_to_close() {
        let fins = |state| {
            let facts = seeded(state, 0, Some(quiet()));
            (facts.fin_rx, facts.fin_tx)
        };
        assert_eq!(fins(TcpState::Established), (false, false));
        assert_eq!(fins(TcpState::FinWait1), (false, true));
        assert_eq!(fins(TcpState::FinWait2), (false, true));
        assert_eq!(fins(TcpState::CloseWait), (true, false));
        assert_eq!(fins(TcpState::LastAck), (true, true));
        assert_eq!(fins(TcpState::Closing), (true, true));
    }
}
