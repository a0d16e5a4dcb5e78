//! Serves requests: metrics and health over TCP with a page for people, connections over the control
//! socket.

pub mod access;
mod browser_headers;
mod compression;
pub mod control;
pub mod http;
mod metrics_sockets;
mod negotiation;
pub mod page;
mod tls_listener;
