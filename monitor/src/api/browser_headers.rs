//! Headers that keep a browser from using a response for anything else than it is.

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    response::Response,
};

use super::page;

const HEADERS: [(HeaderName, &str); 5] = [
    // What is served needs nothing from elsewhere, and no script.
    (CONTENT_SECURITY_POLICY, page::POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    // The next moment has other counts.
    (CACHE_CONTROL, "no-store"),
];

/// Adds them to a response.
pub(super) async fn add(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        // The web configuration may have set it.
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}
