//! The control socket: everything that names a connection, over HTTP on a unix socket.
//!
//! | path | response |
//! |---|---|
//! | `GET /v1/connections` | one line per watched connection |
//! | `GET /v1/connections/{cookie}` | one connection, open or recently closed |
//! | `GET /v1/clients` | one line per client with many attempts, with its counts |
//! | `GET /v1/groups` | one line per listener, peer or the like, with figures of its connections |
//! | `GET /v1/alerts` | one line per standing storm and verdict, as in the alert log |
//! | `GET /v1/frames` | a stream of frames as they arrive, and of losses |
//! | `GET /v1/events` | a stream of state changes of connections |
//!
//! Lines are JSON. The daemon owns all state and is queried page by page, so that no response blocks it
//! for long.

use std::{
    collections::HashMap, convert::Infallible, error::Error, fmt::Display, io, slice, str::FromStr,
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::{FromRef, Path, Query, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use super::http::request_reply;
use oldest_first::OldestFirst;
use ranked::Ranked;
use record_pages::RecordPages;

use crate::kernel::owner_service::OwnerService;
use crate::records::{
    TOTAL_HEADER, UNSERVED_HEADER,
    clients::ClientRecord,
    connections::{ConnectionRecord, State},
    frames::{Filter, OneIn, Opcodes, Peers},
    json,
    list_order::ListOrder,
    rates::TrafficSample,
};
use monitor_core::{ConnId, Ktime, facts::Direction};

mod ended_connections;
mod groups;
mod mailbox;
mod oldest_first;
mod owned;
mod ranked;
mod record_pages;
mod socket;
mod viewers;

pub use ended_connections::{EndedConnections, Past, REMEMBERED};
pub use mailbox::LineStream;
pub use owned::StandingAlert;
pub use socket::{ControlSocket, Guard, RunningDaemon, SocketError};
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
    /// The standing verdicts on these connections.
    Alerts(Vec<ConnId>, oneshot::Sender<Vec<StandingAlert>>),
    /// The current storms and thrashing clients, as lines of the alert log.
    Storms(oneshot::Sender<serde_json::Result<Vec<String>>>),
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
        .route("/v1/connections", get(connections))
        .route("/v1/connections/{cookie}", get(connection))
        .route("/v1/clients", get(clients))
        .route("/v1/groups", get(groups::groups))
        .route("/v1/alerts", get(alerts))
        .route("/v1/frames", get(frames))
        .route("/v1/events", get(events))
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

/// Filters of the list of connections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConnectionsQuery {
    listener: Option<String>,
    #[serde(deserialize_with = "parsed")]
    peer: Option<Peers>,
    state: Option<State>,
    /// Recently ended connections instead of those that exist.
    ended: bool,
    order: Option<ListOrder>,
    limit: Option<usize>,
}

impl ConnectionsQuery {
    fn accepts(&self, record: &ConnectionRecord) -> bool {
        let Self {
            listener,
            peer,
            state,
            ended: _,
            order: _,
            limit: _,
        } = self;
        listener
            .as_ref()
            .is_none_or(|name| *name == record.listener)
            && peer.is_none_or(|peers| peers.contains(record.peer.ip()))
            && state.is_none_or(|state| state == record.state)
    }
}

async fn connections(
    Shared(Sources { requests, owners }): Shared<Sources>,
    Query(query): Query<ConnectionsQuery>,
) -> Response {
    if query.ended {
        return ended_connections(&requests, &owners, &query).await;
    }
    let order = query.order.unwrap_or_default();
    let urgent = match order {
        ListOrder::Urgency => request_reply(&requests, ControlRequest::JudgedSince).await,
        _ => Some(Vec::new()),
    };
    let conns = request_reply(&requests, ControlRequest::KnownSince).await;
    let (Some(urgent), Some(conns)) = (urgent, conns) else {
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
    let mut queue: Box<dyn Iterator<Item = ConnId> + Send> =
        Box::new(OldestFirst::new(urgent, conns));
    let mut rates = HashMap::new();
    if let Some(figures) = order.figures() {
        let pages = match order.needs_rates() {
            true => RecordPages::with_rates(queue),
            false => RecordPages::new(queue),
        };
        let accepts = |record: &ConnectionRecord| query.accepts(record);
        let ranked = Ranked::read(&requests, pages, accepts, figures, query.limit);
        let Ok(ranked) = ranked.await else {
            return gone();
        };
        rates = ranked.rates;
        queue = Box::new(ranked.conns.into_iter());
    }
    let lines = pages(queue, async move |page| {
        if left == 0 {
            return None;
        }
        let mut records =
            request_reply(&requests, |reply| ControlRequest::Connections(page, reply)).await?;
        records.retain(|record| query.accepts(record));
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

/// They are few, so one request returns all.
async fn ended_connections(
    requests: &ControlRequests,
    owners: &OwnerService,
    query: &ConnectionsQuery,
) -> Response {
    if query.order.is_some() {
        let text = "ended connections are listed latest end first, without order\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Some(mut records) = request_reply(requests, ControlRequest::Ended).await else {
        return gone();
    };
    let total = [(TOTAL_HEADER, records.len().to_string())];
    records.retain(|record| query.accepts(record));
    records.truncate(query.limit.unwrap_or(usize::MAX));
    owned::complete(owners, &mut records).await;
    (total, written(&records)).into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConnectionQuery {
    /// Whether to read an open connection twice, for its rates.
    rates: bool,
}

async fn connection(
    Shared(Sources { requests, owners }): Shared<Sources>,
    Path(cookie): Path<u64>,
    Query(query): Query<ConnectionQuery>,
) -> Response {
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
        Some(None) => {
            let text = format!(
                "no connection {cookie} is watched or among the last {REMEMBERED} that ended\n"
            );
            (StatusCode::NOT_FOUND, text).into_response()
        }
        None => gone(),
    }
}

/// Filters of the list of clients.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientsQuery {
    listener: Option<String>,
    #[serde(deserialize_with = "parsed")]
    peer: Option<Peers>,
    limit: Option<usize>,
}

impl ClientsQuery {
    fn accepts(&self, record: &ClientRecord) -> bool {
        let listener = self.listener.as_ref();
        listener.is_none_or(|name| *name == record.listener)
            && self
                .peer
                .is_none_or(|peers| peers.contains(record.figures.client))
    }
}

async fn clients(
    Shared(requests): Shared<ControlRequests>,
    Query(query): Query<ClientsQuery>,
) -> Response {
    let Some(mut records) = request_reply(&requests, ControlRequest::Clients).await else {
        return gone();
    };
    records.retain(|record| query.accepts(record));
    records.truncate(query.limit.unwrap_or(usize::MAX));
    written(&records)
}

async fn alerts(Shared(Sources { requests, owners }): Shared<Sources>) -> Response {
    let Some(storms) = request_reply(&requests, ControlRequest::Storms).await else {
        return gone();
    };
    let Some(conns) = request_reply(&requests, ControlRequest::JudgedSince).await else {
        return gone();
    };
    let storms = storms.map(|lines| joined(&lines));
    let verdicts = pages(OldestFirst::new(Vec::new(), conns), async move |page| {
        let standing =
            request_reply(&requests, |reply| ControlRequest::Alerts(page, reply)).await?;
        Some(owned::lines(&owners, standing).await)
    });
    json_lines(stream::iter([storms]).chain(verdicts))
}

/// Filters of the stream of frames.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FramesQuery {
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

async fn frames(
    Shared(requests): Shared<ControlRequests>,
    Query(query): Query<FramesQuery>,
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

async fn events(Shared(requests): Shared<ControlRequests>) -> Response {
    watch(request_reply(&requests, ControlRequest::Events).await)
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
