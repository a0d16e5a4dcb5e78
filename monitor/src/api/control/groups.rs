//! Groups of connections, counted outside of the daemon's loop.

use axum::{extract::State as Shared, response::Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    ControlRequest, REMEMBERED, Sources, first_entries, gone, known_listener, owned,
    parameters::Parameters, parsed, record_pages::RecordPages, selection::has_listener_and_peer,
    urgent_then_oldest::UrgentThenOldest,
};
use crate::{
    api::http::request_reply,
    records::{
        connections::ConnectionRecord,
        frames::Peers,
        groups::{GroupBy, GroupRecord, Groups},
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupsQuery {
    by: GroupBy,
    listener: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    peer: Option<Peers>,
    limit: Option<usize>,
}

impl GroupsQuery {
    fn accepts(&self, record: &ConnectionRecord) -> bool {
        let listener = self.listener.as_deref();
        has_listener_and_peer(listener, self.peer, &record.listener, record.peer.ip())
    }
}

pub(super) async fn groups(
    Shared(sources): Shared<Sources>,
    Parameters(query): Parameters<GroupsQuery>,
) -> Response {
    if let Some(refused) =
        known_listener::refusal(&sources.requests, query.listener.as_deref()).await
    {
        return refused;
    }
    match count(&sources, &query).await {
        Some(groups) => first_entries(groups, query.limit),
        None => gone(),
    }
}

/// `None` if the daemon has ended.
async fn count(sources: &Sources, query: &GroupsQuery) -> Option<Vec<GroupRecord>> {
    let Sources { requests, owners } = sources;
    let mut groups = Groups::new(query.by, Timestamp::now());
    // Before those that exist, so that none counts as both.
    let mut ended = request_reply(requests, ControlRequest::Ended).await?;
    if let Some(oldest) = ended.get(REMEMBERED - 1) {
        groups.remember_since(oldest.ts);
    }
    let conns = request_reply(requests, ControlRequest::KnownSince).await?;
    let mut pages = RecordPages::with_rates(UrgentThenOldest::new(Vec::new(), conns));
    while let Some(mut records) = pages.next(requests).await.ok()? {
        records.retain(|record| query.accepts(record));
        if query.by.needs_owner() {
            owned::complete(owners, &mut records).await;
        }
        for record in &records {
            groups.add_open(record);
        }
    }
    ended.retain(|record| query.accepts(record));
    if query.by.needs_owner() {
        owned::complete(owners, &mut ended).await;
    }
    for record in &ended {
        groups.add_ended(record);
    }
    Some(groups.into_records())
}
