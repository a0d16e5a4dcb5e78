//! `/metrics`, `/healthz` and `/readyz` over TCP, and a [page](super::page) for people at `/`. No response
//! names a connection.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::TEXT_FORMAT;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

use super::{
    browser_headers,
    page::{self, PageData},
};

/// A request to the daemon, which owns all state; the response goes back through the channel.
#[derive(Debug)]
pub enum MetricsRequest {
    /// The exposition text.
    Metrics(oneshot::Sender<String>),
    /// Whether the loop runs.
    Alive(oneshot::Sender<()>),
    /// The same, with a line for each listener on whose ports nobody listens.
    Ready(oneshot::Sender<Vec<String>>),
    /// The state for the page at `/`.
    Page(oneshot::Sender<Box<PageData>>),
}

/// The socket, bound before anything is attached, so that a port in use is reported immediately.
#[derive(Debug)]
pub struct MetricsServer(TcpListener);

impl MetricsServer {
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until the process ends, on its own thread, because loading the programs and finding the
    /// older connections block the daemon's. Until then the response is 503. `has_status_page` is
    /// whether the page at `/` shows the state of the daemon.
    pub fn start(self, has_status_page: bool) -> io::Result<Serving> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (requests, received) = mpsc::channel(16);
        let is_started = Arc::new(AtomicBool::new(false));
        let daemon = ScrapeSource {
            requests,
            is_started: is_started.clone(),
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
            .layer(middleware::map_response(browser_headers::add))
            .with_state(daemon);
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(self.0)?;
            axum::serve(listener, router).await
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
}

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

async fn metrics(State(daemon): State<ScrapeSource>) -> Response {
    match daemon.request_reply(MetricsRequest::Metrics).await {
        Some(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
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
mod tests {
    use super::*;

    fn request(method: &str, addr: SocketAddr, path: &str) -> ureq::http::Response<String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .build()
            .into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{addr}{path}"))
            .body(())
            .expect("a request");
        let (head, mut body) = agent.run(request).expect("an answer").into_parts();
        let text = body.read_to_string().expect("text");
        ureq::http::Response::from_parts(head, text)
    }

    /// The status and the text of a response.
    fn reply(addr: SocketAddr, path: &str) -> (u16, String) {
        let reply = request("GET", addr, path);
        (reply.status().as_u16(), reply.into_body())
    }

    fn status(addr: SocketAddr, path: &str) -> u16 {
        reply(addr, path).0
    }

    fn start(has_status_page: bool) -> (SocketAddr, Serving) {
        let server = MetricsServer::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let addr = server.local_addr().expect("an address");
        (addr, server.start(has_status_page).expect("a thread"))
    }

    /// The links of a page to others.
    fn links(page: &str) -> Vec<&str> {
        let links = page.split("<a href=\"").skip(1);
        links
            .map(|link| link.split_once('"').expect("an attribute").0)
            .collect()
    }

    #[test]
    fn every_link_of_the_page_is_served() {
        let (addr, _serving) = start(false);
        let (status, page) = reply(addr, "/");
        assert_eq!(status, 200);
        let served: Vec<_> = links(&page)
            .into_iter()
            .map(|link| (link, reply(addr, link)))
            .collect();
        let statuses: Vec<_> = served
            .iter()
            .map(|(link, (status, _))| (*link, *status))
            .collect();
        let expected = [
            ("/metrics", 503),
            ("/healthz", 503),
            ("/readyz", 503),
            ("/docs/alerts.md", 200),
            ("/docs/metrics.md", 200),
        ];
        assert_eq!(statuses, expected, "not ready, but there");
        assert!(served[3].1.1.starts_with("# Alerts"));
        let (status, hint) = reply(addr, "/nothing");
        assert_eq!(status, 404);
        for (link, _) in expected {
            assert!(hint.contains(link), "{link} is not in {hint}");
        }
    }

    #[test]
    fn the_status_page_shows_what_the_daemon_answers() {
        let (addr, serving) = start(true);
        let (status, page) = reply(addr, "/");
        assert_eq!(status, 503);
        assert!(page.contains("no state to show"), "{page}");
        let mut requests = serving.begin();
        let daemon = thread::spawn(move || {
            for _ in 0..2 {
                let Some(MetricsRequest::Page(reply)) = requests.blocking_recv() else {
                    panic!("nothing else is requested");
                };
                let data = PageData {
                    status: page::tests::record(vec![page::tests::listener("edge")]),
                    hours: vec![Vec::new()],
                };
                reply.send(Box::new(data)).expect("it waits");
            }
        });
        let (status, page) = reply(addr, "/");
        assert_eq!(status, 200);
        assert!(page.contains(">edge <small>"), "{page}");
        assert!(links(&page).contains(&"/?refresh=on"), "{page}");
        let (status, page) = reply(addr, "/?refresh=on");
        assert_eq!(status, 200);
        assert!(page.contains("http-equiv=\"refresh\""), "{page}");
        daemon.join().expect("no panic");
    }

    #[test]
    fn every_response_restricts_the_browser_and_only_reading_is_allowed() {
        let (addr, _serving) = start(false);
        for path in ["/", "/metrics", "/healthz", "/docs/alerts.md", "/nothing"] {
            let reply = request("GET", addr, path);
            let header = |name: &str| reply.headers()[name].to_str().expect("text");
            let policy = header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; style-src 'sha256-"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert_eq!(header("x-frame-options"), "DENY");
            assert_eq!(header("cache-control"), "no-store");
        }
        let head = request("HEAD", addr, "/");
        assert_eq!((head.status().as_u16(), head.body().as_str()), (200, ""));
        assert_eq!(head.headers()["content-type"], "text/html; charset=utf-8");
        let refused = request("DELETE", addr, "/");
        assert_eq!(refused.status().as_u16(), 405);
        assert_eq!(refused.headers()["allow"], "GET,HEAD");
        assert!(refused.body().contains("use GET or HEAD"));
    }

    #[test]
    fn nothing_is_ready_before_the_loop_runs_or_after_it_has_ended() {
        let (addr, serving) = start(false);
        for path in ["/readyz", "/healthz", "/metrics"] {
            assert_eq!(status(addr, path), 503, "{path} before");
        }
        let mut requests = serving.begin();
        let daemon = thread::spawn(move || {
            for _ in 0..2 {
                match requests.blocking_recv().expect("a request") {
                    MetricsRequest::Alive(reply) => reply.send(()).expect("it waits"),
                    MetricsRequest::Ready(reply) => reply.send(Vec::new()).expect("it waits"),
                    MetricsRequest::Metrics(_) | MetricsRequest::Page(_) => {
                        panic!("nobody requests them")
                    }
                }
            }
        });
        assert_eq!(status(addr, "/readyz"), 200);
        assert_eq!(status(addr, "/healthz"), 200);
        daemon.join().expect("no panic");
        assert_eq!(status(addr, "/readyz"), 503, "after");
    }
}
