//! What the idle gaps on a listener's connections show about the hops: which gaps connections
//! survive, which kill them, and how close heartbeats come to the limit.
//!
//! The kernel counts the survived gaps; the core adds those that ended in death. The hop's real
//! timeout lies between the longest survived gap and the shortest killing gap beyond it. A death
//! after a shorter gap had another cause.

use std::{collections::VecDeque, time::Duration};

use monitor_common::idle_gap_scale::{self, SLOTS};

use super::{
    alert::{Alert, AlertResolution, ListenerFinding, Status, Subject},
    facts::ListenerId,
    hop::{Hop, ListenerRules},
    time::Ktime,
};

/// What was learned about the idle timeout of a listener's hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The 99th percentile of the gaps survived in about the last 15 minutes.
    pub gap_p99: Option<Duration>,
    /// The longest survived gap: the timeout is not shorter.
    pub survived: Option<Duration>,
    /// The shortest killing gap beyond it: the timeout is not longer.
    pub killed: Option<Duration>,
}

impl Learned {
    /// `limit` minus [`Learned::gap_p99`], in seconds. Negative if `limit` will drop connections.
    pub fn heartbeat_margin(&self, limit: Option<Duration>) -> Option<f64> {
        Some(limit?.as_secs_f64() - self.gap_p99?.as_secs_f64())
    }
}

/// A middlebox that is known to end connections after a certain idle time, or at a certain age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHop {
    pub name: String,
    pub idle_timeout: Option<Duration>,
    pub max_lifetime: Option<Duration>,
}

/// The slot of the longest survived gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survived(Option<usize>);

impl Survived {
    /// True if `silence` counts as a gap, and as a longer one.
    pub(super) fn is_exceeded_by(self, silence: Duration) -> bool {
        slot_of(silence) > self.0.unwrap_or(0)
    }
}

/// The idle gaps of one listener.
#[derive(Debug)]
pub(super) struct IdleGaps {
    /// Gaps survived since the start, by slot of [`idle_gap_scale`].
    survived: Box<[u64; SLOTS]>,
    killed: Box<[u64; SLOTS]>,
    /// Earlier states of `survived`, oldest first, so that old heartbeats are forgotten.
    epochs: VecDeque<(Ktime, Box<[u64; SLOTS]>)>,
    at_risk: Option<Alert>,
    mismatch: Option<Alert>,
}

impl Default for IdleGaps {
    fn default() -> Self {
        Self {
            survived: Box::new([0; SLOTS]),
            killed: Box::new([0; SLOTS]),
            epochs: VecDeque::new(),
            at_risk: None,
            mismatch: None,
        }
    }
}

impl IdleGaps {
    /// A connection died after this idle time, and neither this host nor the peer ended it.
    pub(super) fn kill(&mut self, silence: Duration) {
        self.killed[slot_of(silence)] += 1;
    }

    /// Stores the counts of all gaps survived so far, by slot.
    pub(super) fn survive(&mut self, at: Ktime, survived: &[u64]) {
        for (slot, count) in self.survived.iter_mut().zip(survived) {
            *slot = *count;
        }
        let due = self
            .epochs
            .back()
            .is_none_or(|(begun, _)| at.since(*begun) >= EPOCH);
        if due {
            self.epochs.push_back((at, self.survived.clone()));
            if self.epochs.len() > EPOCHS {
                self.epochs.pop_front();
            }
        }
    }

    pub(super) fn longest(&self) -> Survived {
        Survived(self.longest_survived())
    }

    pub(super) fn learned(&self) -> Learned {
        let longest = self.longest_survived();
        Learned {
            gap_p99: self.percentile_99(),
            survived: longest.map(lower),
            killed: self.shortest_killer(longest).map(upper),
        }
    }

    /// Judges what was learned, and returns the alerts that begin or end.
    pub(super) fn judge(
        &mut self,
        listener: ListenerId,
        rules: &ListenerRules,
        known: &[KnownHop],
        at: Ktime,
    ) -> Vec<Alert> {
        let found = self.at_risk(listener, rules, at);
        let at_risk = update_standing(&mut self.at_risk, found, at);
        let found = self.mismatch(listener, rules, known, at);
        let mismatch = update_standing(&mut self.mismatch, found, at);
        at_risk.into_iter().chain(mismatch).collect()
    }

    /// The alerts that stand.
    pub(super) fn standing(&self) -> impl Iterator<Item = &Alert> {
        [&self.at_risk, &self.mismatch].into_iter().flatten()
    }

    /// Whether the alert on a wrong limit stands.
    pub(super) fn is_mismatch(&self) -> bool {
        self.mismatch.is_some()
    }

    fn at_risk(&self, listener: ListenerId, rules: &ListenerRules, at: Ktime) -> Option<Alert> {
        let (hop, limit) = tightest(rules)?;
        let gap = self.percentile_99()?;
        // An alert that fires at nine tenths stays until the gaps are clearly shorter.
        let threshold = match self.at_risk {
            None => limit / 10 * 9,
            Some(_) => limit / 20 * 17,
        };
        // If connections survive beyond the limit, they are not at risk: the limit is wrong.
        let refuted = self
            .longest_survived()
            .is_some_and(|longest| lower(longest) > limit + limit / 10);
        if gap < threshold || refuted {
            return None;
        }
        let advice = limit / 3;
        Some(Alert {
            status: Status::Firing,
            listener,
            hop: Some(hop.name.clone()),
            at,
            since: at,
            subject: Subject::Listener(ListenerFinding::AtRisk { gap, limit }),
            reason: format!(
                "connections are silent for up to {:.1} s (p99) on a path that forgets after \
                 {:.1} s ({}): one late heartbeat loses the race; send one every {:.1} s or less",
                gap.as_secs_f64(),
                limit.as_secs_f64(),
                hop.name,
                advice.as_secs_f64(),
            ),
        })
    }

    fn mismatch(
        &self,
        listener: ListenerId,
        rules: &ListenerRules,
        known: &[KnownHop],
        at: Ktime,
    ) -> Option<Alert> {
        let longest = self.longest_survived();
        // Peers may come by several paths: only a contradiction of all of them is certain.
        let loosest = rules.paths().map(|path| path.idle_timeout()).max()?;
        let tightest = rules.shortest_idle_timeout();
        let everywhere = rules.paths().all(|path| path.idle_timeout().is_some());
        let beyond = |limit: Duration| -> u64 {
            let slots = self.survived.iter().enumerate();
            let longer = slots.filter(|(slot, _)| lower(*slot) > limit + limit / 10);
            longer.map(|(_, count)| count).sum()
        };
        let refuted = loosest.filter(|limit| everywhere && beyond(*limit) >= ENOUGH_SURVIVORS);
        let killer = self
            .shortest_killer(longest)
            .filter(|slot| self.killed[*slot..].iter().sum::<u64>() >= ENOUGH_DEATHS);
        let unknown =
            killer.filter(|slot| tightest.is_none_or(|limit| upper(*slot) < limit / 10 * 9));
        let reason = match (refuted, unknown.or(killer), longest) {
            (Some(limit), killer, Some(longest)) => {
                let survived = lower(longest).as_secs_f64();
                let limit = limit.as_secs_f64();
                let end = killer.map_or(String::new(), |slot| {
                    format!(
                        " and die after {:.0} s{}",
                        middle(slot).as_secs_f64(),
                        typical(known, slot)
                    )
                });
                format!(
                    "connections survive {survived:.0} s of silence{end}; {limit:.0} s looks wrong"
                )
            }
            (None, Some(_), _) => {
                let slot = unknown?;
                let typical = typical(known, slot);
                let idle = middle(slot).as_secs_f64();
                match tightest {
                    None => format!(
                        "connections die after {idle:.0} s of silence, and no hop is configured{typical}"
                    ),
                    Some(limit) => format!(
                        "connections die after {idle:.0} s of silence, before any configured hop \
                         forgets ({:.0} s){typical}",
                        limit.as_secs_f64()
                    ),
                }
            }
            _ => return None,
        };
        let hop = self.hop_in_question(rules);
        Some(Alert {
            status: Status::Firing,
            listener,
            hop,
            at,
            since: at,
            subject: Subject::Listener(ListenerFinding::LimitMismatch {
                limit: tightest,
                survived: longest.map(lower),
                killed: killer.map(upper),
            }),
            reason,
        })
    }

    fn hop_in_question(&self, rules: &ListenerRules) -> Option<String> {
        tightest(rules).map(|(hop, _)| hop.name.clone())
    }

    fn longest_survived(&self) -> Option<usize> {
        // Slot 0 holds durations that are too short for a gap.
        (1..SLOTS).rev().find(|slot| self.survived[*slot] > 0)
    }

    fn shortest_killer(&self, longest_survived: Option<usize>) -> Option<usize> {
        (longest_survived.unwrap_or(0) + 1..SLOTS).find(|slot| self.killed[*slot] > 0)
    }

    fn percentile_99(&self) -> Option<Duration> {
        // A single epoch has no past yet: its initial counts are included.
        let past = self.epochs.front().filter(|_| self.epochs.len() > 1);
        let recent = |slot: usize| self.survived[slot] - past.map_or(0, |(_, counts)| counts[slot]);
        let total: u64 = (1..SLOTS).map(recent).sum();
        if total < ENOUGH_GAPS {
            return None;
        }
        let mut rest = total / 100;
        for slot in (1..SLOTS).rev() {
            let count = recent(slot);
            if count > rest {
                return Some(middle(slot));
            }
            rest -= count;
        }
        None
    }
}

/// Replaces the standing alert with the new finding, and returns what changed.
pub(super) fn update_standing(
    standing: &mut Option<Alert>,
    found: Option<Alert>,
    at: Ktime,
) -> Option<Alert> {
    match (standing.as_ref(), found) {
        (None, None) | (Some(_), Some(_)) => None,
        (None, Some(found)) => {
            *standing = Some(found.clone());
            Some(found)
        }
        (Some(_), None) => standing.take().map(|before| Alert {
            status: Status::Resolved(AlertResolution::Recovered),
            at,
            reason: "the connections no longer say so".to_owned(),
            ..before
        }),
    }
}

/// The hop with the shortest idle timeout on any path, and that timeout.
fn tightest(rules: &ListenerRules) -> Option<(&Hop, Duration)> {
    rules
        .paths()
        .filter_map(|path| path.tightest())
        .filter_map(|hop| Some((hop, hop.idle_timeout?)))
        .min_by_key(|(_, limit)| *limit)
}

/// Known middleboxes with a timeout in or near a slot, as text; empty if there are none.
fn typical(known: &[KnownHop], slot: usize) -> String {
    let (shortest, longest) = (lower(slot) / 100 * 95, upper(slot) / 100 * 105);
    let near = |limit: Duration| (shortest..=longest).contains(&limit);
    names_of(known, |hop| hop.idle_timeout.is_some_and(near))
}

/// The names of matching known middleboxes, as text; empty if there are none.
pub(super) fn names_of(known: &[KnownHop], wanted: impl Fn(&KnownHop) -> bool) -> String {
    let names: Vec<&str> = known
        .iter()
        .filter(|hop| wanted(hop))
        .map(|hop| hop.name.as_str())
        .take(MOST_NAMES)
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; typical of {}", names.join(", ")),
    }
}

fn slot_of(silence: Duration) -> usize {
    idle_gap_scale::slot_of(u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX))
}

fn lower(slot: usize) -> Duration {
    Duration::from_nanos(idle_gap_scale::bounds(slot).0)
}

fn upper(slot: usize) -> Duration {
    Duration::from_nanos(idle_gap_scale::bounds(slot).1)
}

fn middle(slot: usize) -> Duration {
    let (lower, upper) = idle_gap_scale::bounds(slot);
    Duration::from_nanos(lower + (upper - lower) / 2)
}

/// The percentile covers the last one to two epochs once the first is over.
const EPOCH: Duration = Duration::from_secs(600);
const EPOCHS: usize = 3;
/// Fewer gaps do not predict the next.
const ENOUGH_GAPS: u64 = 3;
/// A single connection might use another path.
const ENOUGH_SURVIVORS: u64 = 10;
/// If other causes kill in half of all gaps of this length, ten deaths in a row without a survivor
/// have a probability of one in a thousand.
const ENOUGH_DEATHS: u64 = 10;
/// Maximum number of names in a sentence.
const MOST_NAMES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OnExpiry;

    const LISTENER: ListenerId = ListenerId(0);

    fn rules(limit: Option<u64>) -> ListenerRules {
        let hop = limit.map(|limit| Hop::new("lb", Duration::from_secs(limit), OnExpiry::Silent));
        ListenerRules::new("web", hop)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// The counts of gaps of these lengths, in seconds.
    fn survivors(idle_gaps: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; SLOTS];
        for silence in idle_gaps {
            counts[idle_gap_scale::slot_of((silence * 1e9) as u64)] += 1;
        }
        counts
    }

    fn at(minutes: u64) -> Ktime {
        Ktime(minutes * 60_000_000_000)
    }

    fn judge(idle_gaps: &mut IdleGaps, rules: &ListenerRules, minutes: u64) -> Vec<Alert> {
        let known = [("aws-nlb", 350), ("nginx", 60)].map(|(name, idle)| KnownHop {
            name: name.to_owned(),
            idle_timeout: Some(Duration::from_secs(idle)),
            max_lifetime: None,
        });
        idle_gaps.judge(LISTENER, rules, &known, at(minutes))
    }

    /// A ping every 55 s and a limit of 60 s.
    #[test]
    fn the_third_heartbeat_close_to_the_limit_is_reported_with_advice() {
        let mut idle_gaps = IdleGaps::default();
        idle_gaps.survive(at(0), &survivors(&[54.9, 55.2]));
        assert_eq!(judge(&mut idle_gaps, &rules(Some(60)), 0), []);
        idle_gaps.survive(at(1), &survivors(&[54.9, 55.2, 55.1]));
        let alerts = judge(&mut idle_gaps, &rules(Some(60)), 1);
        let [alert] = alerts.as_slice() else {
            panic!("one alert: {alerts:?}");
        };
        assert!(alert.is_firing());
        assert_eq!(alert.subject.kind(), "at_risk");
        assert!(
            alert.reason.contains("forgets after 60.0 s (lb)"),
            "{}",
            alert.reason
        );
        assert!(
            alert.reason.ends_with("one every 20.0 s or less"),
            "{}",
            alert.reason
        );
        assert!(idle_gaps.standing().eq([alert]));
        assert_eq!(
            judge(&mut idle_gaps, &rules(Some(60)), 1),
            [],
            "reported once"
        );
    }

    #[test]
    fn a_warning_ends_when_the_old_heartbeats_are_forgotten() {
        let mut idle_gaps = IdleGaps::default();
        let rules = rules(Some(60));
        let mut lengths = vec![55.0; 10];
        idle_gaps.survive(at(0), &survivors(&lengths));
        assert_eq!(judge(&mut idle_gaps, &rules, 0).len(), 1);
        for minute in 1..60 {
            lengths.push(25.0);
            idle_gaps.survive(at(minute), &survivors(&lengths));
            let changes = judge(&mut idle_gaps, &rules, minute);
            if let [resolved] = changes.as_slice() {
                assert!(!resolved.is_firing());
                assert!((10..=30).contains(&minute), "{minute}");
                return;
            }
            assert_eq!(changes, []);
        }
        panic!("the warning never ends");
    }

    #[test]
    fn heartbeats_at_a_third_of_the_limit_are_not_at_risk() {
        let mut idle_gaps = IdleGaps::default();
        idle_gaps.survive(at(0), &survivors(&[20.0; 1000]));
        assert_eq!(judge(&mut idle_gaps, &rules(Some(60)), 0), []);
    }

    /// Hidden timeouts, gaps of up to twice that length, fifty deaths.
    #[test]
    fn the_timeout_is_learned_within_a_tenth_from_fifty_deaths() {
        for hidden in [60.0, 350.0, 4_000.0] {
            let mut idle_gaps = IdleGaps::default();
            let mut lengths = Vec::new();
            let mut deaths = 0;
            // This sequence fills the range evenly, without a random generator.
            for i in 1.. {
                let length = 2.0 * hidden * (f64::from(i) * 0.618_033_988_75).fract();
                if length <= hidden {
                    lengths.push(length);
                } else {
                    idle_gaps.kill(seconds(length));
                    deaths += 1;
                    if deaths == 50 {
                        break;
                    }
                }
            }
            // Three vanished for another reason.
            for _ in 0..3 {
                idle_gaps.kill(seconds(hidden / 3.0));
            }
            idle_gaps.survive(at(0), &survivors(&lengths));
            let learned = idle_gaps.learned();
            let (low, high) = (
                learned.survived.expect("some"),
                learned.killed.expect("some"),
            );
            assert!(
                low <= seconds(hidden) && seconds(hidden) <= high,
                "{learned:?}"
            );
            assert!(
                low >= seconds(hidden * 0.9) && high <= seconds(hidden * 1.1),
                "{learned:?}"
            );
        }
    }

    #[test]
    fn a_limit_that_connections_outlive_is_reported_as_wrong() {
        let mut idle_gaps = IdleGaps::default();
        idle_gaps.survive(at(0), &survivors(&[300.0; 9]));
        assert_eq!(judge(&mut idle_gaps, &rules(Some(60)), 0), []);
        idle_gaps.survive(at(1), &survivors(&[300.0; 10]));
        let alerts = judge(&mut idle_gaps, &rules(Some(60)), 1);
        assert_eq!(alerts.len(), 1, "and none is at risk");
        assert!(
            alerts[0].reason.starts_with("connections survive 2")
                && alerts[0].reason.ends_with("of silence; 60 s looks wrong"),
            "{}",
            alerts[0].reason
        );
    }

    #[test]
    fn deaths_at_an_unconfigured_timeout_name_the_typical_hop() {
        let mut idle_gaps = IdleGaps::default();
        for _ in 0..10 {
            idle_gaps.kill(seconds(351.0));
        }
        idle_gaps.survive(at(0), &survivors(&[100.0; 50]));
        let alerts = judge(&mut idle_gaps, &rules(None), 0);
        assert_eq!(alerts.len(), 1);
        assert!(
            alerts[0]
                .reason
                .ends_with("no hop is configured; typical of aws-nlb"),
            "{}",
            alerts[0].reason
        );
        let mut tighter = IdleGaps::default();
        for _ in 0..10 {
            tighter.kill(seconds(61.0));
        }
        let alerts = judge(&mut tighter, &rules(Some(350)), 0);
        assert!(
            alerts[0]
                .reason
                .ends_with("forgets (350 s); typical of nginx"),
            "{}",
            alerts[0].reason
        );
    }

    #[test]
    fn deaths_that_match_the_configuration_are_not_a_mismatch() {
        let mut idle_gaps = IdleGaps::default();
        for i in 0..50 {
            idle_gaps.kill(seconds(60.5 + f64::from(i)));
        }
        idle_gaps.survive(at(0), &survivors(&[20.0; 100]));
        assert_eq!(judge(&mut idle_gaps, &rules(Some(60)), 0), []);
    }

    #[test]
    fn deaths_after_gaps_that_others_survive_have_another_cause() {
        let mut idle_gaps = IdleGaps::default();
        for i in 0..50 {
            idle_gaps.kill(seconds(f64::from(i)));
        }
        idle_gaps.survive(at(0), &survivors(&[120.0; 2]));
        assert_eq!(judge(&mut idle_gaps, &rules(None), 0), []);
        assert_eq!(idle_gaps.learned().killed, None);
    }
}
