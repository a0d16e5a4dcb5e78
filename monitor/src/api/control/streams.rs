//! Streams of frames and of state changes.

use axum::{
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{ControlRequest, ControlRequests, gone, parameters::Parameters, parsed, watch};
use crate::{
    api::http::request_reply,
    records::{
        UNSERVED_HEADER,
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
    cookie: Option<u64>,
    control_only: bool,
}

pub(super) async fn frames(
    Shared(requests): Shared<ControlRequests>,
    Parameters(query): Parameters<FramesQuery>,
) -> Response {
    let filter = Filter {
        port: query.port,
        peer: query.peer,
        opcodes: query.opcode,
        direction: query.direction,
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

pub(super) async fn events(Shared(requests): Shared<ControlRequests>) -> Response {
    watch(request_reply(&requests, ControlRequest::Events).await)
}
