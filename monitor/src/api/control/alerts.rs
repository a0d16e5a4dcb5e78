//! Alerts: those that stand, the last ones, and those to come.

use std::convert::Infallible;

use axum::{
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use super::{
    AlertFilter, ControlRequest, Sources, gone, joined, json_lines, known_listener, owned, pages,
    parameters::Parameters, parsed, urgency::most_urgent, watch,
};
use crate::{
    api::http::request_reply,
    records::{DROPPED_HEADER, TOTAL_ALERTS_HEADER, alert_kind::AlertKind},
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertsQuery {
    listener: Option<String>,
    #[serde(deserialize_with = "parsed")]
    kind: Option<AlertKind>,
    /// The last lines of the alert log instead of the alerts that stand.
    history: bool,
    /// The lines to come instead.
    follow: bool,
    /// Of the alerts that stand, the first ones; of the last lines, the latest.
    limit: Option<usize>,
}

pub(super) async fn alerts(
    Shared(sources): Shared<Sources>,
    Parameters(query): Parameters<AlertsQuery>,
) -> Response {
    let requests = &sources.requests;
    if let Some(refused) = known_listener::refusal(requests, query.listener.as_deref()).await {
        return refused;
    }
    let limit = query.limit.unwrap_or(usize::MAX);
    let filter = AlertFilter {
        listener: query.listener,
        kind: query.kind,
    };
    match (query.history, query.follow) {
        (true, true) => {
            let text = "history and follow exclude each other\n";
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        (true, false) => {
            let history = request_reply(requests, |reply| {
                ControlRequest::AlertHistory(filter, reply)
            });
            let Some(history) = history.await else {
                return gone();
            };
            let headers = [
                (DROPPED_HEADER, history.dropped.to_string()),
                (TOTAL_ALERTS_HEADER, history.lines.len().to_string()),
            ];
            let older = history.lines.len().saturating_sub(limit);
            let lines = history.lines.into_iter().skip(older);
            let lines = lines.map(Ok::<_, Infallible>);
            (headers, json_lines(stream::iter(lines))).into_response()
        }
        (false, true) => {
            let lines = request_reply(requests, |reply| {
                ControlRequest::FollowAlerts(filter, reply)
            });
            watch(lines.await)
        }
        (false, false) => standing(sources, filter, limit).await,
    }
}

/// The alerts on listeners first, then those on connections, the most urgent first.
async fn standing(sources: Sources, filter: AlertFilter, limit: usize) -> Response {
    let Sources { requests, owners } = sources;
    let on_listeners = request_reply(&requests, |reply| {
        ControlRequest::AlertsOnListeners(filter.clone(), reply)
    });
    let Some(on_listeners) = on_listeners.await else {
        return gone();
    };
    let judged = request_reply(&requests, |reply| {
        ControlRequest::JudgedConnections(filter, reply)
    });
    let Some(judged) = judged.await else {
        return gone();
    };
    let mut on_listeners = match on_listeners {
        Ok(lines) => lines,
        Err(error) => return super::not_written(&error),
    };
    let total = on_listeners.len() + judged.len();
    on_listeners.truncate(limit);
    let judged = most_urgent(judged).take(limit - on_listeners.len());
    let verdicts = pages(judged, async move |page| {
        let standing =
            request_reply(&requests, |reply| ControlRequest::Alerts(page, reply)).await?;
        Some(owned::lines(&owners, standing).await)
    });
    let headers = [(TOTAL_ALERTS_HEADER, total.to_string())];
    let on_listeners = stream::iter([Ok(joined(&on_listeners))]);
    (headers, json_lines(on_listeners.chain(verdicts))).into_response()
}
