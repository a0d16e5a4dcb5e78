//! What the core says to people.

use std::{fmt, time::Duration};

use super::{
    background::Background,
    event::CloseHow,
    facts::{Facts, ListenerId},
    hop::OnExpiry,
    look::Look,
    storm::StormFinding,
    time::Ktime,
    verdict::{self, Verdict},
};

/// Something to be told: to the alert log and to every other sink.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Connection(Box<Alert>),
    Listener(Box<ListenerAlert>),
    Group(Box<Group>),
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
    /// What else was found out when it was told; the core knows nothing of it.
    pub background: Option<Box<Background>>,
    /// One sentence for a person.
    pub reason: String,
}

/// Many alerts that say the same of connections of one listener at nearly the same time. Made by
/// [`Grouping`](super::Grouping).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
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
    /// The first of them, at most [`Group::EXAMPLES`].
    pub examples: Vec<Alert>,
}

impl Group {
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
        look: &Look<'_>,
        silence: Duration,
    ) -> Self {
        Self {
            status: Status::Firing,
            kind: verdict.kind,
            certainty: verdict.certainty,
            listener,
            hop: look.hop(verdict).map(|hop| hop.name.clone()),
            at,
            since: verdict.since,
            limit: verdict.limit,
            facts: Box::new(look.evidence()),
            background: None,
            reason: why_firing(verdict, look, silence),
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
    Resolved(Resolution),
}

/// How a verdict ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The peer was heard again: it was no zombie, or is none any more.
    Recovered,
    /// It was a warning, and a zombie took its place.
    Superseded,
    /// wsmon aborted it.
    Reaped,
    /// The socket is gone.
    Closed(CloseHow),
}

impl Resolution {
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

/// What ends a verdict, in more detail than a [`Resolution`] tells.
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
    fn resolution(self) -> Resolution {
        match self {
            Self::Recovered | Self::Dismissed => Resolution::Recovered,
            Self::Superseded => Resolution::Superseded,
            Self::Reaped => Resolution::Reaped,
            Self::Closed(how) => Resolution::Closed(how),
            Self::Gone => Resolution::Closed(CloseHow::Unknown),
        }
    }
}

fn why_firing(verdict: &Verdict, look: &Look<'_>, silence: Duration) -> String {
    let facts = look.facts;
    let hop = look.hop(verdict).map_or("", |hop| hop.name.as_str());
    match (verdict.kind, verdict.certainty) {
        (VerdictKind::Expired, certainty) => {
            let limit = Seconds(verdict.limit);
            let idle = Seconds(silence);
            let path = format!("idle {idle} on a path that forgets after {limit} ({hop})");
            if certainty == Certainty::Suspected {
                return format!("{path}: no FIN, no RST; the application still thinks it is open");
            }
            let sent = Counted(facts.unanswered_transmissions.into(), "transmission");
            let waited = Seconds(elapsed(facts.unanswered_since, look.now));
            format!("{path}, then {sent} unanswered for {waited}: the path is dead")
        }
        (VerdictKind::BlackHoled, certainty) => {
            let bytes = Counted(facts.unacked_bytes.into(), "byte");
            let waited = Seconds(elapsed(facts.stalled_since, look.now));
            let retransmits = Counted(facts.retransmits.into(), "retransmission");
            let stuck = format!("{bytes} unacknowledged for {waited} after {retransmits}");
            if certainty == Certainty::Suspected {
                let percent = look.loss().ratio() * 100.0;
                return format!(
                    "{stuck}, on a path where {percent:.0} % of the tries fail anyway: it may be chance"
                );
            }
            format!("{stuck}; TCP itself gives up only after about 15 minutes")
        }
        (VerdictKind::Unresponsive, _) => {
            let pings = Counted(facts.pings_unanswered.into(), "ping");
            let waited = Seconds(elapsed(facts.first_unanswered_ping, look.now));
            format!(
                "{pings} unanswered for {waited} while TCP acknowledges: \
                 a kernel or proxy is alive, the client is not"
            )
        }
        (VerdictKind::HalfClosed, _) => {
            let waited = Seconds(look.now.since(verdict.since));
            if facts.fin_rx {
                format!(
                    "the peer closed {waited} ago and this host's application has not: \
                     it holds a socket that nobody is behind"
                )
            } else {
                format!("this host closed {waited} ago and the peer has not")
            }
        }
        (VerdictKind::Stalled, _) => {
            let bytes = Counted(look.unread.map_or(0, |unread| unread.bytes.into()), "byte");
            let waited = Seconds(look.now.since(verdict.since));
            format!("this host's application has left {bytes} unread for {waited}")
        }
        (VerdictKind::Expiring, _) => {
            let limit = Seconds(verdict.limit);
            let how = look
                .hop(verdict)
                .map_or("closes", |hop| match hop.on_expiry {
                    OnExpiry::Rst => "resets",
                    OnExpiry::Fin | OnExpiry::Silent | OnExpiry::RstOnNextPacket => "closes",
                });
            let age = facts.established_at.map(|born| look.now.since(born));
            match age.filter(|_| verdict::is_near_lifetime(look, verdict)) {
                Some(age) => format!(
                    "{} old; {hop} {how} connections after {limit}: expect a disconnect, busy or not",
                    Seconds(age)
                ),
                None => format!(
                    "idle {}; {hop} {how} connections after {limit} of silence: expect a \
                     disconnect, not a zombie",
                    Seconds(silence)
                ),
            }
        }
        (VerdictKind::Quiet, _) => {
            let limit = Seconds(verdict.limit);
            format!("no message from the peer for more than {limit}")
        }
    }
}

fn why_resolved(verdict: &Verdict, ending: Ending, at: Ktime) -> String {
    let lasted = match verdict.kind {
        VerdictKind::Expired | VerdictKind::Quiet => {
            at.since(verdict.since).saturating_add(verdict.limit)
        }
        VerdictKind::BlackHoled
        | VerdictKind::Unresponsive
        | VerdictKind::HalfClosed
        | VerdictKind::Stalled
        | VerdictKind::Expiring => at.since(verdict.since),
    };
    let lasted = Seconds(lasted);
    match (ending, verdict.kind) {
        (Ending::Recovered, VerdictKind::Expired) => format!("heard again after {lasted}"),
        (Ending::Recovered, VerdictKind::BlackHoled) => {
            format!("acknowledges again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Unresponsive) => {
            format!("answers pings again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Stalled) => {
            format!("the application reads again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Quiet) => format!("a message came after {lasted}"),
        (Ending::Recovered, VerdictKind::Expiring) => {
            "in use again, or open past the limit".to_owned()
        }
        (Ending::Recovered, VerdictKind::HalfClosed) => "open again".to_owned(),
        (Ending::Reaped, _) => format!("aborted by wsmon after {lasted}"),
        (Ending::Superseded, _) => "a graver verdict takes its place".to_owned(),
        (Ending::Dismissed, _) => "not a WebSocket after all; no longer watched".to_owned(),
        (Ending::Gone, _) => "the socket is gone; how it ended was missed".to_owned(),
        (Ending::Closed(how), _) => format!("closed by {} after {lasted}", in_words(how)),
    }
}

fn in_words(how: CloseHow) -> &'static str {
    match how {
        CloseHow::CloseFrame => "a close frame",
        CloseHow::Fin => "a FIN without a close frame",
        CloseHow::RstSent => "a RST from this host",
        CloseHow::RstReceived => "a RST from the path",
        CloseHow::Timeout => "TCP, which gave up,",
        CloseHow::Unknown => "something that was not seen",
    }
}

fn elapsed(since: Option<Ktime>, now: Ktime) -> Duration {
    since.map_or(Duration::ZERO, |since| now.since(since))
}

/// Whole seconds stay whole, others get one decimal, rounded down: "idle 6.0 s" for a limit of
/// 6 s would claim more than was seen.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_secs(), self.0.subsec_nanos()) {
            (whole, 0) => write!(f, "{} s", Grouped(whole)),
            (whole, nanos) => write!(f, "{}.{} s", Grouped(whole), nanos / 100_000_000),
        }
    }
}

/// A number and its noun, in the plural where needed.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Grouped(self.0), self.1)
    }
}

/// `4096` as `4,096`.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{},{:03}", Grouped(self.0 / 1000), self.0 % 1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(Counted(1, "ping").to_string(), "1 ping");
        assert_eq!(Counted(4_096, "byte").to_string(), "4,096 bytes");
        assert_eq!(Counted(1_000_003, "byte").to_string(), "1,000,003 bytes");
        assert_eq!(Seconds(Duration::from_millis(6_399)).to_string(), "6.3 s");
        assert_eq!(Seconds(Duration::from_secs(3_600)).to_string(), "3,600 s");
        assert_eq!(
            Seconds(Duration::MAX).to_string(),
            "18,446,744,073,709,551,615.9 s"
        );
    }

    #[test]
    fn a_resolved_verdict_says_how_it_ended() {
        let verdict = Verdict {
            kind: VerdictKind::Expired,
            certainty: Certainty::Suspected,
            since: Ktime(6_000_000_000),
            limit: Duration::from_secs(6),
            hop: None,
        };
        let why = |ending| why_resolved(&verdict, ending, Ktime(7_500_000_000));
        assert_eq!(why(Ending::Recovered), "heard again after 7.5 s");
        assert_eq!(
            why(Ending::Closed(CloseHow::RstReceived)),
            "closed by a RST from the path after 7.5 s"
        );
    }
}
