//! The state of the daemon.

use axum::{
    extract::State as Shared,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    ControlRequest, ControlRequests, gone, known_listener, not_written, parameters::Parameters,
};
use crate::{api::http::request_reply, records::json};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StatusQuery {
    listener: Option<String>,
}

pub(super) async fn status(
    Shared(requests): Shared<ControlRequests>,
    Parameters(StatusQuery { listener }): Parameters<StatusQuery>,
) -> Response {
    if let Some(refused) = known_listener::refusal(&requests, listener.as_deref()).await {
        return refused;
    }
    let status = request_reply(&requests, |reply| ControlRequest::Status(listener, reply));
    match status.await {
        Some(Ok(status)) => match json::to_string(&status) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
            Err(error) => not_written(&error),
        },
        Some(Err(error)) => {
            let text = format!("cannot read the counts of the kernel programs: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
        None => gone(),
    }
}
