//! What the core says to people.

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

/// Something to be reported: to the alert log and to every other sink.
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

    /// The moment it is about; of a group, that of the last alert in it.
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
    /// The limit that was crossed: the hop's idle timeout, or the patience of the rule.
    pub limit: Duration,
    /// The evidence.
    pub facts: Box<Facts>,
    /// What else was found out when it was reported; the core knows nothing of it.
    pub background: Option<Box<Background>>,
    /// One sentence for a person.
    pub reason: String,
}

/// Many alerts that say the same of connections of one listener at nearly the same time. Made by
/// [`Grouping`](super::Grouping).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertGroup {
    pub status: Status,
    pub kind: VerdictKind,
    pub certainty: Certainty,
    pub listener: ListenerId,
    /// `None` where they have not all the same.
    pub hop: Option<String>,
    /// The last of them.
    pub at: Ktime,
    /// A connection counts once for each of its alerts.
    pub count: u64,
    /// The first of them, at most [`AlertGroup::EXAMPLES`].
    pub examples: Vec<Alert>,
}

impl AlertGroup {
    pub const EXAMPLES: usize = 10;
}

/// Something that is wrong with all connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAlert {
    pub firing: bool,
    pub listener: ListenerId,
    /// The hop in question; `None` where none is configured.
    pub hop: Option<String>,
    pub at: Ktime,
    pub finding: ListenerFinding,
    /// One sentence for a person.
    pub reason: String,
}

/// What the silences of a listener's connections show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerFinding {
    /// Heartbeats come so late that one will lose the race against the hop's timeout.
    AtRisk {
        /// The 99th percentile of the silences.
        gap: Duration,
        /// The hop's idle timeout.
        limit: Duration,
    },
    /// The configured timeout is not the real one.
    LimitMismatch {
        /// The tightest configured timeout.
        limit: Option<Duration>,
        /// The longest silence that connections survive.
        survived: Option<Duration>,
        /// The shortest silence that kills.
        killed: Option<Duration>,
    },
    /// Connections end at one age, and no hop is configured to do so.
    LifetimeMismatch {
        /// The shortest configured lifetime.
        limit: Option<Duration>,
        /// At which they end.
        age: Duration,
        /// How many did so.
        deaths: usize,
    },
}

impl ListenerFinding {
    /// What an alert about it is called in logs.
    pub fn alert(&self) -> &'static str {
        match self {
            Self::AtRisk { .. } => "at_risk",
            Self::LimitMismatch { .. } | Self::LifetimeMismatch { .. } => "limit_mismatch",
        }
    }

    /// What tells it from the others on the same listener.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AtRisk { .. } | Self::LimitMismatch { .. } => self.alert(),
            Self::LifetimeMismatch { .. } => "lifetime_mismatch",
        }
    }
}

/// What the storm engine says of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct StormAlert {
    pub listener: ListenerId,
    pub finding: StormFinding,
}

impl StormAlert {
    /// What an alert about it is called in logs.
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

    /// One sentence for a person.
    pub fn reason(&self) -> &str {
        match &self.finding {
            StormFinding::Reconnect(storm) => &storm.reason,
            StormFinding::Thrash(thrash) => &thrash.reason,
        }
    }
}

impl Alert {
    /// A verdict begins or becomes more certain; `silence` is what led to it.
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
    /// The peer was heard again: it was no zombie, or is none any more.
    Recovered,
    /// It was a warning, and a zombie took its place.
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
    /// Idle past the limit of a hop that says nothing.
    Expired,
    /// Data goes out, nothing is acknowledged.
    BlackHoled,
    /// TCP acknowledges, the WebSocket peer does not pong.
    Unresponsive,
    /// One side has sent its FIN, the other keeps the connection open.
    HalfClosed,
    /// This host's application does not read what arrives.
    Stalled,
    /// Close to the limit of a hop that closes what it gives up: a disconnect, not a zombie.
    Expiring,
    /// The peer has sent no message for long.
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

    /// Whether it says that the connection is dead and looks open.
    pub fn is_zombie(self) -> bool {
        !matches!(self, Self::Expiring | Self::Quiet)
    }

    /// Whether the path or the peer is dead, so that the silence before it says something about hops.
    pub fn is_death(self) -> bool {
        matches!(self, Self::Expired | Self::BlackHoled | Self::Unresponsive)
    }

    /// Whether it is about the path or the peer. Of a subflow of MPTCP it then says nothing about the connection, which
    /// has other paths.
    pub fn is_about_path_or_peer(self) -> bool {
        self != Self::Stalled
    }

    /// The kinds for which [`VerdictKind::is_zombie`] holds.
    pub fn zombies() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_zombie())
    }

    /// What an alert about it is called in logs: `zombie`, or the kind itself.
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

/// What ends a verdict, in more detail than a [`AlertResolution`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Recovered,
    /// A graver verdict takes its place.
    Superseded,
    /// The socket is gone because wsmon aborted it.
    Reaped,
    /// It was no WebSocket.
    Dismissed,
    Closed(CloseHow),
    /// The socket is gone, its end was missed.
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
