//! Serves requests: metrics and health over TCP with a page for people, connections over the control
//! socket.

mod browser_headers;
pub mod control;
pub mod http;
mod metrics_sockets;
pub mod page;
