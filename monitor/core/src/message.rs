//! One-sentence reasons for alerts.

use std::{fmt, time::Duration};

use super::{
    event::CloseHow,
    facts::Protocol,
    hop::{Activity, OnExpiry},
    observation::Observation,
    rules,
    time::Ktime,
    verdict::{Certainty, Ending, Verdict, VerdictKind},
};

pub(super) fn why_firing(
    verdict: &Verdict,
    observation: &Observation<'_>,
    silence: Duration,
) -> String {
    let (evidence, conclusion) = evidence(verdict, observation, silence);
    match observation.facts.is_subflow && verdict.kind.is_about_path_or_peer() {
        true => {
            format!("{evidence}: one subflow of an MPTCP connection, which may live on by another")
        }
        false => evidence + &conclusion,
    }
}

/// The observed evidence, and the conclusion from it.
fn evidence(
    verdict: &Verdict,
    observation: &Observation<'_>,
    silence: Duration,
) -> (String, String) {
    let facts = observation.facts;
    let hop = observation.hop(verdict).map_or("", |hop| hop.name.as_str());
    let (evidence, conclusion) = match (verdict.kind, verdict.certainty) {
        (VerdictKind::Expired, certainty) => {
            let limit = SecondsText(verdict.limit);
            let idle = idle_for(observation, verdict, silence);
            let path = format!("{idle} on a path that forgets after {limit} ({hop})");
            if certainty < Certainty::Confirmed {
                let open = ": no FIN, no RST; the application still thinks it is open";
                return (path, open.to_owned());
            }
            let sent = CountedNoun(facts.unanswered_transmissions.into(), "transmission");
            let waited = SecondsText(elapsed(facts.unanswered_since, observation.now));
            let tried = format!("{path}, then {sent} unanswered for {waited}");
            (tried, ": the path is dead")
        }
        (VerdictKind::BlackHoled, certainty) => {
            let bytes = CountedNoun(facts.unacked_bytes.into(), "byte");
            let waited = SecondsText(elapsed(facts.unacked_since, observation.now));
            let retransmits = CountedNoun(facts.retransmits.into(), "retransmission");
            let stuck = format!("{bytes} unacknowledged for {waited} after {retransmits}");
            if certainty < Certainty::Confirmed {
                let percent = observation.loss().ratio() * 100.0;
                let chance = format!(
                    ", on a path where {percent:.0} % of the tries fail anyway: it may be chance"
                );
                return (stuck, chance);
            }
            (stuck, "; TCP itself gives up only after about 15 minutes")
        }
        (VerdictKind::Unresponsive, certainty) => {
            let pings = CountedNoun(facts.pings_unanswered.into(), "ping");
            let waited = SecondsText(elapsed(facts.first_try, observation.now));
            let source = match facts.protocol {
                Protocol::Opaque => ", by the sizes of TLS records",
                Protocol::WebSocket | Protocol::Assumed => "",
            };
            let deaf = format!(
                "{pings} unanswered{source}, and no data for {waited} while TCP acknowledges"
            );
            match certainty {
                Certainty::Suspected | Certainty::Inferred => {
                    (deaf, ": the client is busy, or gone")
                }
                Certainty::Confirmed => (deaf, ": a kernel or proxy is alive, the client is not"),
            }
        }
        (VerdictKind::HalfClosed, _) => {
            let waited = SecondsText(observation.now.since(verdict.since));
            match facts.fin_rx {
                true => (
                    format!("the peer closed {waited} ago and this host's application has not"),
                    ": it holds a socket that nobody is behind",
                ),
                false => (
                    format!("this host closed {waited} ago and the peer has not"),
                    "",
                ),
            }
        }
        (VerdictKind::Stalled, Certainty::Suspected | Certainty::Inferred) => {
            let waited = SecondsText(elapsed(facts.own_window_closed_at, observation.now));
            let closed = format!("this host's window has been closed for {waited}");
            match facts.is_subflow {
                false => (closed, ": its application reads little or nothing"),
                true => (
                    closed,
                    ": its application reads little or nothing; what it leaves unread is in the outer socket of an MPTCP \
                     connection, where no scan sees it",
                ),
            }
        }
        (VerdictKind::Stalled, Certainty::Confirmed) => {
            let bytes = CountedNoun(
                observation.unread.map_or(0, |unread| unread.bytes.into()),
                "byte",
            );
            let waited = SecondsText(observation.now.since(verdict.since));
            (
                format!("this host's application has left {bytes} unread for {waited}"),
                "",
            )
        }
        (VerdictKind::Backlogged, certainty) => {
            let since = match facts.peer_window_closed_at {
                Some(at) => at.min(verdict.since),
                None => verdict.since,
            };
            let waited = SecondsText(observation.now.since(since));
            let waits = observation.unsent.map_or_else(String::new, |unsent| {
                format!(
                    ", and {} wait here",
                    CountedNoun(unsent.bytes.into(), "byte")
                )
            });
            let closed = format!("the peer acknowledges with a closed window for {waited}{waits}");
            match certainty {
                Certainty::Suspected | Certainty::Inferred => {
                    (closed, ": its application reads little or nothing")
                }
                Certainty::Confirmed => (closed, ": its application does not read"),
            }
        }
        (VerdictKind::Expiring, _) => {
            let limit = SecondsText(verdict.limit);
            let how = observation
                .hop(verdict)
                .map_or("closes", |hop| match hop.on_expiry {
                    OnExpiry::Rst => "resets",
                    OnExpiry::Fin | OnExpiry::Silent | OnExpiry::RstOnNextPacket => "closes",
                });
            let age = facts
                .established_at
                .map(|established_at| observation.now.since(established_at));
            match age.filter(|_| rules::is_near_lifetime(observation, verdict)) {
                Some(age) => (
                    format!(
                        "{} old; {hop} {how} connections after {limit}",
                        SecondsText(age)
                    ),
                    ": expect a disconnect, busy or not",
                ),
                None => (
                    format!(
                        "{}; {hop} {how} connections after {limit} of silence",
                        idle_for(observation, verdict, silence)
                    ),
                    ": expect a disconnect, not a zombie",
                ),
            }
        }
        (VerdictKind::Quiet, _) => {
            let limit = SecondsText(verdict.limit);
            (
                format!("no message from the peer for more than {limit}"),
                "",
            )
        }
    };
    (evidence, conclusion.to_owned())
}

pub(super) fn why_resolved(verdict: &Verdict, ending: Ending, at: Ktime) -> String {
    let lasted = match verdict.kind {
        VerdictKind::Expired | VerdictKind::Quiet => {
            at.since(verdict.since).saturating_add(verdict.limit)
        }
        VerdictKind::BlackHoled
        | VerdictKind::Unresponsive
        | VerdictKind::HalfClosed
        | VerdictKind::Stalled
        | VerdictKind::Backlogged
        | VerdictKind::Expiring => at.since(verdict.since),
    };
    let lasted = SecondsText(lasted);
    match (ending, verdict.kind) {
        (Ending::Recovered, VerdictKind::Expired) => format!("heard again after {lasted}"),
        (Ending::Recovered, VerdictKind::BlackHoled) => {
            format!("acknowledges again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Unresponsive) => {
            format!("the client is heard again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Stalled) => {
            format!("the application reads again after {lasted}")
        }
        (Ending::Recovered, VerdictKind::Backlogged) => {
            format!("the peer's application reads again after {lasted}")
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

/// How long the hop has seen no activity that it counts.
fn idle_for(observation: &Observation, verdict: &Verdict, silence: Duration) -> String {
    let silence = SecondsText(silence);
    match observation.hop(verdict).map(|hop| hop.activity) {
        Some(Activity::Payload) => format!("without payload for {silence}"),
        Some(Activity::Packet) | None => format!("idle {silence}"),
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

/// Whole seconds stay whole; others get one decimal, rounded down. Rounding up could claim "idle
/// 6.0 s" before 6 s have passed.
struct SecondsText(Duration);

impl fmt::Display for SecondsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_secs(), self.0.subsec_nanos()) {
            (whole, 0) => write!(f, "{} s", Grouped(whole)),
            (whole, nanos) => write!(f, "{}.{} s", Grouped(whole), nanos / 100_000_000),
        }
    }
}

/// A number and its noun, in the plural if needed.
struct CountedNoun(u64, &'static str);

impl fmt::Display for CountedNoun {
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
    fn numbers_are_human_readable() {
        assert_eq!(CountedNoun(1, "ping").to_string(), "1 ping");
        assert_eq!(CountedNoun(4_096, "byte").to_string(), "4,096 bytes");
        assert_eq!(
            CountedNoun(1_000_003, "byte").to_string(),
            "1,000,003 bytes"
        );
        assert_eq!(
            SecondsText(Duration::from_millis(6_399)).to_string(),
            "6.3 s"
        );
        assert_eq!(
            SecondsText(Duration::from_secs(3_600)).to_string(),
            "3,600 s"
        );
        assert_eq!(
            SecondsText(Duration::MAX).to_string(),
            "18,446,744,073,709,551,615.9 s"
        );
    }

    #[test]
    fn the_reason_of_a_resolution_contains_how_the_verdict_ended() {
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
