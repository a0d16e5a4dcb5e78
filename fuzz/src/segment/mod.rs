//! TCP segments of both directions through the packet logic: cut, lost, late, duplicated and
//! forged.
//!
//! For every input: the same input gives the same flow, a duplicate adds nothing, the walk takes
//! time proportional to its segment, no byte is reported twice, every byte after an upgrade is
//! reported, and frames are those written however they are cut.

mod in_order;
mod network;
pub mod script;
mod sender;

use wire::{REQUEST, RESPONSE};

use network::Network;
use script::Script;

/// Texts that a script may write at the start of a connection.
pub const HTTP: [&[u8]; 6] = [
    REQUEST,
    RESPONSE,
    b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    b"HTTP/1.1 101 Switching",
];

/// Plays the [`Script`] encoded in `data`.
///
/// # Panics
/// If the packet logic breaks one of these guarantees.
pub fn check(data: &[u8]) {
    let script = Script::read(data);
    let network = Network::play(&script);
    let again = Network::play(&script);
    assert_eq!(network.connection, again.connection, "not deterministic");
    assert_eq!(network.stats, again.stats, "not deterministic");
    in_order::check(&script, &network);
}
