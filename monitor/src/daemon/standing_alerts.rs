//! The alerts that stand, for the control socket.

use super::{Daemon, both_clocks};
use crate::{
    api::control::{AlertFilter, StandingAlert, Urgency},
    records::{Now, alert::AlertRecord},
};
use monitor_core::{Alert, ConnId};

impl Daemon {
    /// The standing alerts on listeners as lines of the alert log: storms and thrashing clients first, then
    /// what was learned about the hops.
    pub(super) fn alerts_on_listeners(
        &self,
        filter: &AlertFilter,
    ) -> serde_json::Result<Vec<String>> {
        let now = both_clocks();
        let standing = self.core.standing_storms();
        let standing = standing.chain(self.core.standing_findings());
        let lines = standing.filter_map(|alert: &Alert| {
            let listener = self.listener_name(alert.listener);
            let ts = now.wall_clock(alert.at);
            filter
                .accepts(listener, alert.subject.name(), alert.subject.kind())
                .then(|| AlertRecord::new(alert, listener, ts).to_json())
        });
        lines.collect()
    }

    /// The connections with a standing verdict, unordered.
    pub(super) fn judged_connections(&self, filter: &AlertFilter) -> Vec<Urgency> {
        let verdicts = self.core.standing_verdicts();
        let judged = verdicts.filter(|alert| {
            let kind = alert.subject.kind;
            let listener = self.listener_name(alert.listener);
            filter.accepts(listener, kind.alert(), kind.as_str())
        });
        let urgency = judged.map(|alert| {
            let verdict = &alert.subject;
            Urgency::new(
                verdict.kind,
                verdict.certainty,
                alert.at,
                verdict.facts.conn,
            )
        });
        urgency.collect()
    }

    /// The standing verdict on a connection, with the owner that was reported with it.
    pub(super) fn standing(&self, conn: ConnId, now: &Now) -> Option<StandingAlert> {
        let mut alert = self.core.standing(conn)?.clone();
        let reported = self.outputs.owner_lookup.reported(conn);
        alert.subject.background = reported.cloned().map(Box::new);
        Some(StandingAlert {
            ts: now.wall_clock(alert.at),
            listener: self.listener_name(alert.listener).to_owned(),
            alert,
        })
    }
}
