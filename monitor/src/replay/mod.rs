//! `wsmon replay`: the stream code and the core of the daemon over a recording of packets.
//!
//! ```text
//! capture ──► headers ──► engine (connections, clock) ──► core ──► records
//! ```
//!
//! The engine is the native twin of the kernel programs: one
//! [`Connection`](monitor_common::replay::Connection) per connection, seen from the watched socket. The
//! packets are the only clock; no privileges, no unsafe.
#![forbid(unsafe_code)]

use std::io::Read;

mod capture;
mod connection;
mod dedup;
mod early_data;
mod engine;
mod headers;
mod layers;
mod ports;
mod report;
mod unpack;
mod upgrade;

pub use capture::{Capture, CaptureError, Packet};
pub use engine::Replay;
pub use ports::websocket_ports;
pub use report::ReplayRecord;
pub use unpack::unpacked;

/// Plays a recording to its end, or to an error, which is returned; everything before it is still
/// reported. Stops early only if `show` fails.
pub fn play<R: Read, E>(
    capture: &mut Capture<R>,
    replay: &mut Replay,
    mut show: impl FnMut(&Replay, ReplayRecord) -> Result<(), E>,
) -> Result<Option<CaptureError>, E> {
    let end = loop {
        match capture.next_packet() {
            Ok(Some(packet)) => replay.packet(&packet),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        while let Some(record) = replay.poll_record() {
            show(replay, record)?;
        }
    };
    replay.finish();
    while let Some(record) = replay.poll_record() {
        show(replay, record)?;
    }
    Ok(end)
}
