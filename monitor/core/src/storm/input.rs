//! The input of the engine.

use std::{net::IpAddr, time::Duration};

use crate::{event::CloseHow, facts::Direction, time::Ktime};

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Accepted,
    /// With this HTTP status, if it could be read.
    Refused(Option<u16>),
    /// The connection ended without an answer.
    Unanswered,
}

/// A connection of the listener that was open is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    pub at: Ktime,
    /// The peer's address, or that of the client behind a proxy where it is known.
    pub client: IpAddr,
    /// The other end of the TCP connection.
    pub peer: IpAddr,
    pub how: CloseHow,
    /// Who began the end: [`Direction::Tx`] is this host.
    pub by: Option<Direction>,
    /// The silence before the end.
    pub idle: Duration,
    pub age: Option<Duration>,
    /// Bytes were outstanding.
    pub unacked: bool,
}
