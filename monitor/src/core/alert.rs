//! What the core says to people.

use std::{fmt, time::Duration};

use super::{
    event::CloseHow,
    facts::{Facts, ListenerId},
    look::Look,
    time::Ktime,
    verdict::Verdict,
};

/// A verdict that begins, changes its certainty, or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub status: Status,
    pub kind: ZombieKind,
    pub certainty: Certainty,
    pub listener: ListenerId,
    /// The moment the verdict was reached or left.
    pub at: Ktime,
    /// The moment from which it was true: the limit crossed, the first byte unanswered.
    pub since: Ktime,
    /// The limit that was crossed: the hop's idle timeout, or the patience of the rule.
    pub limit: Duration,
    /// The evidence.
    pub facts: Box<Facts>,
    /// One sentence for a person.
    pub reason: String,
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
            at,
            since: verdict.since,
            limit: verdict.limit,
            facts: Box::new(look.evidence()),
            reason: why_firing(verdict, look, silence),
        }
    }

    pub(super) fn resolved(
        listener: ListenerId,
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
            at,
            since: verdict.since,
            limit: verdict.limit,
            facts,
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
    /// The socket is gone.
    Closed(CloseHow),
}

/// Why a connection that looks open is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZombieKind {
    /// Idle past the limit of a hop that says nothing.
    Expired,
    /// Data goes out, nothing is acknowledged.
    BlackHoled,
    /// TCP acknowledges, the WebSocket peer does not pong.
    Unresponsive,
}

impl ZombieKind {
    pub const ALL: [Self; 3] = [Self::Expired, Self::BlackHoled, Self::Unresponsive];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::BlackHoled => "black_holed",
            Self::Unresponsive => "unresponsive",
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
            Self::Closed(how) => Resolution::Closed(how),
            Self::Gone => Resolution::Closed(CloseHow::Unknown),
        }
    }
}

fn why_firing(verdict: &Verdict, look: &Look<'_>, silence: Duration) -> String {
    let facts = look.facts;
    match (verdict.kind, verdict.certainty) {
        (ZombieKind::Expired, certainty) => {
            let hop = look
                .rules
                .tightest_hop
                .as_ref()
                .map_or("", |hop| hop.name.as_str());
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
        (ZombieKind::BlackHoled, _) => {
            let bytes = Counted(facts.unacked_bytes.into(), "byte");
            let waited = Seconds(elapsed(facts.stalled_since, look.now));
            let retransmits = Counted(facts.retransmits.into(), "retransmission");
            format!(
                "{bytes} unacknowledged for {waited} after {retransmits}; \
                 TCP itself gives up only after about 15 minutes"
            )
        }
        (ZombieKind::Unresponsive, _) => {
            let pings = Counted(facts.pings_unanswered.into(), "ping");
            let waited = Seconds(elapsed(facts.first_unanswered_ping, look.now));
            format!(
                "{pings} unanswered for {waited} while TCP acknowledges: \
                 a kernel or proxy is alive, the client is not"
            )
        }
    }
}

fn why_resolved(verdict: &Verdict, ending: Ending, at: Ktime) -> String {
    let lasted = match verdict.kind {
        ZombieKind::Expired => at.since(verdict.since).saturating_add(verdict.limit),
        ZombieKind::BlackHoled | ZombieKind::Unresponsive => at.since(verdict.since),
    };
    let lasted = Seconds(lasted);
    match (ending, verdict.kind) {
        (Ending::Recovered, ZombieKind::Expired) => format!("heard again after {lasted}"),
        (Ending::Recovered, ZombieKind::BlackHoled) => {
            format!("acknowledges again after {lasted}")
        }
        (Ending::Recovered, ZombieKind::Unresponsive) => {
            format!("answers pings again after {lasted}")
        }
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
            kind: ZombieKind::Expired,
            certainty: Certainty::Suspected,
            since: Ktime(6_000_000_000),
            limit: Duration::from_secs(6),
        };
        let why = |ending| why_resolved(&verdict, ending, Ktime(7_500_000_000));
        assert_eq!(why(Ending::Recovered), "heard again after 7.5 s");
        assert_eq!(
            why(Ending::Closed(CloseHow::RstReceived)),
            "closed by a RST from the path after 7.5 s"
        );
    }
}
