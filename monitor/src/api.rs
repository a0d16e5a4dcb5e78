//! Serves requests: metrics and health over TCP, connections over the control socket.

pub mod control;
pub mod http;
mod metrics_sockets;
