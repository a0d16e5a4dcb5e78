//! The list of connections.

use std::collections::HashMap;

use axum::{
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::task::yield_now;

use super::{
    AlertFilter, ControlRequest, ControlRequests, Sources, Urgency, gone, json_lines,
    known_listener, owned, pages,
    parameters::Parameters,
    ranked::Ranked,
    record_pages::{PAGE, RecordPages},
    selection::{ConnectionsQuery, Selection},
    urgent_then_oldest::UrgentThenOldest,
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
    let mut ordered = UrgentThenOldest::new(urgent, conns);
    let queue: Box<dyn Iterator<Item = ConnId> + Send>;
    let mut rates = HashMap::new();
    let mut selection = Selection::new(query, owners.clone());
    let is_ranked = order.figures().is_some();
    if let Some(figures) = order.figures() {
        let pages = match order.needs_rates() {
            true => RecordPages::with_rates(ordered),
            false => RecordPages::new(ordered),
        };
        // More than wanted, in place of those that end before their records are written.
        let first = left.saturating_add(skipped).saturating_add(PAGE);
        let Ok(ranked) = Ranked::read(&requests, pages, &mut selection, figures, first).await
        else {
            return gone();
        };
        rates = ranked.rates;
        queue = Box::new(ranked.conns.into_iter().skip(skipped));
        skipped = 0;
    } else {
        if selection.is_everything() {
            // Without their records, which takes far less time.
            skip(&mut ordered, skipped).await;
            skipped = 0;
        }
        queue = Box::new(ordered);
    }
    let lines = pages(queue, async move |page| {
        if left == 0 {
            return None;
        }
        let mut records =
            request_reply(&requests, |reply| ControlRequest::Connections(page, reply)).await?;
        if !is_ranked {
            selection.retain(&mut records).await;
        }
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

/// Leaves out the first `n` connections. After each page the daemon's loop, on the same thread, can run.
async fn skip(conns: &mut impl Iterator<Item = ConnId>, mut n: usize) {
    while n > 0 {
        let skipped = conns.by_ref().take(n.min(PAGE)).count();
        if skipped == 0 {
            break;
        }
        n -= skipped;
        yield_now().await;
    }
}

/// The connections to list first, and all of which the records are examined; `None` if the daemon has
/// ended.
async fn candidates(
    requests: &ControlRequests,
    query: &ConnectionsQuery,
    order: ListOrder,
) -> Option<(Vec<Urgency>, Vec<(Ktime, ConnId)>)> {
    let urgent = match order {
        ListOrder::Urgency => {
            let judged = |reply| ControlRequest::JudgedConnections(AlertFilter::default(), reply);
            request_reply(requests, judged).await?
        }
        _ => Vec::new(),
    };
    let all = match query.needs_verdict() {
        true => request_reply(requests, ControlRequest::JudgedSince).await?,
        false => request_reply(requests, ControlRequest::KnownSince).await?,
    };
    Some((urgent, all))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::{super::parameters::parse, *};
    use crate::records::connections::{
        ConnectionRecord, State,
        tests::{detail, record},
    };

    #[tokio::test]
    async fn the_daemon_runs_between_the_pages_that_are_skipped() {
        let turns = async {
            for _ in 1..10 {
                yield_now().await;
            }
        };
        let mut conns = (0..20 * PAGE as u64).map(ConnId);
        tokio::select! {
            biased;
            () = skip(&mut conns, 19 * PAGE + 1) => panic!("skipped without a pause"),
            () = turns => {}
        }
        assert_eq!(conns.next(), Some(ConnId(10 * PAGE as u64)));
        skip(&mut conns, usize::MAX).await;
        assert_eq!(conns.next(), None);
    }

    /// Connections 1 to 9, each idle for as many seconds. When a record is requested again, connection 9
    /// has ended and no other one is open.
    async fn respond(mut requests: mpsc::Receiver<ControlRequest>) {
        let mut was_read = false;
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::KnownSince(reply) => {
                    let known = (1..10).map(|n| (Ktime(n), ConnId(n))).collect();
                    reply.send(known).expect("a request waits");
                }
                ControlRequest::Unserved(reply) => {
                    reply.send(String::new()).expect("a request waits");
                }
                ControlRequest::Connections(conns, reply) => {
                    let conns = conns.iter().filter(|conn| !was_read || conn.0 != 9);
                    let read = |conn: &ConnId| ConnectionRecord {
                        idle_seconds: Some(conn.0 as f64),
                        state: if was_read {
                            State::Closing
                        } else {
                            State::Open
                        },
                        ..record(&detail(conn.0), None)
                    };
                    reply
                        .send(conns.map(read).collect())
                        .expect("a request waits");
                    was_read = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_page_by_figures_is_full_although_connections_changed_or_ended() {
        let (requests, received) = mpsc::channel(1);
        let daemon = tokio::spawn(respond(received));
        let owners = OwnerService::open(Path::new("/nonexistent")).expect("netlink");
        let query: ConnectionsQuery = parse("order=idle&state=open&limit=3").expect("a query");
        let response = connections(Shared(Sources { requests, owners }), Parameters(query)).await;
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let cookies: Vec<ConnId> = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let record: ConnectionRecord = serde_json::from_slice(line).expect("a record");
                record.cookie
            })
            .collect();
        assert_eq!(cookies, [8, 7, 6].map(ConnId));
        daemon.await.expect("no other request");
    }
}
