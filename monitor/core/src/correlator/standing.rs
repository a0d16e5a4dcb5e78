//! What stands: verdicts on connections, and findings on their listeners.

use super::Correlator;
use crate::{
    alert::{Alert, ConnectionAlert},
    facts::ConnId,
    history::History,
    past_verdicts::PastVerdict,
    time::Ktime,
};

impl Correlator {
    /// Like [`Correlator::known_since`], for connections with a standing verdict.
    pub fn judged_since(&self) -> Vec<(Ktime, ConnId)> {
        let judged = self.flows.iter().filter(|(_, flow)| flow.is_judged());
        judged.map(|(conn, flow)| (flow.first_seen, conn)).collect()
    }

    /// The standing alerts on connections, unordered.
    pub fn standing_verdicts(&self) -> impl Iterator<Item = &ConnectionAlert> {
        self.flows.iter().filter_map(|(_, flow)| flow.standing())
    }

    /// The standing alerts on what the idle gaps and lifetimes of a listener's connections show.
    pub fn standing_findings(&self) -> impl Iterator<Item = &Alert> {
        self.listeners.iter().flat_map(|listener| {
            let History {
                idle_gaps,
                lifetimes,
                ..
            } = &listener.history;
            idle_gaps.standing().chain(lifetimes.standing())
        })
    }

    /// The standing verdict on a connection: as last reported, with the evidence of the last check.
    pub fn standing(&self, conn: ConnId) -> Option<&ConnectionAlert> {
        self.flows.get(conn)?.standing()
    }

    /// The verdicts that a connection had, in the order of their first end, and the standing one.
    pub fn verdicts(&self, conn: ConnId) -> Vec<PastVerdict> {
        let Some(flow) = self.flows.get(conn) else {
            return Vec::new();
        };
        let history = &self.listeners[flow.listener.index()].history;
        let past = history.past_verdicts.of(conn).iter().copied();
        let standing = flow.standing().map(|alert| PastVerdict {
            kind: alert.subject.kind,
            certainty: alert.subject.certainty,
            resolution: None,
            count: 1,
        });
        past.chain(standing).collect()
    }
}
