//! The four connections: what happens to each, and what wsmon must report.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use lab::Manner;

/// How long the load balancer remembers a silent connection; wsmon gets the same value.
pub(super) const LB_TIMEOUT: Duration = Duration::from_secs(6);

const EXPIRED_WITHIN: f64 = 1.0;
const BLACK_HOLED_WITHIN: f64 = 10.0;
const UNRESPONSIVE_WITHIN: f64 = 1.5;
/// For a deaf client, seconds from its second ping: 10 s after the first ping, which was 2 s
/// earlier.
const DEAF_CONFIRMED: RangeInclusive<f64> = 7.8..=9.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    Healthy,
    Idle,
    BlackHoled,
    Deaf,
}

impl Story {
    pub(super) const ALL: [Self; 4] = [Self::Healthy, Self::Idle, Self::BlackHoled, Self::Deaf];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Idle => "idle",
            Self::BlackHoled => "black-holed",
            Self::Deaf => "deaf",
        }
    }

    /// The behaviour of the two ends, for the line that introduces the connection.
    pub(super) fn opening(self) -> &'static str {
        match self {
            Self::Healthy => "the server pings every 2 s, the client pongs",
            Self::Idle => "nobody says a word",
            Self::BlackHoled => "the server streams 1 kB every 200 ms",
            Self::Deaf => "the server pings every 2 s, the client never reads",
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Healthy | Self::Deaf => "/heartbeat?every=2s",
            Self::Idle => "/quiet",
            Self::BlackHoled => "/stream?every=200ms&size=1024",
        }
    }

    pub(super) fn manner(self) -> Manner {
        match self {
            Self::Deaf => Manner::Deaf,
            Self::Healthy | Self::Idle | Self::BlackHoled => Manner::Responsive,
        }
    }

    /// The kind of zombie that wsmon must report; `None` if it must report none.
    pub(super) fn expected_kind(self) -> Option<&'static str> {
        match self {
            Self::Healthy => None,
            Self::Idle => Some("expired"),
            Self::BlackHoled => Some("black_holed"),
            Self::Deaf => Some("unresponsive"),
        }
    }
}

/// One firing zombie alert, and the application's state at that moment.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) at: Instant,
    pub(super) kind: String,
    pub(super) certainty: String,
    pub(super) application: String,
}

impl Verdict {
    pub(super) fn is_certain_of(&self, kind: &str) -> bool {
        self.kind == kind && self.certainty == "confirmed"
    }
}

/// Result of one story.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) story: Story,
    pub(super) peer: String,
    pub(super) what_happened: String,
    /// When the connection was really lost, if it was.
    pub(super) fact: Option<Instant>,
    /// Every verdict on this connection, in order.
    pub(super) verdicts: Vec<Verdict>,
    /// The application's state at the end.
    pub(super) application_at_end: String,
}

impl Outcome {
    /// Seconds from the fact to the first verdict; negative if the verdict came first.
    pub(super) fn delay(&self) -> Option<f64> {
        let verdict = self.verdicts.first()?;
        Some(seconds_between(self.fact?, verdict.at))
    }

    /// Seconds from the fact to the confirmed verdict.
    pub(super) fn confirmation_delay(&self) -> Option<f64> {
        let confirmed = |verdict: &&Verdict| verdict.certainty == "confirmed";
        let verdict = self.verdicts.iter().find(confirmed)?;
        Some(seconds_between(self.fact?, verdict.at))
    }

    /// The latest certainty of the first verdict.
    pub(super) fn certainty(&self) -> Option<&str> {
        let kind = &self.verdicts.first()?.kind;
        let latest = self
            .verdicts
            .iter()
            .rfind(|verdict| verdict.kind == *kind)?;
        Some(&latest.certainty)
    }

    /// The failed expectation as text, if one failed.
    pub(super) fn failure(&self) -> Option<String> {
        let name = self.story.name();
        let (expected, verdict) = match (self.story.expected_kind(), self.verdicts.first()) {
            (None, None) => return None,
            (None, Some(verdict)) => {
                return Some(format!(
                    "{name}: called zombie/{}, but it lives",
                    verdict.kind
                ));
            }
            (Some(expected), None) => {
                return Some(format!("{name}: no alert, expected zombie/{expected}"));
            }
            (Some(expected), Some(verdict)) => (expected, verdict),
        };
        if verdict.kind != expected {
            let kind = &verdict.kind;
            return Some(format!(
                "{name}: called zombie/{kind}, expected zombie/{expected}"
            ));
        }
        let Some(delay) = self.delay() else {
            return Some(format!(
                "{name}: called zombie/{expected} before anything happened"
            ));
        };
        self.delay_failure(delay)
            .or_else(|| self.confirmation_failure())
            .map(|complaint| format!("{name}: {complaint}"))
    }

    /// Suspicion comes at once, confirmation of a deaf client only after the floor.
    fn confirmation_failure(&self) -> Option<String> {
        if self.story != Story::Deaf {
            return None;
        }
        match self.confirmation_delay() {
            None => Some("never confirmed".to_owned()),
            Some(delay) if DEAF_CONFIRMED.contains(&delay) => None,
            Some(delay) => Some(format!(
                "confirmed {delay:.2} s after the second unanswered ping, expected {} to {} s",
                DEAF_CONFIRMED.start(),
                DEAF_CONFIRMED.end()
            )),
        }
    }

    fn delay_failure(&self, delay: f64) -> Option<String> {
        let (after, latest) = match self.story {
            Story::Healthy => return None,
            Story::Idle => ("the limit", EXPIRED_WITHIN),
            Story::BlackHoled => ("the first dropped packet", BLACK_HOLED_WITHIN),
            Story::Deaf => ("the second unanswered ping", UNRESPONSIVE_WITHIN),
        };
        if delay > latest {
            return Some(format!(
                "alert {delay:.2} s after {after}, expected within {latest} s"
            ));
        }
        (delay < 0.0).then(|| {
            format!(
                "alert {:.2} s before {after}, expected never before",
                -delay
            )
        })
    }
}

fn seconds_between(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    let before = from.saturating_duration_since(to).as_secs_f64();
    after - before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(story: Story, verdict: Option<(&str, f64)>) -> Outcome {
        let origin = Instant::now();
        let fact = origin + Duration::from_secs(60);
        let verdict_at = |kind: &str, certainty: &str, delay| Verdict {
            at: origin + Duration::from_secs_f64(60.0 + delay),
            kind: kind.to_owned(),
            certainty: certainty.to_owned(),
            application: "open, no error".to_owned(),
        };
        let verdicts = verdict.into_iter().flat_map(|(kind, delay)| {
            let suspected = verdict_at(kind, "suspected", delay);
            [suspected, verdict_at(kind, "confirmed", 8.1)]
        });
        Outcome {
            story,
            peer: "10.77.1.11:1".to_owned(),
            what_happened: "something".to_owned(),
            fact: Some(fact),
            verdicts: verdicts.collect(),
            application_at_end: "open, no error".to_owned(),
        }
    }

    #[test]
    fn the_right_kind_in_time_passes() {
        for (story, verdict) in [
            (Story::Healthy, None),
            (Story::Idle, Some(("expired", 0.3))),
            (Story::BlackHoled, Some(("black_holed", 9.9))),
            (Story::Deaf, Some(("unresponsive", 1.4))),
        ] {
            assert_eq!(outcome(story, verdict).failure(), None, "{story:?}");
        }
    }

    #[test]
    fn a_failure_names_the_connection_and_what_was_expected() {
        for (story, verdict, words) in [
            (
                Story::Healthy,
                Some(("expired", 0.0)),
                "healthy: called zombie/expired",
            ),
            (Story::Idle, None, "idle: no alert"),
            (
                Story::Idle,
                Some(("expired", -0.1)),
                "0.10 s before the limit",
            ),
            (
                Story::Idle,
                Some(("expired", 1.1)),
                "1.10 s after the limit",
            ),
            (
                Story::Idle,
                Some(("black_holed", 0.5)),
                "expected zombie/expired",
            ),
            (
                Story::BlackHoled,
                Some(("black_holed", 10.5)),
                "within 10 s",
            ),
            (Story::Deaf, Some(("unresponsive", 1.6)), "within 1.5 s"),
        ] {
            let failure = outcome(story, verdict).failure().unwrap();
            assert!(failure.contains(words), "{failure}");
        }
    }

    #[test]
    fn a_deaf_client_has_to_be_confirmed_but_not_too_early() {
        let mut outcome = outcome(Story::Deaf, Some(("unresponsive", 1.0)));
        let fact = outcome.fact.unwrap();
        outcome.verdicts[1].at = fact + Duration::from_secs(1);
        let failure = outcome.failure().unwrap();
        assert!(failure.contains("confirmed 1.00 s after"), "{failure}");
        outcome.verdicts.truncate(1);
        assert_eq!(outcome.failure().unwrap(), "deaf: never confirmed");
    }

    #[test]
    fn the_certainty_is_the_latest_of_the_same_kind() {
        let outcome = outcome(Story::Idle, Some(("expired", 0.3)));
        assert_eq!(outcome.certainty(), Some("confirmed"));
    }
}
