//! What the core reports: notices, alerts and verdict kinds.

mod message;

use std::time::Duration;

use super::{
    background::Background,
    event::CloseHow,
    facts::{Facts, ListenerId},
    observation::Observation,
    storm::StormFinding,
    time::Ktime,
    verdict::Verdict,
};
use message::{why_firing, why_resolved};

/// Something to report to the alert log and to every other sink.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Connection(Box<Alert>),
    Listener(Box<ListenerAlert>),
    Group(Box<AlertGroup>),
    Storm(Box<StormAlert>),
}

impl Notice {
    pub fn listener(&self) -> ListenerId {
        match self {
            Self::Connection(alert) => alert.listener,
            Self::Listener(alert) => alert.listener,
            Self::Group(group) => group.listener,
            Self::Storm(alert) => alert.listener,
        }
    }

    /// The moment it is about; for a group, the moment of its last alert.
    pub fn at(&self) -> Ktime {
        match self {
            Self::Connection(alert) => alert.at,
            Self::Listener(alert) => alert.at,
            Self::Group(group) => group.at,
            Self::Storm(alert) => alert.at(),
        }
    }
}

/// A verdict on one connection that begins, changes its certainty, or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub status: Status,
    pub kind: VerdictKind,
    pub certainty: Certainty,
    pub listener: ListenerId,
    /// The hop whose limit was crossed or is near, or else the tightest one of the path.
    pub hop: Option<String>,
    /// The moment the verdict was reached or left.
    pub at: Ktime,
    /// The moment from which it was true: the limit crossed, the first byte unanswered.
    pub since: Ktime,
    /// The limit that was crossed: the hop's idle timeout, or the waiting time of the rule.
    pub limit: Duration,
    /// The evidence.
    pub facts: Box<Facts>,
    /// Details collected when it was reported; the core does not evaluate them.
    pub background: Option<Box<Background>>,
    /// One human-readable sentence.
    pub reason: String,
}

/// Many similar alerts on connections of one listener at nearly the same time. Made by
/// [`Grouping`](super::Grouping).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertGroup {
    pub status: Status,
    pub kind: VerdictKind,
    pub certainty: Certainty,
    pub listener: ListenerId,
    /// `None` if they differ in it.
    pub hop: Option<String>,
    /// The moment of the last alert.
    pub at: Ktime,
    /// A connection counts once for each of its alerts.
    pub count: u64,
    /// The first of them, at most [`AlertGroup::EXAMPLES`].
    pub examples: Vec<Alert>,
}

impl AlertGroup {
    pub const EXAMPLES: usize = 10;
}

/// A problem of all connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAlert {
    pub firing: bool,
    pub listener: ListenerId,
    /// The hop in question; `None` if none is configured.
    pub hop: Option<String>,
    pub at: Ktime,
    pub finding: ListenerFinding,
    /// One human-readable sentence.
    pub reason: String,
}

/// What the idle gaps of a listener's connections show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerFinding {
    /// Heartbeats come so late that one will eventually miss the hop's timeout.
    AtRisk {
        /// The 99th percentile of the idle gaps.
        gap: Duration,
        /// The hop's idle timeout.
        limit: Duration,
    },
    /// The configured timeout is not the real one.
    LimitMismatch {
        /// The tightest configured timeout.
        limit: Option<Duration>,
        /// The longest idle gap that connections survive.
        survived: Option<Duration>,
        /// The shortest idle gap that kills connections.
        killed: Option<Duration>,
    },
    /// Connections end at one age, but no hop is configured with that lifetime.
    LifetimeMismatch {
        /// The shortest configured lifetime.
        limit: Option<Duration>,
        /// The age at which they end.
        age: Duration,
        /// How many connections ended at that age.
        deaths: usize,
    },
}

impl ListenerFinding {
    /// The name of its alert in logs.
    pub fn alert(&self) -> &'static str {
        match self {
            Self::AtRisk { .. } => "at_risk",
            Self::LimitMismatch { .. } | Self::LifetimeMismatch { .. } => "limit_mismatch",
        }
    }

    /// The name that distinguishes it from other findings on the same listener.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AtRisk { .. } | Self::LimitMismatch { .. } => self.alert(),
            Self::LifetimeMismatch { .. } => "lifetime_mismatch",
        }
    }
}

/// A finding of the storm engine on a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct StormAlert {
    pub listener: ListenerId,
    pub finding: StormFinding,
}

impl StormAlert {
    /// The name of its alert in logs.
    pub fn alert(&self) -> &'static str {
        match self.finding {
            StormFinding::Reconnect(_) => "reconnect_storm",
            StormFinding::Thrash(_) => "thrash",
        }
    }

    pub fn is_firing(&self) -> bool {
        match &self.finding {
            StormFinding::Reconnect(storm) => storm.firing,
            StormFinding::Thrash(thrash) => thrash.firing,
        }
    }

    pub fn at(&self) -> Ktime {
        match &self.finding {
            StormFinding::Reconnect(storm) => storm.at,
            StormFinding::Thrash(thrash) => thrash.at,
        }
    }

    /// The moment from which it was true.
    pub fn since(&self) -> Ktime {
        match &self.finding {
            StormFinding::Reconnect(storm) => storm.since,
            StormFinding::Thrash(thrash) => thrash.since,
        }
    }

    /// One human-readable sentence.
    pub fn reason(&self) -> &str {
        match &self.finding {
            StormFinding::Reconnect(storm) => &storm.reason,
            StormFinding::Thrash(thrash) => &thrash.reason,
        }
    }
}

impl Alert {
    /// A verdict begins or becomes more certain; `silence` is the idle time that led to it.
    pub(super) fn firing(
        listener: ListenerId,
        at: Ktime,
        verdict: &Verdict,
        observation: &Observation<'_>,
        silence: Duration,
    ) -> Self {
        Self {
            status: Status::Firing,
            kind: verdict.kind,
            certainty: verdict.certainty,
            listener,
            hop: observation.hop(verdict).map(|hop| hop.name.clone()),
            at,
            since: verdict.since,
            limit: verdict.limit,
            facts: Box::new(observation.evidence()),
            background: None,
            reason: why_firing(verdict, observation, silence),
        }
    }

    pub(super) fn resolved(
        listener: ListenerId,
        hop: Option<String>,
        at: Ktime,
        verdict: &Verdict,
        ending: Ending,
        facts: Box<Facts>,
    ) -> Self {
        Self {
            status: Status::Resolved(ending.resolution()),
            kind: verdict.kind,
            certainty: verdict.certainty,
            listener,
            hop,
            at,
            since: verdict.since,
            limit: verdict.limit,
            facts,
            background: None,
            reason: why_resolved(verdict, ending, at),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Firing,
    Resolved(AlertResolution),
}

/// How a verdict ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertResolution {
    /// The peer was heard again: it was not a zombie, or no longer is one.
    Recovered,
    /// It was a warning that a zombie verdict replaced.
    Superseded,
    /// wsmon aborted it.
    Reaped,
    /// The socket is gone.
    Closed(CloseHow),
}

impl AlertResolution {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Superseded => "superseded",
            Self::Reaped => "reaped",
            Self::Closed(how) => how.as_str(),
        }
    }
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    /// Idle past the limit of a hop that drops connections silently.
    Expired,
    /// Data goes out, nothing is acknowledged.
    BlackHoled,
    /// TCP acknowledges, but the WebSocket peer does not answer pings.
    Unresponsive,
    /// One side has sent its FIN, the other keeps the connection open.
    HalfClosed,
    /// This host's application does not read received data.
    Stalled,
    /// Close to the limit of a hop that closes connections: expect a disconnect, not a zombie.
    Expiring,
    /// The peer has sent no message for a long time.
    Quiet,
}

impl VerdictKind {
    pub const ALL: [Self; 7] = [
        Self::Expired,
        Self::BlackHoled,
        Self::Unresponsive,
        Self::HalfClosed,
        Self::Stalled,
        Self::Expiring,
        Self::Quiet,
    ];

    /// True if the connection is dead but looks open.
    pub fn is_zombie(self) -> bool {
        !matches!(self, Self::Expiring | Self::Quiet)
    }

    /// True if the path or the peer is dead, so that the preceding idle gap is evidence about hops.
    pub fn is_death(self) -> bool {
        matches!(self, Self::Expired | Self::BlackHoled | Self::Unresponsive)
    }

    /// True if it is about the path or the peer. On an MPTCP subflow it then does not affect the
    /// connection, which has other paths.
    pub fn is_about_path_or_peer(self) -> bool {
        self != Self::Stalled
    }

    /// The kinds that satisfy [`VerdictKind::is_zombie`].
    pub fn zombies() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_zombie())
    }

    /// The name of its alert in logs: `zombie`, or the kind itself.
    pub fn alert(self) -> &'static str {
        if self.is_zombie() {
            "zombie"
        } else {
            self.as_str()
        }
    }

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::BlackHoled => "black_holed",
            Self::Unresponsive => "unresponsive",
            Self::HalfClosed => "half_closed",
            Self::Stalled => "stalled",
            Self::Expiring => "expiring",
            Self::Quiet => "quiet",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    Suspected,
    Confirmed,
}

impl Certainty {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Confirmed => "confirmed",
        }
    }
}

/// What ends a verdict, in more detail than [`AlertResolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Recovered,
    /// A graver verdict replaces it.
    Superseded,
    /// The socket is gone because wsmon aborted it.
    Reaped,
    /// The flow turned out not to be a WebSocket.
    Dismissed,
    Closed(CloseHow),
    /// The socket is gone; its end was missed.
    Gone,
}

impl Ending {
    fn resolution(self) -> AlertResolution {
        match self {
            Self::Recovered | Self::Dismissed => AlertResolution::Recovered,
            Self::Superseded => AlertResolution::Superseded,
            Self::Reaped => AlertResolution::Reaped,
            Self::Closed(how) => AlertResolution::Closed(how),
            Self::Gone => AlertResolution::Closed(CloseHow::Unknown),
        }
    }
}
