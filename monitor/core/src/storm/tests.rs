//! Tests of the engine with simulated clients, in virtual time.

use std::{collections::BTreeSet, time::Duration};

use super::{
    sim::{self, Outage, Random, address},
    *,
};
use crate::facts::Direction;

mod course;
mod engine;
mod onsets;
mod rhythms;
mod shared;
mod young;

fn at(seconds: f64) -> Ktime {
    Ktime((seconds * 1e9) as u64)
}

fn engine() -> StormDetector {
    StormDetector::new(ListenerId(0), &StormSettings::default(), None)
}

/// An engine that has learned this rate.
fn used_to(rate: f64) -> StormDetector {
    let usual = Usual {
        fast: rate,
        slow: rate,
        variance: rate,
    };
    let baseline = Baseline {
        arrivals: usual,
        closes: usual,
        seconds: 3_600,
    };
    StormDetector::new(ListenerId(0), &StormSettings::default(), Some(baseline))
}

fn outage(outage: &Outage) -> Vec<Alert<ReconnectStorm>> {
    sim::storms(&sim::play(&mut engine(), &sim::wire(outage)))
}

/// The last pattern before the end, and all reported patterns.
fn patterns(storms: &[Alert<ReconnectStorm>]) -> (Pattern, Option<Duration>, Vec<Pattern>) {
    let last = storms
        .iter()
        .rfind(|storm| storm.subject.phase == StormPhase::Storm)
        .expect("a storm");
    let all = storms.iter().map(|storm| storm.subject.pattern).collect();
    // The report of the end is the most precise.
    let period = storms.last().and_then(|end| end.subject.period);
    (last.subject.pattern, period, all)
}

fn assert_period(period: Option<Duration>, seconds: f64, case: &Outage) {
    let period = period.expect("a period").as_secs_f64();
    assert!(
        (period / seconds - 1.0).abs() <= 0.05,
        "{period} s: {case:?}"
    );
}

/// Feeds arrivals at these moments, all accepted; connections live for up to twice `life` seconds.
fn feed(storm: &mut StormDetector, arrivals: impl Iterator<Item = f64>, life: f64) -> Vec<Alert> {
    let mut emitted = Vec::new();
    let mut random = Random(99);
    // The end, the start, the client.
    let mut open: BTreeSet<(Ktime, Ktime, usize)> = BTreeSet::new();
    for (n, seconds) in arrivals.enumerate() {
        let now = at(seconds);
        while let Some((end, begun, client)) = open.first().copied().filter(|next| next.0 <= now) {
            sim::run(storm, end, &mut emitted);
            let departure = Departure {
                by: Some(Direction::Rx),
                age: Some(end.since(begun)),
                ..sim::departure(end, address(client))
            };
            storm.departed(&departure, open.len() as u64);
            open.pop_first();
        }
        sim::run(storm, now, &mut emitted);
        let client = n % 5_000;
        storm.arrived(now, address(client));
        storm.settled(now, address(client), AttemptOutcome::Accepted);
        open.insert((at(seconds + life * 2.0 * random.uniform()), now, client));
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    emitted
}

/// The times of a Poisson process whose rate changes with time.
fn poisson(rate: impl Fn(f64) -> f64, most: f64, end: f64, seed: u64) -> impl Iterator<Item = f64> {
    let mut random = Random(seed);
    let mut now = 0.0;
    std::iter::from_fn(move || {
        loop {
            now += random.exponential(1.0 / most);
            if now > end {
                return None;
            }
            if random.uniform() * most < rate(now) {
                return Some(now);
            }
        }
    })
}
