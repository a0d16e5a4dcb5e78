//! The clients of the listeners.

use std::cmp::Reverse;

use axum::{extract::State as Shared, response::Response};
use serde::Deserialize;

use super::{
    ControlRequest, ControlRequests, first_entries, gone, known_listener, parameters::Parameters,
    parsed, selection::has_listener_and_peer,
};
use crate::{
    api::http::request_reply,
    records::{clients::ClientRecord, frames::Peers},
};

/// Filters of the list of clients.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientsQuery {
    listener: Option<String>,
    #[serde(deserialize_with = "parsed")]
    peer: Option<Peers>,
    limit: Option<usize>,
}

impl ClientsQuery {
    fn accepts(&self, record: &ClientRecord) -> bool {
        let listener = self.listener.as_deref();
        has_listener_and_peer(listener, self.peer, &record.listener, record.figures.client)
    }
}

pub(super) async fn clients(
    Shared(requests): Shared<ControlRequests>,
    Parameters(query): Parameters<ClientsQuery>,
) -> Response {
    if let Some(refused) = known_listener::refusal(&requests, query.listener.as_deref()).await {
        return refused;
    }
    let Some(mut records) = request_reply(&requests, ControlRequest::Clients).await else {
        return gone();
    };
    records.retain(|record| query.accepts(record));
    // They come by listener.
    records.sort_by_key(|record| Reverse(record.figures.attempts));
    first_entries(records, query.limit)
}
