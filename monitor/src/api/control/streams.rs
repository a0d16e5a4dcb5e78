//! Streams of frames and of state changes.

use axum::{
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    ControlRequest, ControlRequests, gone, parameters::Parameters, parsed, unknown, watch,
};
use crate::{
    api::http::request_reply,
    records::{
        UNSERVED_HEADER,
        connections::State,
        endpoint::Endpoint,
        frames::{Filter, OneIn, Opcodes, Peers},
    },
};
use monitor_core::{ConnId, facts::Direction};

/// Filters of the stream of frames.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FramesQuery {
    /// `1/N` or `N`.
    #[serde(deserialize_with = "parsed")]
    sample: Option<OneIn>,
    port: Option<u16>,
    #[serde(deserialize_with = "parsed")]
    peer: Option<Peers>,
    #[serde(deserialize_with = "parsed")]
    opcode: Option<Opcodes>,
    #[serde(deserialize_with = "parsed")]
    direction: Option<Direction>,
    #[serde(deserialize_with = "parsed")]
    endpoint: Option<Endpoint>,
    cookie: Option<u64>,
    control_only: bool,
}

pub(super) async fn frames(
    Shared(requests): Shared<ControlRequests>,
    Parameters(query): Parameters<FramesQuery>,
) -> Response {
    if let Some(conn) = query.cookie.map(ConnId) {
        let record = request_reply(&requests, |reply| ControlRequest::Connection(conn, reply));
        match record.await {
            Some(Some(record)) if record.state == State::Closed => return ended(conn),
            Some(Some(_)) => {}
            Some(None) => return unknown(conn),
            None => return gone(),
        }
    }
    let filter = Filter {
        port: query.port,
        peer: query.peer,
        opcodes: query.opcode,
        direction: query.direction,
        endpoint: query.endpoint,
        cookie: query.cookie.map(ConnId),
        control_only: query.control_only,
    };
    let one_in = query.sample.unwrap_or(OneIn::ALL);
    let response = request_reply(&requests, |reply| {
        ControlRequest::Frames(filter, one_in, reply)
    });
    let frames = response.await;
    match request_reply(&requests, ControlRequest::Unserved).await {
        Some(unserved) => ([(UNSERVED_HEADER, unserved)], watch(frames)).into_response(),
        None => gone(),
    }
}

fn ended(conn: ConnId) -> Response {
    let text = format!("connection {} has ended; see wsmon inspect {0}\n", conn.0);
    (StatusCode::NOT_FOUND, text).into_response()
}

pub(super) async fn events(Shared(requests): Shared<ControlRequests>) -> Response {
    watch(request_reply(&requests, ControlRequest::Events).await)
}
