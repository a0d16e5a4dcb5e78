//! The input of the storm engine.

use std::{net::IpAddr, time::Duration};

use crate::{event::CloseHow, facts::Direction, time::Ktime};

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Accepted,
    /// With this HTTP status, if it could be read.
    Refused(Option<u16>),
    /// The connection ended without a response.
    Unanswered,
}

/// An open connection of the listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    pub at: Ktime,
    /// The peer's address, or that of the client behind a proxy if known.
    pub client: IpAddr,
    /// The other end of the TCP connection.
    pub peer: IpAddr,
    pub how: CloseHow,
    /// The side that began the end; [`Direction::Tx`] is this host.
    pub by: Option<Direction>,
    /// The idle time before the end.
    pub idle: Duration,
    pub age: Option<Duration>,
    /// Bytes were outstanding.
    pub unacked: bool,
}
