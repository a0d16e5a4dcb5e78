//! The list of connections.

use std::collections::HashMap;

use axum::{
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    ControlRequest, ControlRequests, Sources, gone, json_lines, known_listener,
    oldest_first::OldestFirst,
    owned, pages,
    parameters::Parameters,
    ranked::Ranked,
    record_pages::RecordPages,
    selection::{ConnectionsQuery, Selection},
    written,
};
use crate::{
    api::http::request_reply,
    kernel::owner_service::OwnerService,
    records::{TOTAL_HEADER, UNSERVED_HEADER, json, list_order::ListOrder},
};
use monitor_core::{ConnId, Ktime};

pub(super) async fn connections(
    Shared(Sources { requests, owners }): Shared<Sources>,
    Parameters(query): Parameters<ConnectionsQuery>,
) -> Response {
    if let Some(refused) = known_listener::refusal(&requests, query.listener.as_deref()).await {
        return refused;
    }
    if query.ended {
        return ended_connections(&requests, owners, query).await;
    }
    let order = query.order.unwrap_or_default();
    let Some((urgent, conns)) = candidates(&requests, &query, order).await else {
        return gone();
    };
    let Some(unserved) = request_reply(&requests, ControlRequest::Unserved).await else {
        return gone();
    };
    let headers = [
        (TOTAL_HEADER, conns.len().to_string()),
        (UNSERVED_HEADER, unserved),
    ];
    let mut left = query.limit.unwrap_or(usize::MAX);
    let mut skipped = query.offset;
    let mut queue: Box<dyn Iterator<Item = ConnId> + Send> =
        Box::new(OldestFirst::new(urgent, conns));
    let mut rates = HashMap::new();
    let mut selection = Selection::new(query, owners.clone());
    if let Some(figures) = order.figures() {
        let pages = match order.needs_rates() {
            true => RecordPages::with_rates(queue),
            false => RecordPages::new(queue),
        };
        let first = left.saturating_add(skipped);
        let Ok(ranked) = Ranked::read(&requests, pages, &mut selection, figures, first).await
        else {
            return gone();
        };
        rates = ranked.rates;
        queue = Box::new(ranked.conns.into_iter().skip(skipped));
        skipped = 0;
    } else if selection.is_everything() {
        // Without their records, which takes far less time.
        queue = Box::new(queue.skip(skipped));
        skipped = 0;
    }
    let lines = pages(queue, async move |page| {
        if left == 0 {
            return None;
        }
        let mut records =
            request_reply(&requests, |reply| ControlRequest::Connections(page, reply)).await?;
        selection.retain(&mut records).await;
        let before = records.len().min(skipped);
        records.drain(..before);
        skipped -= before;
        records.truncate(left);
        left -= records.len();
        for record in &mut records {
            record.rates = rates.get(&record.cookie).copied();
        }
        owned::complete(&owners, &mut records).await;
        Some(records.iter().map(json::to_string).collect())
    });
    (headers, json_lines(lines)).into_response()
}

type Known = Vec<(Ktime, ConnId)>;

/// The connections to list first, and all of which the records are examined; `None` if the daemon has
/// ended.
async fn candidates(
    requests: &ControlRequests,
    query: &ConnectionsQuery,
    order: ListOrder,
) -> Option<(Known, Known)> {
    let judged = match query.needs_verdict() || order == ListOrder::Urgency {
        true => request_reply(requests, ControlRequest::JudgedSince).await?,
        false => Vec::new(),
    };
    match query.needs_verdict() {
        true => Some((Vec::new(), judged)),
        false => {
            let known = request_reply(requests, ControlRequest::KnownSince).await?;
            Some((judged, known))
        }
    }
}

/// They are few, so one request returns all.
async fn ended_connections(
    requests: &ControlRequests,
    owners: OwnerService,
    query: ConnectionsQuery,
) -> Response {
    let refusal = match (query.order, query.needs_verdict()) {
        (Some(_), _) => Some("ended connections are listed latest end first, without order\n"),
        (None, true) => Some("ended connections have no standing verdict\n"),
        (None, false) => None,
    };
    if let Some(text) = refusal {
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Some(mut records) = request_reply(requests, ControlRequest::Ended).await else {
        return gone();
    };
    let total = [(TOTAL_HEADER, records.len().to_string())];
    let (offset, limit) = (query.offset, query.limit.unwrap_or(usize::MAX));
    let mut selection = Selection::new(query, owners.clone());
    selection.retain(&mut records).await;
    records.drain(..offset.min(records.len()));
    records.truncate(limit);
    owned::complete(&owners, &mut records).await;
    (total, written(&records)).into_response()
}
