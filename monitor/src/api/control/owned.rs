//! Completes responses with the owners of connections. The daemon does not search for them, so that no
//! request holds up its loop.

use jiff::Timestamp;

use crate::{
    kernel::owner_service::{OwnerQuery, OwnerService},
    records::{
        alert::AlertRecord,
        connections::{ConnectionRecord, State},
        owner::OwnerRecord,
    },
};
use monitor_core::{Alert, ConnectionAlert, background::Background};

/// A standing verdict, without its owner if none was reported.
#[derive(Debug)]
pub struct StandingAlert {
    pub alert: ConnectionAlert,
    pub listener: String,
    pub ts: Timestamp,
}

/// Looks up the owners of `records`, a page of them.
pub(super) async fn complete(owners: &OwnerService, records: &mut [ConnectionRecord]) {
    let queries = records.iter().map(|record| OwnerQuery {
        conn: record.cookie,
        local: record.local,
        peer: record.peer,
        cgroup_id: record.cgroup_id.as_deref().and_then(|id| id.parse().ok()),
        is_open: record.state != State::Closed,
    });
    let found = owners.owners(queries.collect()).await;
    for (record, owner) in records.iter_mut().zip(found) {
        let earlier = std::mem::take(&mut record.owner);
        record.owner = OwnerRecord::from(owner).or(earlier);
    }
}

/// The lines of the alert log. A verdict that was reported in a group has no owner yet.
pub(super) async fn lines(
    owners: &OwnerService,
    mut standing: Vec<StandingAlert>,
) -> serde_json::Result<Vec<String>> {
    let unnamed: Vec<_> = standing
        .iter_mut()
        .map(|standing| &mut standing.alert.subject)
        .filter(|verdict| verdict.background.is_none())
        .collect();
    let queries = unnamed
        .iter()
        .map(|verdict| OwnerQuery::from(&verdict.facts));
    let found = owners.owners(queries.collect()).await;
    for (verdict, owner) in unnamed.into_iter().zip(found) {
        verdict.background = Some(Box::new(Background {
            owner,
            ..Background::default()
        }));
    }
    let lines = standing.into_iter().map(|standing| {
        let alert = Alert::from(standing.alert);
        AlertRecord::new(&alert, &standing.listener, standing.ts).to_json()
    });
    lines.collect()
}
