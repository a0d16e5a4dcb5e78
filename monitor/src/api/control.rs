//! The control socket: everything that names a connection, over HTTP on a unix socket.
//!
//! | path | response |
//! |---|---|
//! | `GET /v1/connections` | one line per watched connection |
//! | `GET /v1/connections/{cookie}` | one connection, open or recently closed |
//! | `GET /v1/clients` | one line per client with many attempts, with its counts |
//! | `GET /v1/groups` | one line per listener, peer or the like, with figures of its connections |
//! | `GET /v1/status` | what is watched, and what is wrong |
//! | `GET /v1/alerts` | one line per standing alert, or past ones, or a stream of those to come |
//! | `GET /v1/frames` | a stream of frames as they arrive, and of losses |
//! | `GET /v1/events` | a stream of state changes of connections |
//!
//! Lines are JSON. The daemon owns all state and is queried page by page, so that no response blocks it
//! for long.

use std::{convert::Infallible, error::Error, fmt::Display, io, slice, str::FromStr};

use axum::{
    BoxError, Router,
    body::Body,
    extract::{FromRef, Path, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use super::http::request_reply;
use parameters::Parameters;

use crate::kernel::{bpf::maps::MapAccessError, owner_service::OwnerService};
use crate::records::{
    TOTAL_ENTRIES_HEADER,
    clients::ClientRecord,
    connections::{ConnectionRecord, State},
    frames::{Filter, OneIn},
    json,
    rates::TrafficSample,
    status::StatusRecord,
};
use monitor_core::{ConnId, Ktime};

mod alert_feed;
mod alerts;
mod clients;
mod connections;
mod ended_connections;
mod groups;
mod known_listener;
mod mailbox;
mod owned;
mod parameters;
mod ranked;
mod record_pages;
mod selection;
mod socket;
mod status;
mod streams;
mod urgency;
mod urgent_then_oldest;
mod viewers;

pub use alert_feed::{AlertFeed, AlertFilter, AlertHistory, LoggedAlert};
pub use ended_connections::{EndedConnections, Past, REMEMBERED};
pub use mailbox::LineStream;
pub use owned::StandingAlert;
pub use socket::{ControlSocket, Guard, RunningDaemon, SocketError};
pub use urgency::Urgency;
pub use viewers::{EventViewers, FrameViewers, MAX_VIEWERS, TooManyViewers};

/// A request to the daemon, which owns all state; the response goes back through the channel.
#[derive(Debug)]
pub enum ControlRequest {
    /// The connections in the table, unordered, each with the time since when it is known.
    KnownSince(oneshot::Sender<Vec<(Ktime, ConnId)>>),
    /// The same for those with a standing verdict.
    JudgedSince(oneshot::Sender<Vec<(Ktime, ConnId)>>),
    /// The records of those that still exist.
    Connections(Vec<ConnId>, oneshot::Sender<Vec<ConnectionRecord>>),
    /// The counts of those that still exist.
    Traffic(Vec<ConnId>, oneshot::Sender<Vec<(ConnId, TrafficSample)>>),
    /// One connection, open or remembered.
    Connection(ConnId, oneshot::Sender<Option<ConnectionRecord>>),
    /// The remembered connections that ended, the latest end first.
    Ended(oneshot::Sender<Vec<ConnectionRecord>>),
    /// The state of the daemon, with all listeners or with the one of this name.
    Status(
        Option<String>,
        oneshot::Sender<Result<StatusRecord, MapAccessError>>,
    ),
    /// The names of the listeners.
    ListenerNames(oneshot::Sender<Vec<String>>),
    /// The connections with a standing verdict, unordered.
    JudgedConnections(AlertFilter, oneshot::Sender<Vec<Urgency>>),
    /// The standing verdicts on these connections.
    Alerts(Vec<ConnId>, oneshot::Sender<Vec<StandingAlert>>),
    /// The standing alerts on listeners, the most urgent first, as lines of the alert log.
    AlertsOnListeners(
        AlertFilter,
        oneshot::Sender<serde_json::Result<Vec<String>>>,
    ),
    AlertHistory(AlertFilter, oneshot::Sender<AlertHistory>),
    FollowAlerts(AlertFilter, oneshot::Sender<Result<LineStream, WatchError>>),
    /// The clients, by listener, heaviest first.
    Clients(oneshot::Sender<Vec<ClientRecord>>),
    Frames(
        Filter,
        OneIn,
        oneshot::Sender<Result<LineStream, WatchError>>,
    ),
    Events(oneshot::Sender<Result<LineStream, WatchError>>),
    /// The watched local ports on which nobody listens, such as `8080,9000-9010`.
    Unserved(oneshot::Sender<String>),
}

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    TooManyViewers(#[from] TooManyViewers),
    #[error("cannot request frames from the kernel: {0}")]
    Kernel(#[source] Box<dyn Error + Send + Sync>),
}

type ControlRequests = mpsc::Sender<ControlRequest>;

/// Where the responses come from.
#[derive(Clone, Debug)]
struct Sources {
    requests: ControlRequests,
    owners: OwnerService,
}

impl FromRef<Sources> for ControlRequests {
    fn from_ref(sources: &Sources) -> Self {
        sources.requests.clone()
    }
}

impl FromRef<Sources> for OwnerService {
    fn from_ref(sources: &Sources) -> Self {
        sources.owners.clone()
    }
}

/// Serves until the process ends.
pub async fn serve(
    listener: UnixListener,
    requests: mpsc::Sender<ControlRequest>,
    owners: OwnerService,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/connections", get(connections::connections))
        .route("/v1/connections/{cookie}", get(connection))
        .route("/v1/clients", get(clients::clients))
        .route("/v1/groups", get(groups::groups))
        .route("/v1/status", get(status::status))
        .route("/v1/alerts", get(alerts::alerts))
        .route("/v1/frames", get(streams::frames))
        .route("/v1/events", get(streams::events))
        .with_state(Sources { requests, owners });
    axum::serve(listener, router).await
}

/// A parameter of a query that is parsed from its text.
fn parsed<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(D::Error::custom))
        .transpose()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConnectionQuery {
    /// Whether to read an open connection twice, for its rates.
    rates: bool,
}

async fn connection(
    Shared(Sources { requests, owners }): Shared<Sources>,
    Path(cookie): Path<String>,
    Parameters(query): Parameters<ConnectionQuery>,
) -> Response {
    let Ok(cookie) = cookie.parse() else {
        let text = format!("invalid cookie {cookie:?}, expected a number\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let conn = ConnId(cookie);
    let rates = match query.rates {
        true => record_pages::rates_of(&requests, conn).await,
        false => None,
    };
    let response = request_reply(&requests, |reply| ControlRequest::Connection(conn, reply));
    let response = response.await.map(|record| {
        record.map(|record| {
            let rates = rates.filter(|_| record.state != State::Closed);
            ConnectionRecord { rates, ..record }
        })
    });
    match response {
        Some(Some(mut record)) => {
            owned::complete(&owners, slice::from_mut(&mut record)).await;
            match json::to_string(&record) {
                Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
                Err(error) => not_written(&error),
            }
        }
        Some(None) => unknown(conn),
        None => gone(),
    }
}

fn unknown(conn: ConnId) -> Response {
    let text = format!(
        "no connection {} is watched or among the last {REMEMBERED} that ended\n",
        conn.0
    );
    (StatusCode::NOT_FOUND, text).into_response()
}

fn watch(lines: Option<Result<LineStream, WatchError>>) -> Response {
    match lines {
        Some(Ok(lines)) => json_lines(lines),
        Some(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        None => gone(),
    }
}

/// The lines about `conns`, requested page by page as the reader takes them. A page that cannot be
/// written cuts the response off.
fn pages(
    conns: impl Iterator<Item = ConnId>,
    about: impl AsyncFnMut(Vec<ConnId>) -> Option<serde_json::Result<Vec<String>>>,
) -> impl Stream<Item = serde_json::Result<Bytes>> {
    stream::unfold((conns, about), async |(mut conns, mut about)| {
        let page = next_page(&mut conns);
        if page.is_empty() {
            return None;
        }
        let lines = about(page).await?;
        Some((lines.map(|lines| joined(&lines)), (conns, about)))
    })
}

/// The lines, each with its newline.
fn joined(lines: &[String]) -> Bytes {
    let newlines = lines.iter().flat_map(|line| [line.as_str(), "\n"]);
    newlines.collect::<String>().into()
}

/// Empty when all were taken.
fn next_page(conns: &mut impl Iterator<Item = ConnId>) -> Vec<ConnId> {
    conns.take(record_pages::PAGE).collect()
}

/// The first groups or clients, up to the limit.
fn first_entries<T: Serialize>(mut records: Vec<T>, limit: Option<usize>) -> Response {
    let total = [(TOTAL_ENTRIES_HEADER, records.len().to_string())];
    records.truncate(limit.unwrap_or(usize::MAX));
    (total, written(&records)).into_response()
}

fn written<T: Serialize>(records: &[T]) -> Response {
    let lines: serde_json::Result<Vec<String>> = records.iter().map(json::to_string).collect();
    match lines {
        Ok(lines) => json_lines(stream::iter([Ok::<_, Infallible>(joined(&lines))])),
        Err(error) => not_written(&error),
    }
}

fn json_lines<E: Into<BoxError> + 'static>(
    lines: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    (headers, Body::from_stream(lines)).into_response()
}

fn not_written(error: &serde_json::Error) -> Response {
    let text = format!("a record cannot be written as JSON: {error}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n").into_response()
}
