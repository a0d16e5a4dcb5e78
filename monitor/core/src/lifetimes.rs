//! Detects connections that end at one age: a hop closes them then, even if they are busy.
//!
//! A death counts if it had no close frame and idle time cannot explain it, because connections
//! survive longer gaps. Connections that were opened together and die together, as in two restarts
//! of a load balancer, also share an age. Therefore the deaths must be spread in time.

use std::{collections::VecDeque, time::Duration};

use super::{
    alert::{Alert, ListenerFinding, Status, Subject},
    facts::ListenerId,
    hop::ListenerRules,
    idle_gaps::{KnownHop, Survived, names_of, update_standing},
    time::Ktime,
};

/// The ages at which connections of one listener died recently.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    deaths: VecDeque<AgedDeath>,
    standing: Option<Alert>,
}

#[derive(Clone, Copy, Debug)]
struct AgedDeath {
    at: Ktime,
    age: Duration,
    /// The idle time before the death.
    silence: Duration,
}

impl Lifetimes {
    /// A connection of this age died, and neither this host nor the peer ended it.
    pub(super) fn kill(&mut self, at: Ktime, age: Duration, silence: Duration) {
        self.deaths.push_back(AgedDeath { at, age, silence });
        if self.deaths.len() > DEATHS {
            self.deaths.pop_front();
        }
    }

    /// Judges the ages, and returns the alert that begins or ends.
    pub(super) fn judge(
        &mut self,
        listener: ListenerId,
        rules: &ListenerRules,
        known: &[KnownHop],
        survived: Survived,
        at: Ktime,
    ) -> Option<Alert> {
        self.deaths.retain(|death| at.since(death.at) < MEMORY);
        let found = self.mismatch(listener, rules, known, survived, at);
        update_standing(&mut self.standing, found, at)
    }

    /// The alert that stands.
    pub(super) fn standing(&self) -> Option<&Alert> {
        self.standing.as_ref()
    }

    fn mismatch(
        &self,
        listener: ListenerId,
        rules: &ListenerRules,
        known: &[KnownHop],
        survived: Survived,
        at: Ktime,
    ) -> Option<Alert> {
        let spike = self.spike(survived)?;
        let age = spike[spike.len() / 2].age;
        let hops = || rules.paths().flat_map(|path| &path.hops);
        let configured = |limit: Duration| is_near(limit, age);
        let mut lifetimes = hops().filter_map(|hop| Some((hop, hop.max_lifetime?)));
        if lifetimes.any(|(_, limit)| configured(limit)) {
            return None;
        }
        let shortest = hops()
            .filter_map(|hop| Some((hop, hop.max_lifetime?)))
            .min_by_key(|(_, limit)| *limit);
        let instead = match shortest {
            None => "no hop is configured that ends them".to_owned(),
            Some((hop, limit)) => format!(
                "not at the {:.0} s that are configured ({})",
                limit.as_secs_f64(),
                hop.name
            ),
        };
        let typical = names_of(known, |hop| hop.max_lifetime.is_some_and(configured));
        Some(Alert {
            status: Status::Firing,
            listener,
            hop: shortest.map(|(hop, _)| hop.name.clone()),
            at,
            since: at,
            subject: Subject::Listener(ListenerFinding::LifetimeMismatch {
                limit: shortest.map(|(_, limit)| limit),
                age,
                deaths: spike.len(),
            }),
            reason: format!(
                "connections end at an age of {:.0} s however busy they are ({} of the last {}), and \
                 {instead}{typical}",
                age.as_secs_f64(),
                spike.len(),
                self.deaths.len(),
            ),
        })
    }

    /// The deaths at nearly one age, youngest first, unless they may be a coincidence.
    fn spike(&self, survived: Survived) -> Option<Vec<AgedDeath>> {
        let mut deaths: Vec<AgedDeath> = self
            .deaths
            .iter()
            .filter(|death| death.age >= YOUNGEST && !survived.is_exceeded_by(death.silence))
            .copied()
            .collect();
        deaths.sort_by_key(|death| death.age);
        let spike = densest(&deaths, |first, last| {
            last.age <= first.age + first.age / WIDTH
        });
        if spike.len() < ENOUGH_DEATHS || 2 * spike.len() < self.deaths.len() {
            return None;
        }
        let mut in_time = spike.to_vec();
        in_time.sort_by_key(|death| death.at);
        let at_once = densest(&in_time, |first, last| {
            last.at.since(first.at) <= first.age / WIDTH
        });
        (2 * at_once.len() <= spike.len()).then(|| spike.to_vec())
    }
}

/// The longest run of sorted deaths whose first and last are `together`.
fn densest(
    deaths: &[AgedDeath],
    together: impl Fn(&AgedDeath, &AgedDeath) -> bool,
) -> &[AgedDeath] {
    let mut densest = &deaths[..0];
    let mut first = 0;
    for (last, death) in deaths.iter().enumerate() {
        while !together(&deaths[first], death) {
            first += 1;
        }
        if last + 1 - first > densest.len() {
            densest = &deaths[first..=last];
        }
    }
    densest
}

fn is_near(limit: Duration, age: Duration) -> bool {
    limit.abs_diff(age) <= age / WIDTH
}

/// The number of remembered deaths, and for how long: connections may live for a day.
const DEATHS: usize = 64;
const MEMORY: Duration = Duration::from_secs(2 * 24 * 3600);
/// The width of a spike is its age divided by this.
const WIDTH: u32 = 16;
const ENOUGH_DEATHS: usize = 10;
/// Younger connections fail in other ways.
const YOUNGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hop, OnExpiry, idle_gaps::IdleGaps};
    use monitor_common::idle_gap_scale::{self, SLOTS};

    fn rules(max_lifetime: Option<u64>) -> ListenerRules {
        let hop = Hop {
            max_lifetime: max_lifetime.map(Duration::from_secs),
            ..Hop::new("lb", Duration::from_secs(60), OnExpiry::Fin)
        };
        ListenerRules::new("web", Some(hop))
    }

    fn seconds(seconds: u64) -> Ktime {
        Ktime(seconds * 1_000_000_000)
    }

    /// Gaps of up to 50 s are survived.
    fn survived() -> Survived {
        let mut counts = [0; SLOTS];
        counts[idle_gap_scale::slot_of(50_000_000_000)] = 1;
        let mut idle_gaps = IdleGaps::default();
        idle_gaps.survive(seconds(0), &counts);
        idle_gaps.longest()
    }

    fn judge(lifetimes: &mut Lifetimes, rules: &ListenerRules, at: u64) -> Option<Alert> {
        let known = [("gateway", Some(3_600)), ("nginx", None)].map(|(name, age)| KnownHop {
            name: name.to_owned(),
            idle_timeout: None,
            max_lifetime: age.map(Duration::from_secs),
        });
        lifetimes.judge(ListenerId(0), rules, &known, survived(), seconds(at))
    }

    fn kill(lifetimes: &mut Lifetimes, at: u64, age: u64, silence: u64) {
        let [age, silence] = [age, silence].map(Duration::from_secs);
        lifetimes.kill(seconds(at), age, silence);
    }

    /// Connections opened every ten minutes and used every 25 s.
    fn an_hour_each(deaths: u64) -> Lifetimes {
        let mut lifetimes = Lifetimes::default();
        for i in 0..deaths {
            kill(&mut lifetimes, 10_000 + 600 * i, 3_600 + i % 3, 25);
        }
        lifetimes
    }

    #[test]
    fn the_tenth_death_at_one_age_is_reported_with_the_typical_hop() {
        let mut lifetimes = an_hour_each(9);
        assert_eq!(judge(&mut lifetimes, &rules(None), 20_000), None);
        let mut lifetimes = an_hour_each(10);
        let alert = judge(&mut lifetimes, &rules(None), 20_000).expect("an alert");
        assert_eq!(
            alert.reason,
            "connections end at an age of 3601 s however busy they are (10 of the last 10), and no hop \
             is configured that ends them; typical of gateway"
        );
        assert!(alert.is_firing());
        assert_eq!(
            judge(&mut lifetimes, &rules(None), 20_000),
            None,
            "reported once"
        );
        let alert = judge(&mut lifetimes, &rules(Some(3_600)), 20_001).expect("its end");
        assert!(!alert.is_firing(), "configured now");
    }

    #[test]
    fn a_configured_lifetime_is_not_reported_and_a_different_one_is_named() {
        assert_eq!(
            judge(&mut an_hour_each(12), &rules(Some(3_500)), 20_000),
            None
        );
        let alert = judge(&mut an_hour_each(12), &rules(Some(7_200)), 20_000).expect("an alert");
        assert!(
            alert
                .reason
                .contains("and not at the 7200 s that are configured (lb)"),
            "{}",
            alert.reason
        );
    }

    #[test]
    fn deaths_after_gaps_that_no_connection_survives_do_not_count() {
        let mut lifetimes = Lifetimes::default();
        for i in 0..20 {
            // Used for an hour, then idle past the limit.
            kill(&mut lifetimes, 10_000 + 600 * i, 3_600, 60);
        }
        assert_eq!(judge(&mut lifetimes, &rules(None), 30_000), None);
    }

    #[test]
    fn neither_deaths_at_all_ages_nor_ten_among_many_are_a_spike() {
        let mut lifetimes = Lifetimes::default();
        for i in 0..64 {
            kill(
                &mut lifetimes,
                10_000 + 600 * i,
                100 + 250 * (i * 7 % 40),
                0,
            );
        }
        assert_eq!(judge(&mut lifetimes, &rules(None), 60_000), None);
        let mut lifetimes = an_hour_each(10);
        for i in 0..11 {
            kill(&mut lifetimes, 17_000 + i, 100 + 200 * i, 0);
        }
        assert_eq!(judge(&mut lifetimes, &rules(None), 20_000), None);
    }

    #[test]
    fn connections_that_open_together_and_die_together_have_no_lifetime() {
        let mut lifetimes = Lifetimes::default();
        for i in 0..60 {
            kill(&mut lifetimes, 10_000 + i / 10, 3_600 + i % 10, 0);
        }
        assert_eq!(judge(&mut lifetimes, &rules(None), 20_000), None);
    }

    #[test]
    fn a_spike_ends_after_other_deaths_and_after_some_time() {
        let mut lifetimes = an_hour_each(12);
        assert!(judge(&mut lifetimes, &rules(None), 20_000).is_some());
        for i in 0..13 {
            kill(&mut lifetimes, 20_000 + i, 10 + 20 * i, 0);
        }
        let alert = judge(&mut lifetimes, &rules(None), 20_020).expect("its end");
        assert!(!alert.is_firing());

        let mut lifetimes = an_hour_each(12);
        assert!(judge(&mut lifetimes, &rules(None), 20_000).is_some());
        assert_eq!(judge(&mut lifetimes, &rules(None), 100_000), None);
        let alert = judge(&mut lifetimes, &rules(None), 190_000).expect("its end");
        assert!(!alert.is_firing());
    }
}
