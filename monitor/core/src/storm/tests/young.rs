//! An engine that has not learned anything yet.

use super::*;

/// The findings if `known` connections are known from 1 s on, all or none of them `older` than the
/// engine, and `lost` of them end at `killed` within a tenth of a second.
fn lost_after(known: usize, older: bool, lost: usize, killed: f64) -> Vec<Alert<ReconnectStorm>> {
    let mut storm = engine();
    let mut emitted = Vec::new();
    let mut slots = Vec::new();
    for n in 0..known {
        if !older {
            storm.arrived(at(1.0), address(n));
            storm.settled(at(1.0), address(n), AttemptOutcome::Accepted);
        }
        slots.push(storm.connect(at(1.0), address(n)));
    }
    for n in 0..lost {
        let now = at(killed + 0.1 * n as f64 / lost as f64);
        sim::run(&mut storm, now, &mut emitted);
        storm.disconnect(slots.remove(0));
        let departure = Departure {
            age: (!older).then(|| now.since(at(1.0))),
            ..sim::departure(now, address(n))
        };
        storm.departed(&departure, (known - n) as u64);
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    sim::run(&mut storm, at(killed + 5.0), &mut emitted);
    sim::storms(&emitted)
}

#[test]
fn a_mass_close_of_known_connections_needs_no_baseline() {
    for older in [true, false] {
        for (known, lost, killed) in [
            (45, 45, 8.0),
            (45, 45, 7.0),
            (21, 21, 9.0),
            (45, 22, 8.0),
            (100, 30, 8.0),
            (500, 30, 20.0),
            (5_000, 5_000, 8.0),
            (2_000, 200, 30.0),
            (45, 45, 59.0),
            (45, 45, 300.0),
        ] {
            let reported = lost_after(known, older, lost, killed);
            let case = format!("{lost} of {known} at {killed} s, older: {older}");
            let [close] = &reported[..] else {
                panic!("{case}: {reported:?}");
            };
            assert_eq!(
                (close.subject.phase, close.subject.closes),
                (StormPhase::MassClose, lost as u64),
                "{case}"
            );
            assert!(close.at <= at(killed + 1.3), "{case}: {close:?}");
        }
    }
}

#[test]
fn neither_few_of_many_nor_few_at_all_are_a_mass_close() {
    for (known, lost) in [(45, 20), (20, 20), (5_000, 249), (1_000, 50)] {
        for older in [true, false] {
            assert_eq!(lost_after(known, older, lost, 8.0), [], "{lost} of {known}");
        }
    }
}

#[test]
fn connections_that_come_and_go_from_the_start_are_not_a_mass_close() {
    for (rate, life, seed) in [
        (5.0, 10.0, 1),
        (20.0, 8.0, 2),
        (50.0, 10.0, 3),
        (200.0, 7.0, 4),
        (300.0, 0.5, 5),
    ] {
        let mut storm = engine();
        let arrivals = poisson(|_| rate, rate, 60.0, seed);
        let emitted = feed(&mut storm, arrivals, life);
        assert_eq!(sim::storms(&emitted), [], "{rate}/s, {life} s");
    }
}

#[test]
fn short_requests_of_a_page_are_not_a_mass_close_in_the_first_minute() {
    let mut storm = engine();
    let mut emitted = Vec::new();
    for n in 0..60 {
        let (begun, end) = (20.0 + n as f64 / 100.0, 21.0 + n as f64 / 100.0);
        storm.arrived(at(begun), address(n));
        storm.settled(at(begun), address(n), AttemptOutcome::Accepted);
        let departure = Departure {
            age: Some(Duration::from_secs(1)),
            ..sim::departure(at(end), address(n))
        };
        // Some others stay.
        storm.departed(&departure, 200 - n as u64);
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    assert_eq!(sim::storms(&emitted), []);
}
