//! `/metrics`, `/healthz` and `/readyz` over TCP. Nothing here names a connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::TEXT_FORMAT;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

/// Where metrics are served unless another address is given. The port stands for RFC 6455.
pub const DEFAULT_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6455);

/// A question to the daemon, which owns all state; the answer goes back through the channel.
#[derive(Debug)]
pub enum Question {
    /// The exposition text.
    Metrics(oneshot::Sender<String>),
    /// Whether everything is attached and older connections are known.
    Ready(oneshot::Sender<bool>),
}

/// The socket, bound before anything is attached, so that a taken port is told at once.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(addr).await.map(Self)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until the process ends.
    pub async fn serve(self, questions: mpsc::Sender<Question>) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(questions);
        axum::serve(self.0, router).await
    }
}

async fn metrics(State(questions): State<mpsc::Sender<Question>>) -> Response {
    match ask(&questions, Question::Metrics).await {
        Some(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The daemon's loop turns: it answers, ready or not.
async fn healthz(State(questions): State<mpsc::Sender<Question>>) -> Response {
    match ask(&questions, Question::Ready).await {
        Some(_) => "ok\n".into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn readyz(State(questions): State<mpsc::Sender<Question>>) -> Response {
    match ask(&questions, Question::Ready).await {
        Some(true) => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

/// Asks the daemon; `None` when it has ended, or cannot answer.
pub(super) async fn ask<Q, T>(
    questions: &mpsc::Sender<Q>,
    question: impl FnOnce(oneshot::Sender<T>) -> Q,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    questions.send(question(answer)).await.ok()?;
    answered.await.ok()
}
