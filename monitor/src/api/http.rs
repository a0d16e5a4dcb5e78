//! `/metrics`, `/healthz` and `/readyz` over TCP, and a page at `/` that links them. No response names a
//! connection.

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
    extract::State,
    http::{
        StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::TEXT_FORMAT;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::metrics_sockets;
use crate::config::metrics_address::MetricsAddress;

/// A request to the daemon, which owns all state; the response goes back through the channel.
#[derive(Debug)]
pub enum MetricsRequest {
    /// The exposition text.
    Metrics(oneshot::Sender<String>),
    /// Whether the loop runs.
    Alive(oneshot::Sender<()>),
    /// The same, with a line for each listener on whose ports nobody listens.
    Ready(oneshot::Sender<Vec<String>>),
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
    /// older connections block the daemon's. Until then the response is 503.
    pub fn start(self) -> io::Result<Serving> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (requests, received) = mpsc::channel(16);
        let is_started = Arc::new(AtomicBool::new(false));
        let daemon = ScrapeSource {
            requests,
            is_started: is_started.clone(),
        };
        let router = Router::new()
            .route("/", get(landing_page))
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
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
                serving.spawn(axum::serve(listener, router.clone()).into_future());
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

/// For a person who opens the address in a browser. It needs nothing from elsewhere and no script, and its
/// policy lets none in.
async fn landing_page() -> impl IntoResponse {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    const PAGE: &str = concat!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>wsmon</title>\n",
        "<style>:root { color-scheme: light dark; font-family: sans-serif }</style>\n</head>\n<body>\n",
        "<main>\n<h1>wsmon ",
        env!("CARGO_PKG_VERSION"),
        "</h1>\n<p>Watches the WebSocket connections of this host.</p>\n<ul>\n",
        "<li><a href=\"/metrics\">Metrics</a> for Prometheus</li>\n",
        "<li><a href=\"/healthz\">Health</a>: whether the daemon responds</li>\n",
        "<li><a href=\"/readyz\">Readiness</a>: also which ports nobody listens on</li>\n",
        "</ul>\n</main>\n</body>\n</html>\n"
    );
    ([(CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
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

    /// The status and the text of a response.
    fn reply(addr: SocketAddr, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .build()
            .into();
        let reply = agent.get(format!("http://{addr}{path}")).call();
        let mut reply = reply.expect("an answer");
        let text = reply.body_mut().read_to_string().expect("text");
        (reply.status().as_u16(), text)
    }

    fn status(addr: SocketAddr, path: &str) -> u16 {
        reply(addr, path).0
    }

    /// A server on a free port, and its address.
    fn bound() -> (MetricsServer, SocketAddr) {
        let addresses = ["127.0.0.1:0".parse().expect("an address")];
        let server = MetricsServer::bind(&addresses).expect("a port");
        let bound = server.local_addrs().expect("addresses");
        (server, bound[0])
    }

    #[test]
    fn every_address_is_served() {
        let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|text| text.parse().expect(text));
        let server = MetricsServer::bind(&addresses).expect("ports");
        let bound = server.local_addrs().expect("addresses");
        let _serving = server.start().expect("a thread");
        for addr in bound {
            assert_eq!(status(addr, "/"), 200, "{addr}");
        }
        let none = MetricsServer::bind(&[MetricsAddress::None]).expect("nothing to bind");
        assert_eq!(none.local_addrs().expect("none"), []);
    }

    #[test]
    fn every_link_of_the_landing_page_is_served() {
        let (server, addr) = bound();
        let _serving = server.start().expect("a thread");
        let (status, page) = reply(addr, "/");
        assert_eq!(status, 200);
        let links: Vec<_> = page.split("href=\"").skip(1).collect();
        assert_eq!(links.len(), 3, "{page}");
        for link in links {
            let (link, _) = link.split_once('"').expect("an attribute");
            assert_eq!(reply(addr, link).0, 503, "{link}: not ready, but there");
        }
        assert_eq!(reply(addr, "/nothing").0, 404);
    }

    #[test]
    fn nothing_is_ready_before_the_loop_runs_or_after_it_has_ended() {
        let (server, addr) = bound();
        let serving = server.start().expect("a thread");
        for path in ["/readyz", "/healthz", "/metrics"] {
            assert_eq!(status(addr, path), 503, "{path} before");
        }
        let mut requests = serving.begin();
        let daemon = thread::spawn(move || {
            for _ in 0..2 {
                match requests.blocking_recv().expect("a request") {
                    MetricsRequest::Alive(reply) => reply.send(()).expect("it waits"),
                    MetricsRequest::Ready(reply) => reply.send(Vec::new()).expect("it waits"),
                    MetricsRequest::Metrics(_) => panic!("nobody requests them"),
                }
            }
        });
        assert_eq!(status(addr, "/readyz"), 200);
        assert_eq!(status(addr, "/healthz"), 200);
        daemon.join().expect("no panic");
        assert_eq!(status(addr, "/readyz"), 503, "after");
    }
}
