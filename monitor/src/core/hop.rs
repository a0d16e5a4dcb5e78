//! Middleboxes on the path and when they give a connection up.

use std::time::Duration;

/// One middlebox (load balancer, NAT, firewall) and its expiry rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The name in metrics and alerts.
    pub name: String,
    /// It forgets a connection that was idle for longer than this.
    pub idle_timeout: Duration,
    pub on_expiry: OnExpiry,
}

/// What this host's socket sees when the hop gives a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnExpiry {
    /// Nothing, ever: packets vanish.
    Silent,
    /// Nothing until the next packet, which is answered with a RST.
    RstOnNextPacket,
    Rst,
    Fin,
}

impl OnExpiry {
    /// Whether an expired connection looks alive from this host: the condition for a zombie.
    pub fn leaves_a_zombie(self) -> bool {
        matches!(self, Self::Silent | Self::RstOnNextPacket)
    }
}

/// The rules for the flows of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRules {
    /// The name in metrics and alerts.
    pub name: String,
    /// The hop that expires first; `None` when no limit is known.
    pub tightest_hop: Option<Hop>,
    /// A single ping from this host may stay unanswered for this long.
    pub ping_timeout: Duration,
}

impl ListenerRules {
    /// Patience with one unanswered ping: as Python `websockets` and uvicorn (20 s), and half more.
    pub const DEFAULT_PING_TIMEOUT: Duration = Duration::from_secs(30);

    pub fn new(name: impl Into<String>, tightest_hop: Option<Hop>) -> Self {
        Self {
            name: name.into(),
            tightest_hop,
            ping_timeout: Self::DEFAULT_PING_TIMEOUT,
        }
    }
}
