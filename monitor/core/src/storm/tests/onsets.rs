//! What counts as a storm and what does not.

use std::f64::consts::TAU;

use super::{super::sim::address, *};

const HALF_AN_HOUR: f64 = 1_800.0;

#[test]
fn a_steady_rate_is_never_a_storm() {
    let even = (0..180_000).map(|n| f64::from(n) / 100.0);
    assert_eq!(sim::storms(&feed(&mut engine(), even, 20.0)), []);
    let by_chance = poisson(|_| 100.0, 100.0, HALF_AN_HOUR, 1);
    assert_eq!(sim::storms(&feed(&mut engine(), by_chance, 20.0)), []);
    let short = poisson(|_| 100.0, 100.0, 300.0, 2);
    assert_eq!(sim::storms(&feed(&mut engine(), short, 0.5)), []);
}

#[test]
fn naturally_bursty_traffic_is_never_a_storm() {
    // Batches of 50 at random moments, and 200 within a third of a second every minute.
    let batches = poisson(|_| 0.3, 0.3, HALF_AN_HOUR, 3)
        .flat_map(|batch| (0..50).map(move |n| batch + f64::from(n) * 0.000_1));
    let mut batches: Vec<f64> = batches.collect();
    batches.sort_by(f64::total_cmp);
    assert_eq!(
        sim::storms(&feed(&mut engine(), batches.into_iter(), 60.0)),
        []
    );
    let minutes = (0..30).flat_map(|minute| {
        let begin = f64::from(minute) * 59.9;
        (0..200).map(move |n| begin + f64::from(n) * 0.001_6)
    });
    assert_eq!(sim::storms(&feed(&mut engine(), minutes, 300.0)), []);
}

#[test]
fn neither_a_daily_swing_nor_the_morning_after_a_quiet_night_is_a_storm() {
    // A day in twenty minutes is steeper than any real day.
    let swing = poisson(
        |now| 155.0 - 145.0 * (now / 1_200.0 * TAU).cos(),
        300.0,
        1_200.0,
        4,
    );
    assert_eq!(sim::storms(&feed(&mut engine(), swing, 30.0)), []);
    let mut storm = used_to(100.0);
    // Nothing at all for nine hours, then 0 to 100/s within ten minutes.
    let morning = poisson(|now| (now / 6.0).min(100.0), 100.0, 900.0, 5);
    let morning = std::iter::once(0.0).chain(morning.map(|now| now + 9.0 * 3_600.0));
    assert_eq!(sim::storms(&feed(&mut storm, morning, 30.0)), []);
    assert!(
        storm.baseline().arrivals.slow > 40.0,
        "{:?}",
        storm.baseline()
    );
}

#[test]
fn the_first_seconds_of_a_daemon_are_learned_and_are_not_a_storm() {
    let busy = poisson(|_| 1_000.0, 1_000.0, 70.0, 6).map(|now| now + 1_000.0);
    let mut storm = engine();
    assert_eq!(sim::storms(&feed(&mut storm, busy, 300.0)), []);
    let learned = storm.baseline().arrivals.fast;
    assert!((900.0..1_100.0).contains(&learned), "{learned}");
}

#[test]
fn five_times_the_usual_rate_for_two_seconds_is_a_storm() {
    for (storm, rate, expected) in [
        (used_to(100.0), 1_000.0, true),
        (used_to(100.0), 300.0, false),
        (used_to(0.0), 60.0, true),
        (used_to(0.0), 10.0, false),
    ] {
        let mut storm = storm;
        let flood = poisson(|_| rate, rate, 6.0, 7).map(|now| now + 100.3);
        let storms = sim::storms(&feed(&mut storm, flood, 300.0));
        assert_eq!(!storms.is_empty(), expected, "{rate}");
        if let Some(first) = storms.first() {
            assert!(first.at <= at(102.3), "{:?}", first.at);
            assert_eq!(first.since.since(at(100.0)).as_secs(), 0);
        }
    }
}

#[test]
fn half_a_minute_of_refusals_is_a_storm_even_if_nothing_else_is_known() {
    let mut storm = engine();
    let mut emitted = Vec::new();
    for n in 0..600 {
        let now = 5.0 + f64::from(n) / 10.0;
        sim::run(&mut storm, at(now), &mut emitted);
        storm.arrived(at(now), address(n as usize % 30));
        storm.settled(
            at(now),
            address(n as usize % 30),
            AttemptOutcome::Refused(Some(429)),
        );
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    let storms = sim::storms(&emitted);
    let first = storms.first().expect("a storm");
    assert!((at(30.0)..at(40.0)).contains(&first.at), "{:?}", first.at);
    assert_eq!(first.subject.refused, [(Some(429), first.subject.attempts)]);
    assert!(
        first
            .subject
            .returning_share
            .is_some_and(|share| share > 0.8)
    );
    assert!(
        storms
            .iter()
            .any(|storm| storm.subject.pattern == Pattern::Lockstep)
    );
}

#[test]
fn the_threshold_of_a_mass_close_depends_on_the_open_connections() {
    for (open, closed, expected) in [
        (50, 50, true),
        (2_000, 50, false),
        (2_000, 150, true),
        (20, 20, false),
    ] {
        let mut storm = used_to(0.0);
        let mut emitted = Vec::new();
        for n in 0..closed {
            let departure = sim::departure(at(100.0 + n as f64 * 0.01), address(n));
            storm.departed(&departure, (open - n) as u64);
        }
        sim::run(&mut storm, at(300.0), &mut emitted);
        let storms = sim::storms(&emitted);
        let phases: Vec<StormPhase> = storms.iter().map(|storm| storm.subject.phase).collect();
        let reported = match expected {
            true => vec![StormPhase::MassClose, StormPhase::Over],
            false => vec![],
        };
        assert_eq!(phases, reported, "{closed} of {open}");
        if let Some(first) = storms.first() {
            assert_eq!(first.subject.closes, closed as u64);
        }
    }
}

#[test]
fn there_is_no_timeout_while_nothing_is_wrong() {
    let mut storm = engine();
    assert_eq!(storm.poll_timeout(), None);
    feed(&mut storm, poisson(|_| 100.0, 100.0, 120.0, 8), 20.0);
    assert_eq!(storm.poll_timeout(), None);
}
