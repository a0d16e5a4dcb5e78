//! A network on one machine in which WebSocket connections really die.
//!
//! ```text
//!   client namespace            lb namespace              server namespace
//!   10.77.1.11 ... .42  <---->  10.77.1.1 | 10.77.2.1  <---->  10.77.2.10
//!   fd77:1::11 ... ::42         nftables + conntrack           fd77:2::10
//! ```
//!
//! Nothing is simulated: the load balancer is the kernel's connection tracking, the peers speak
//! WebSocket over kernel sockets, and [`Daemon`] is the real binary. Everything is RAII: dropping a
//! value stops what it started, and dropping the [`Lab`] removes its namespaces.

mod client;
mod client_side;
mod command;
mod connection;
mod daemon;
mod error;
mod exchange;
mod folder;
mod http;
mod interrupt;
mod listening;
mod load_balancer;
mod metrics;
mod namespace;
mod network;
mod pair;
mod process;
mod proxy;
mod script;
mod server;
mod stall;
mod wait;
mod workspace;
mod wss;

pub use client::{Client, Manner};
pub use command::find_program;
pub use connection::{ConnectionView, FrameCounts, Opcode};
pub use daemon::{Alert, Daemon};
pub use error::LabError;
pub use exchange::{Exchange, Turn};
pub use http::HttpClient;
pub use interrupt::{EXIT_INTERRUPTED, Interrupt};
pub use listening::{defer_accept, fresh_port};
pub use load_balancer::DroppedPackets;
pub use metrics::{Metrics, Series};
pub use monitor_common::Direction;
pub use namespace::Namespace;
pub use network::{CLIENT_ADDRESSES, Lab, raise_open_files_limit};
pub use pair::Pair;
pub use process::Process;
pub use proxy::Proxy;
pub use script::Script;
pub use server::{Counts, Server};
pub use stall::rerun_after_stalls;
pub use tokio_tungstenite::tungstenite::Message;
pub use wait::{wait_for, wait_until};
pub use workspace::{build_example, build_wsmon, node_modules, workspace};
pub use wss::{Certificate, TlsCipher, Traffic, WssClients, WssConnection, WssServer, WssStack};
