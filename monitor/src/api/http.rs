//! `/metrics`, `/healthz` and `/readyz` over TCP, and a [`super::page`] for people at `/`. No response
//! names a connection.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, VARY},
    },
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task::{self, JoinSet},
};

use super::{
    access::{self, Access},
    browser_headers, compression, metrics_sockets, negotiation,
    page::{self, PageData},
    tls_listener::{ClientLimits, Connection, TlsListener},
};
use crate::{
    config::metrics_address::MetricsAddress,
    metrics::{Exposition, ServerFigures},
};

/// A request to the daemon, which owns all state; the response goes back through the channel.
#[derive(Debug)]
pub enum MetricsRequest {
    /// All metrics.
    Metrics(oneshot::Sender<Exposition>),
    /// Whether the loop runs.
    Alive(oneshot::Sender<()>),
    /// The same, with a line for each listener on whose ports nobody listens.
    Ready(oneshot::Sender<Vec<String>>),
    /// The state for the page at `/`.
    Page(oneshot::Sender<Box<PageData>>),
}

/// The sockets, bound before anything is attached, so that a port in use is reported immediately.
#[derive(Debug)]
pub struct MetricsServer(Vec<TcpListener>);

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}")]
pub struct BindError {
    address: MetricsAddress,
    source: io::Error,
}

impl BindError {
    /// Whether another process has the address.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl MetricsServer {
    /// Binds every address, and resolves names.
    ///
    /// # Errors
    ///
    /// For the first address that cannot be bound.
    pub fn bind(addresses: &[MetricsAddress]) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for address in addresses {
            let bound = metrics_sockets::bind(address);
            listeners.extend(bound.map_err(|source| BindError {
                address: address.clone(),
                source,
            })?);
        }
        Ok(Self(listeners))
    }

    /// The addresses of its sockets.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until the process ends, on its own thread, because loading the programs and finding the
    /// older connections block the daemon's. Until then the response is 503. `has_status_page` is
    /// whether the page at `/` shows the state of the daemon, `access` who may read what is served.
    pub fn start(self, has_status_page: bool, access: Access) -> io::Result<Serving> {
        self.start_with(has_status_page, Arc::new(access), ClientLimits::default())
    }

    pub(super) fn start_with(
        self,
        has_status_page: bool,
        access: Arc<Access>,
        limits: ClientLimits,
    ) -> io::Result<Serving> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (requests, received) = mpsc::channel(16);
        let is_started = Arc::new(AtomicBool::new(false));
        let daemon = ScrapeSource {
            requests,
            is_started: is_started.clone(),
            access: access.clone(),
            last_scrape: Arc::default(),
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
        };
        let page = if has_status_page {
            get(status_page)
        } else {
            get(Html(page::links()))
        };
        let router = Router::new()
            .route("/", page)
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/docs/alerts.md", get(ALERTS))
            .route("/docs/metrics.md", get(METRICS))
            .fallback((StatusCode::NOT_FOUND, NOT_FOUND))
            .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, NOT_ALLOWED))
            .layer(middleware::from_fn(compression::add))
            .layer(middleware::from_fn_with_state(
                access.clone(),
                access::check,
            ))
            .layer(middleware::map_response(browser_headers::add))
            .with_state(daemon);
        let listeners = {
            let _context = runtime.enter();
            let adopted = self.0.into_iter().map(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            adopted.collect::<io::Result<Vec<_>>>()?
        };
        let serve = async move {
            let mut serving = JoinSet::new();
            for listener in listeners {
                let listener = TlsListener::new(listener, access.clone(), limits);
                serving.spawn(accept_all(listener, router.clone(), limits.request));
            }
            serving.join_all().await
        };
        thread::Builder::new()
            .name("http".into())
            .spawn(move || runtime.block_on(serve))?;
        Ok(Serving {
            requests: received,
            is_started,
        })
    }
}

/// Serves each connection on its own task.
async fn accept_all(mut listener: TlsListener, router: Router, request_limit: Duration) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(request_limit);
    let router = TowerToHyperService::new(router);
    loop {
        let Connection {
            stream,
            tls,
            permit,
        } = listener.accept().await;
        let router = router.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(tls.clone());
            router.call(request)
        });
        let served = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // Until the connection ends.
            let _permit = permit;
            if let Err(error) = served.await {
                log::debug!("a connection of the metrics server ended: {error}");
            }
        });
    }
}

/// A server that responds 503 until the daemon's loop takes its requests.
#[derive(Debug)]
pub struct Serving {
    requests: mpsc::Receiver<MetricsRequest>,
    is_started: Arc<AtomicBool>,
}

impl Serving {
    /// Everything is attached and older connections are known; from now on the loop responds.
    pub fn begin(self) -> mpsc::Receiver<MetricsRequest> {
        self.is_started.store(true, Ordering::Release);
        self.requests
    }
}

/// The daemon, as seen from the server.
#[derive(Clone)]
struct ScrapeSource {
    requests: mpsc::Sender<MetricsRequest>,
    is_started: Arc<AtomicBool>,
    access: Arc<Access>,
    /// How long the last exposition took.
    last_scrape: Arc<Mutex<Option<Duration>>>,
    /// Room for further scrapes.
    scrapes: Arc<Semaphore>,
}

impl ScrapeSource {
    async fn request_reply<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> MetricsRequest,
    ) -> Option<T> {
        if !self.is_started.load(Ordering::Acquire) {
            return None;
        }
        request_reply(&self.requests, request).await
    }

    fn last_scrape(&self) -> MutexGuard<'_, Option<Duration>> {
        self.last_scrape
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scrapes at the same time. With hundreds of listeners, each takes some 10 MB and a CPU for a moment.
const SCRAPES: usize = 2;

/// The pages that explain what is served, as they are in the folder of the docs.
const ALERTS: &str = include_str!("../../../docs/alerts.md");
const METRICS: &str = include_str!("../../../docs/metrics.md");

const NOT_FOUND: &str =
    "not found; there are /, /metrics, /healthz, /readyz, /docs/alerts.md and /docs/metrics.md\n";
const NOT_ALLOWED: &str = "method not allowed; use GET or HEAD\n";

async fn status_page(State(daemon): State<ScrapeSource>, RawQuery(query): RawQuery) -> Response {
    let reloads = query.as_deref() == Some(page::RELOADING);
    match daemon.request_reply(MetricsRequest::Page).await {
        Some(data) => Html(page::status(&data, reloads)).into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            Html(page::unavailable(reloads)),
        )
            .into_response(),
    }
}

async fn metrics(State(daemon): State<ScrapeSource>, headers: HeaderMap) -> Response {
    let format = negotiation::format(&headers);
    let is_compressed = negotiation::accepts_gzip(&headers);
    let Ok(permit) = daemon.scrapes.clone().acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let begin = Instant::now();
    let Some(exposition) = daemon.request_reply(MetricsRequest::Metrics).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let exposition = exposition.with_server(&ServerFigures {
        last_scrape: *daemon.last_scrape(),
        web_config_failures: daemon.access.failures(),
    });
    // With hundreds of listeners, the text has megabytes, and other requests must not wait for it.
    let encoded = task::spawn_blocking(move || {
        // Until the end, even if the client has gone.
        let _permit = permit;
        let text = exposition.encode(format)?;
        *daemon.last_scrape() = Some(begin.elapsed());
        Ok::<_, prometheus::Error>(match is_compressed {
            true => compression::gzip(text.as_bytes()),
            false => text.into(),
        })
    });
    match encoded.await {
        Ok(Ok(body)) => {
            let headers = [
                (CONTENT_TYPE, format.content_type()),
                (VARY, ACCEPT.as_str()),
            ];
            let mut response = (headers, body).into_response();
            if is_compressed {
                let gzip = HeaderValue::from_static(compression::GZIP);
                response.headers_mut().insert(CONTENT_ENCODING, gzip);
            }
            response
        }
        Ok(Err(error)) => {
            log::error!("cannot answer a scrape: {error}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        // The panic was reported.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn healthz(State(daemon): State<ScrapeSource>) -> Response {
    match daemon.request_reply(MetricsRequest::Alive).await {
        Some(()) => "ok\n".into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readyz(State(daemon): State<ScrapeSource>) -> Response {
    match daemon.request_reply(MetricsRequest::Ready).await {
        Some(details) => {
            let lines = details.into_iter().map(|detail| format!("{detail}\n"));
            format!("ready\n{}", lines.collect::<String>()).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// Sends a request to the daemon; `None` if it has ended or cannot respond.
pub(super) async fn request_reply<Q, T>(
    requests: &mpsc::Sender<Q>,
    request: impl FnOnce(oneshot::Sender<T>) -> Q,
) -> Option<T> {
    let (reply, answered) = oneshot::channel();
    requests.send(request(reply)).await.ok()?;
    answered.await.ok()
}

#[cfg(test)]
mod tests;
