//! Shared by the kernel programs and the daemon: the records they exchange, and the logic that turns
//! packets into facts.
//!
//! Everything here compiles twice, to BPF bytecode and natively, so the kernel runs the same code that unit
//! tests, property tests and fuzzers exercise.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(feature = "replay")]
extern crate alloc;

#[cfg(target_endian = "big")]
compile_error!("the packet logic reads headers from little-endian words");

mod account;
mod bounds;
pub mod connection_totals;
mod direction;
pub mod drop_reason;
pub mod early_data;
pub mod event;
pub mod flow;
pub mod frame;
pub mod handshake;
mod heartbeat;
pub mod holes;
pub mod idle_gap_scale;
pub mod listener;
pub mod message;
pub mod moment;
pub mod mptcp;
pub mod proxy_header;
pub mod published;
pub mod recognition;
#[cfg(feature = "replay")]
pub mod replay;
pub mod segment;
pub mod snapshot;
pub mod stats;
pub mod stream;
pub mod tls;
mod window;

pub use direction::Direction;
