//! What the core reports: alerts, each with its subject.

use std::time::Duration;

use super::{
    background::Background,
    event::CloseHow,
    facts::{Facts, ListenerId},
    message::{why_firing, why_resolved},
    observation::Observation,
    storm::{ReconnectStorm, Thrash},
    time::Ktime,
    verdict::{Certainty, Ending, Verdict, VerdictKind},
};

/// Something that begins, changes or ends, to be reported to every sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert<S = Subject> {
    pub status: Status,
    pub listener: ListenerId,
    /// The hop in question. For a connection, the one whose limit was crossed or is near, or else the
    /// tightest one of the path; for a group, `None` if its alerts differ in it.
    pub hop: Option<String>,
    /// The moment it began, changed or ended; for a group, the moment of its last alert.
    pub at: Ktime,
    /// When it became true, such as the moment when the limit was crossed.
    pub since: Ktime,
    /// One human-readable sentence.
    pub reason: String,
    pub subject: S,
}

/// An alert on one connection.
pub type ConnectionAlert = Alert<Box<ConnectionVerdict>>;

/// What an alert is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// One connection.
    Connection(Box<ConnectionVerdict>),
    /// Many connections of one listener at nearly the same time.
    Group(AlertGroup),
    /// All connections of a listener.
    Listener(ListenerFinding),
    /// The clients of a listener, which lost their connections or come back all at once.
    Storm(Box<ReconnectStorm>),
    /// The clients of a listener that connect repeatedly and stay only for seconds.
    Thrash(Thrash),
}

/// A verdict on one connection that begins, changes its certainty, or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionVerdict {
    pub kind: VerdictKind,
    pub certainty: Certainty,
    /// The limit that was crossed: the hop's idle timeout, or the waiting time of the rule.
    pub limit: Duration,
    /// The evidence.
    pub facts: Facts,
    /// Its send queue at the last scan of the sockets, bytes; `None` if that found none.
    pub send_queue: Option<u32>,
    /// Details collected when it was reported; the core does not evaluate them.
    pub background: Option<Box<Background>>,
}

/// Similar alerts on connections. Made by [`Grouping`](super::Grouping).
#[derive(Clone, Debug, PartialEq)]
pub struct AlertGroup {
    pub kind: VerdictKind,
    pub certainty: Certainty,
    /// A connection counts once for each of its alerts.
    pub count: u64,
    /// The first of them, at most [`AlertGroup::EXAMPLES`].
    pub examples: Vec<ConnectionAlert>,
}

impl AlertGroup {
    pub const EXAMPLES: usize = 10;
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

impl<S> Alert<S> {
    pub fn is_firing(&self) -> bool {
        self.status == Status::Firing
    }

    /// The alert with its subject in another form.
    pub(super) fn map<T>(self, form: impl FnOnce(S) -> T) -> Alert<T> {
        Alert {
            status: self.status,
            listener: self.listener,
            hop: self.hop,
            at: self.at,
            since: self.since,
            reason: self.reason,
            subject: form(self.subject),
        }
    }
}

impl Alert {
    /// How a verdict ended; `None` for other subjects, which end only by no longer applying.
    pub fn resolution(&self) -> Option<AlertResolution> {
        match self.status {
            Status::Resolved(resolution) if self.subject.verdict().is_some() => Some(resolution),
            _ => None,
        }
    }

    /// The alert as one on a connection, or unchanged if it has another subject.
    pub fn into_connection(self) -> Result<ConnectionAlert, Self> {
        match self.subject {
            Subject::Connection(subject) => Ok(Alert {
                status: self.status,
                listener: self.listener,
                hop: self.hop,
                at: self.at,
                since: self.since,
                reason: self.reason,
                subject,
            }),
            _ => Err(self),
        }
    }
}

impl From<ConnectionAlert> for Alert {
    fn from(alert: ConnectionAlert) -> Self {
        alert.map(Subject::Connection)
    }
}

impl Subject {
    /// The name of the alert in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Listener(ListenerFinding::LifetimeMismatch { .. }) => "limit_mismatch",
            _ if self.verdict().is_some_and(|(kind, _)| kind.is_zombie()) => "zombie",
            _ => self.kind(),
        }
    }

    /// The name that distinguishes it from other subjects on the same listener.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connection(verdict) => verdict.kind.as_str(),
            Self::Group(group) => group.kind.as_str(),
            Self::Listener(ListenerFinding::AtRisk { .. }) => "at_risk",
            Self::Listener(ListenerFinding::LimitMismatch { .. }) => "limit_mismatch",
            Self::Listener(ListenerFinding::LifetimeMismatch { .. }) => "lifetime_mismatch",
            Self::Storm(_) => "reconnect_storm",
            Self::Thrash(_) => "thrash",
        }
    }

    /// What is wrong with the connection or the group of connections, if it is about any.
    pub fn verdict(&self) -> Option<(VerdictKind, Certainty)> {
        match self {
            Self::Connection(verdict) => Some((verdict.kind, verdict.certainty)),
            Self::Group(group) => Some((group.kind, group.certainty)),
            Self::Listener(_) | Self::Storm(_) | Self::Thrash(_) => None,
        }
    }
}

impl ConnectionAlert {
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
            listener,
            hop: observation.hop(verdict).map(|hop| hop.name.clone()),
            at,
            since: verdict.since,
            reason: why_firing(verdict, observation, silence),
            subject: Box::new(ConnectionVerdict {
                kind: verdict.kind,
                certainty: verdict.certainty,
                limit: verdict.limit,
                facts: observation.evidence(),
                send_queue: observation.unsent.map(|unsent| unsent.bytes),
                background: None,
            }),
        }
    }

    /// The end of the verdict. `last` are the newest facts, if the kernel reported any.
    pub(super) fn resolved(
        self,
        at: Ktime,
        verdict: &Verdict,
        ending: Ending,
        last: Option<&Facts>,
    ) -> Self {
        let mut subject = self.subject;
        if let Some(facts) = last {
            subject.facts.clone_from(facts);
        }
        Self {
            status: Status::Resolved(ending.into()),
            at,
            reason: why_resolved(verdict, ending, at),
            subject,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Firing,
    Resolved(AlertResolution),
}

impl Status {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved(_) => "resolved",
        }
    }
}

/// How an alert ended. All but [`AlertResolution::Recovered`] are of verdicts on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertResolution {
    /// It is no longer so: the peer was heard again, or a finding on the listener no longer holds.
    Recovered,
    /// A graver verdict replaced it.
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

impl From<Ending> for AlertResolution {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Recovered | Ending::Dismissed => Self::Recovered,
            Ending::Superseded => Self::Superseded,
            Ending::Reaped => Self::Reaped,
            Ending::Closed(how) => Self::Closed(how),
            Ending::Gone => Self::Closed(CloseHow::Unknown),
        }
    }
}
