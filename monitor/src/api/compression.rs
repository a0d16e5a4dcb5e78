//! Compresses responses with gzip.

use std::io::Write as _;

use axum::{
    body::{self, Body, Bytes},
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use tokio::task;

use super::negotiation;

/// The value of `Content-Encoding`.
pub(super) const GZIP: &str = "gzip";

/// A shorter body would become longer.
const SHORTEST: usize = 64;

/// Compresses the body of a response if the request allows it, unless that is done already.
pub(super) async fn add(request: Request, next: Next) -> Response {
    let is_accepted = negotiation::accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    let vary = HeaderValue::from(ACCEPT_ENCODING);
    response.headers_mut().append(VARY, vary);
    if !is_accepted || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // The body is complete in memory already.
    let Ok(body) = body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if body.len() < SHORTEST {
        return Response::from_parts(head, Body::from(body));
    }
    match task::spawn_blocking(move || gzip(&body)).await {
        Ok(compressed) => {
            let encoding = HeaderValue::from_static(GZIP);
            head.headers.insert(CONTENT_ENCODING, encoding);
            head.headers.remove(CONTENT_LENGTH);
            Response::from_parts(head, Body::from(compressed))
        }
        // The panic was reported.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The compressed bytes. That takes about 10 ms for each megabyte.
pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    compressed.expect("memory takes every byte").into()
}
