//! Serves the control socket: responses, and the frames for its viewers.

use super::{Daemon, both_clocks, name_of};
use crate::{
    api::control::{ControlRequest, Past, WatchError},
    config::listeners::ListenerConfig,
    kernel::clock,
    records::{
        Now,
        clients::ClientRecord,
        connections::{ConnectionRecord, ConnectionView, HandshakeSummary},
        owner::OwnerRecord,
        rates::TrafficSample,
        transitions::TransitionRecord,
    },
};
use monitor_core::{Closed, ConnId, Detail, Facts, Hop, ListenerId, Transition};

impl Daemon {
    pub(super) fn respond_to_control(&mut self, request: ControlRequest) {
        // The requester may have gone.
        match request {
            ControlRequest::KnownSince(reply) => drop(reply.send(self.core.known_since())),
            ControlRequest::JudgedSince(reply) => drop(reply.send(self.core.judged_since())),
            ControlRequest::Connections(conns, reply) => {
                let now = both_clocks();
                let records = conns.iter().filter_map(|conn| self.alive(*conn, &now));
                drop(reply.send(records.collect()));
            }
            ControlRequest::Traffic(conns, reply) => {
                let samples = conns.iter().filter_map(|conn| {
                    let detail = self.detail(*conn)?;
                    Some((*conn, TrafficSample::of(&detail, clock::now())))
                });
                drop(reply.send(samples.collect()));
            }
            ControlRequest::Connection(conn, reply) => {
                let record = self
                    .alive(conn, &both_clocks())
                    .or_else(|| self.outputs.history.find(conn).map(|past| self.over(past)));
                drop(reply.send(record));
            }
            ControlRequest::Ended(reply) => {
                let records = self.outputs.history.iter().map(|past| self.over(past));
                drop(reply.send(records.collect()));
            }
            ControlRequest::Alerts(conns, reply) => {
                let now = both_clocks();
                let standing = conns.iter().filter_map(|conn| self.standing(*conn, &now));
                drop(reply.send(standing.collect()));
            }
            ControlRequest::AlertsOnListeners(filter, reply) => {
                drop(reply.send(self.alerts_on_listeners(&filter)));
            }
            ControlRequest::JudgedConnections(filter, reply) => {
                drop(reply.send(self.judged_connections(&filter)));
            }
            ControlRequest::AlertHistory(filter, reply) => {
                drop(reply.send(self.outputs.alert_feed.history(&filter)));
            }
            ControlRequest::FollowAlerts(filter, reply) => {
                let lines = self.outputs.alert_feed.admit(filter);
                drop(reply.send(lines.map_err(WatchError::from)));
            }
            ControlRequest::Status(listener, reply) => {
                drop(reply.send(self.status(listener.as_deref())));
            }
            ControlRequest::ListenerNames(reply) => {
                let names = self.listeners.iter().map(|of| of.rules.name.clone());
                drop(reply.send(names.collect()));
            }
            ControlRequest::Clients(reply) => {
                let now = both_clocks();
                let clients = self.core.clients().flat_map(|(listener, rows)| {
                    let name = self.listener_name(listener);
                    let record = |row: &_| ClientRecord::new(row, name, now.at, now.ts);
                    rows.iter().map(record).collect::<Vec<_>>()
                });
                drop(reply.send(clients.collect()));
            }
            ControlRequest::Frames(filter, one_in, reply) => {
                let lines =
                    self.outputs
                        .frame_stream
                        .watch(filter, one_in, &self.housekeeping.drops);
                drop(reply.send(lines));
            }
            ControlRequest::Unserved(reply) => {
                let ports: Vec<_> = self.unserved().map(ListenerConfig::ports_text).collect();
                drop(reply.send(ports.join(",")));
            }
            ControlRequest::Events(reply) => {
                drop(reply.send(self.outputs.events.admit().map_err(WatchError::from)));
            }
        }
    }

    /// Shows the frames waiting in the ring. Drains the vitals first and, for an unknown connection,
    /// again afterwards: the end of a connection is reported before its snapshot is removed.
    pub(super) fn show_frames(&mut self) {
        if self.outputs.frame_stream.viewers() == 0 {
            return;
        }
        let collected = self.outputs.frame_stream.collect();
        self.intake.undecodable += collected.undecodable;
        let now = both_clocks();
        let mut orphans = 0;
        for sample in &collected.frames {
            let conn = ConnId(sample.cookie);
            if self.outputs.frame_stream.endpoints(conn).is_none() {
                match self.intake.snapshots.get(conn) {
                    Ok(Some(facts)) => self.outputs.frame_stream.remember(&facts),
                    Ok(None) => self.drain(),
                    Err(error) => log::warn!("socket {}: {error}", conn.0),
                }
            }
            let frames = &mut self.outputs.frame_stream;
            match frames.endpoints(conn) {
                Some(endpoints) => frames.show(sample, endpoints, &self.listeners, &now),
                None => orphans += 1,
            }
        }
        let frames = &mut self.outputs.frame_stream;
        if let Err(error) = frames.report_losses(orphans, &self.housekeeping.drops) {
            log::warn!("cannot read the drop counters: {error}");
        }
    }

    /// All data of a connection; `None` if the kernel no longer has it.
    fn detail(&self, conn: ConnId) -> Option<Detail> {
        let detail = self.intake.snapshots.detail(conn);
        detail.unwrap_or_else(|error| {
            log::warn!("socket {}: {error}", conn.0);
            None
        })
    }

    /// The hop with the shortest idle timeout on the path of a connection.
    fn hop(&self, facts: &Facts) -> Option<&Hop> {
        let listener = self.listeners.get(facts.listener.index())?;
        listener.rules.path_to(facts.peer.ip()).tightest()
    }

    fn alive(&self, conn: ConnId, now: &Now) -> Option<ConnectionRecord> {
        let detail = self.detail(conn)?;
        let verdict = self.core.standing(conn);
        let handshake = self.core.handshake(conn);
        let picture = ConnectionView {
            detail: &detail,
            listener: self.listener_name(detail.facts.listener),
            hop: self.hop(&detail.facts),
            verdict,
            handshake: handshake.as_ref().map(HandshakeSummary::of),
            send_queue: self.core.send_queue(conn),
            requested_at: handshake.and_then(|handshake| handshake.requested_at),
            owner: OwnerRecord::default(),
            how: None,
            now: now.at,
            ts: now.ts,
        };
        Some(picture.record())
    }

    /// The record of a closed connection, as of its end.
    fn over(&self, past: &Past) -> ConnectionRecord {
        let Closed { detail, how } = &past.closed;
        let (end, now) = (detail.facts.at, both_clocks());
        ConnectionView {
            detail,
            listener: self.listener_name(detail.facts.listener),
            hop: self.hop(&detail.facts),
            verdict: None,
            handshake: past.handshake.clone(),
            send_queue: None,
            requested_at: past.requested_at,
            owner: past.owner.clone(),
            how: Some(*how),
            now: end,
            ts: now.wall_clock(end),
        }
        .record()
    }

    /// Shows a change of state to the viewers that follow them.
    pub(super) fn show_event(&mut self, transition: &Transition) {
        if self.outputs.events.is_empty() {
            return;
        }
        let now = both_clocks();
        let name = name_of(&self.listeners, transition.listener);
        let ts = now.wall_clock(transition.at);
        self.outputs
            .events
            .show(&TransitionRecord::new(transition, name, ts));
    }

    pub(super) fn listener_name(&self, listener: ListenerId) -> &str {
        name_of(&self.listeners, listener)
    }
}
