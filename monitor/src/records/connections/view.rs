//! Makes the record of a connection.

use jiff::Timestamp;

use super::{
    CloseFrame, ConnectionRecord, DirectionRecord, HandshakeSummary, State, StateChange, TcpRecord,
    VerdictRecord,
};
use crate::records::{numbers::seconds, owner::OwnerRecord, tls::TlsSummary};
use monitor_core::{
    CloseHow, ConnectionAlert, Detail, Hop, Ktime, Transition, VerdictKind,
    detail::DirectionTraffic, facts::DirectionActivity, transition::Reason,
};

/// The sources of a connection's record.
#[derive(Debug)]
pub struct ConnectionView<'a> {
    pub detail: &'a Detail,
    /// The listener's name.
    pub listener: &'a str,
    /// The hop with the shortest idle timeout on its path.
    pub hop: Option<&'a Hop>,
    pub verdict: Option<&'a ConnectionAlert>,
    pub handshake: Option<HandshakeSummary>,
    /// Bytes.
    pub send_queue: Option<u32>,
    /// When the upgrade was requested.
    pub requested_at: Option<Ktime>,
    /// What is known of it; a search may find more.
    pub owner: OwnerRecord,
    /// For a closed connection.
    pub how: Option<CloseHow>,
    /// The moment to which ages are measured.
    pub now: Ktime,
    /// The wall clock at `now`.
    pub ts: Timestamp,
}

impl ConnectionView<'_> {
    pub fn record(&self) -> ConnectionRecord {
        let facts = &self.detail.facts;
        let closing = facts.closing.is_some() || facts.close.is_some() || !facts.is_open();
        ConnectionRecord {
            ts: self.wall_clock(self.now),
            cookie: facts.conn,
            listener: self.listener.to_owned(),
            local: facts.local,
            peer: facts.peer,
            role: facts.role.as_str().to_owned(),
            protocol: facts.protocol.as_str().to_owned(),
            state: match (self.how, closing) {
                (Some(_), _) => State::Closed,
                (None, true) => State::Closing,
                (None, false) => State::Open,
            },
            known_from: facts.origin.as_str().to_owned(),
            cgroup_id: facts.cgroup_id.map(|id| id.to_string()),
            owner: self.owner.clone(),
            age_seconds: self.age(facts.established_at),
            idle_seconds: self.age(self.last_passed()),
            idle_limit_seconds: self.hop.and_then(|hop| hop.idle_timeout).map(seconds),
            hop: self.hop.map(|hop| hop.name.clone()),
            hop_idle_seconds: self.age(self.hop.and_then(|hop| hop.quiet_since(facts))),
            states: self.states(),
            verdict: self.verdict.map(|alert| VerdictRecord {
                kind: alert.subject.kind.as_str().to_owned(),
                certainty: alert.subject.certainty.as_str().to_owned(),
                ts: self.wall_clock(alert.at),
                began_at: self.wall_clock(alert.since),
                limit_seconds: seconds(alert.subject.limit),
                reason: alert.reason.clone(),
            }),
            handshake: self.handshake.clone(),
            rx: self.side(&facts.rx, &self.detail.rx),
            tx: self.side(&facts.tx, &self.detail.tx),
            rates: None,
            tls: TlsSummary::new(self.detail),
            tcp: TcpRecord {
                last_ack_seconds: self.age(facts.ack_progress_at),
                unacked_bytes: facts.unacked_bytes,
                unacked_seconds: self.age(facts.unacked_since),
                retransmits: facts.retransmits,
                retransmits_total: self.detail.retransmits,
                unanswered_transmissions: facts.unanswered_transmissions,
                unanswered_seconds: self.age(facts.unanswered_since),
                send_queue_bytes: self.send_queue,
            },
            close: facts.close.map(CloseFrame::from),
        }
    }

    /// When a packet last passed. An acknowledgement that follows closely is not published, so a single
    /// transmission counts as answered, unless the path is reported as dead.
    fn last_passed(&self) -> Option<Ktime> {
        let facts = &self.detail.facts;
        let is_dead = self.verdict.is_some_and(|alert| {
            let kind = alert.subject.kind;
            matches!(kind, VerdictKind::Expired | VerdictKind::BlackHoled)
        });
        let sent = facts
            .tx
            .last_packet
            .filter(|_| facts.unanswered_transmissions == 1 && !is_dead);
        facts.last_passed().max(sent)
    }

    fn states(&self) -> Vec<StateChange> {
        let facts = &self.detail.facts;
        let change = |state, at, reason: Reason| StateChange {
            state,
            ts: self.wall_clock(at),
            reason: reason.to_string(),
        };
        let requested = self
            .requested_at
            .map(|at| change(State::Connecting, at, Reason::Requested));
        let opened = facts.opened_at.map(|at| {
            let opened = Transition::opened(facts, None, self.requested_at.is_some());
            change(State::Open, at, opened.reason)
        });
        let closing = facts.closing.map(|closing| {
            let closing = Transition::closing(facts, closing);
            change(State::Closing, closing.at, closing.reason)
        });
        let closed = self
            .how
            .map(|how| change(State::Closed, facts.at, Reason::Ended { how }));
        [requested, opened, closing, closed]
            .into_iter()
            .flatten()
            .collect()
    }

    fn side(&self, activity: &DirectionActivity, traffic: &DirectionTraffic) -> DirectionRecord {
        DirectionRecord {
            last_packet_seconds: self.age(activity.last_packet),
            last_payload_seconds: self.age(activity.last_payload),
            last_frame_seconds: self.age(activity.last_frame),
            last_data_frame_seconds: self.age(traffic.last_data_frame),
            last_ping_seconds: self.age(traffic.last_ping),
            frames: traffic.frames,
            payload_bytes: traffic.payload_bytes,
            pings: traffic.pings,
            pings_unanswered: traffic.pings_unanswered,
            ping_rtt_seconds: traffic.ping_rtt.map(|rtt| rtt.as_secs_f64()),
            ping_interval_seconds: traffic.ping_interval.map(seconds),
            ping_jitter_seconds: traffic.ping_jitter.map(seconds),
        }
    }

    fn age(&self, moment: Option<Ktime>) -> Option<f64> {
        moment.map(|moment| seconds(self.now.since(moment)))
    }

    fn wall_clock(&self, at: Ktime) -> Timestamp {
        at.on_wall_clock(self.now, self.ts)
    }
}
