//! The findings of the storm engine.

use std::{net::IpAddr, time::Duration};

use strum::{IntoStaticStr, VariantArray};

use crate::time::Ktime;

/// Clients lost their connections at once, or come back all at once. It is true since the closes
/// began, or the arrivals if no closes were seen before them.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconnectStorm {
    pub phase: StormPhase,
    pub pattern: Pattern,
    /// Lockstep: the interval between the attempts of a client. Backoff: the first delay.
    pub period: Option<Duration>,
    /// Attempts in the last second.
    pub rate: f64,
    /// The most attempts in any second since it began.
    pub peak_rate: f64,
    /// The usual number of attempts per second.
    pub baseline_rate: f64,
    /// Since it began.
    pub attempts: u64,
    /// Attempts that became connections.
    pub successes: u64,
    /// `None` before the first success.
    pub attempts_per_success: Option<f64>,
    /// Failed attempts by HTTP status, most frequent first; `None` is a response without a status,
    /// or no response. At most [`ReconnectStorm::STATUSES`]; the rest is under `None`.
    pub refused: Vec<(Option<u16>, u64)>,
    /// The share of the attempts whose client had lost a connection, or had been refused, shortly
    /// before. `None` before the first attempt.
    pub returning_share: Option<f64>,
    /// Connections lost at once before it.
    pub closes: u64,
    pub cause: Option<Cause>,
    /// The heaviest clients, at most [`ReconnectStorm::EXAMPLES`].
    pub examples: Vec<ClientRow>,
}

impl ReconnectStorm {
    pub const EXAMPLES: usize = 10;
    pub const STATUSES: usize = 16;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum StormPhase {
    /// Many connections were lost at once; their clients are not back yet.
    MassClose,
    Storm,
    Over,
}

impl StormPhase {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How the clients space their attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Pattern {
    /// A fixed interval, without jitter.
    Lockstep,
    /// Delays that grow by a constant factor, without jitter.
    Backoff,
    /// Randomly spread delays.
    Jittered,
    Unknown,
}

impl Pattern {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why many connections were lost at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// The listening socket closed with them: the process on this host ended.
    ServerRestart,
    /// The other end closed them after this idle time.
    IdleTimeout(Duration),
    /// They were closed at this age.
    Lifetime(Duration),
    /// TCP gave up, or had bytes outstanding.
    PeerNetwork,
    /// The other end closed them, and nearly all came from this one address.
    ProxyDeploy(IpAddr),
}

impl Cause {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Clients connect repeatedly, and stay only for seconds. It is over when none has done so for a
/// minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Thrash {
    /// The number of clients that thrash now, among those with a [`ClientRow`].
    pub clients: u64,
    /// The heaviest of them, at most [`Thrash::EXAMPLES`].
    pub examples: Vec<ClientRow>,
}

impl Thrash {
    pub const EXAMPLES: usize = 10;
}

/// What is known about one client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRow {
    pub client: IpAddr,
    /// Attempts since it was first counted: never too few, and at most [`ClientRow::at_most_over`]
    /// too many.
    pub attempts: u64,
    /// The count that may be left from the previous clients of the row.
    pub at_most_over: u64,
    /// Among the attempts that were counted with certainty.
    pub accepted: u64,
    pub refused: u64,
    /// Connections that lived for less than 5 s.
    pub short_lived: u64,
    /// In the minute that ended with its last attempt.
    pub attempts_per_minute: f64,
    /// The interval, if its latest attempts are regular and the address belongs to one client.
    pub interval: Option<Duration>,
    /// Open connections.
    pub open: u64,
    /// The largest number open at once since it was first counted.
    pub most_open: u64,
    pub last: Ktime,
}

impl ClientRow {
    /// True if it has more connections at once than a single client, as a proxy, NAT or load
    /// balancer has.
    pub fn is_shared(&self) -> bool {
        self.most_open >= Self::SHARED
    }

    /// Browsers and mobile applications hold a few connections to one server.
    pub const SHARED: u64 = 20;
}
