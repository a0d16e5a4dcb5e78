//! Properties of the engine for any input.

use proptest::prelude::*;

use super::{super::sim::address, *};
use crate::event::CloseHow;

#[test]
fn a_baseline_survives_a_restart() {
    let mut before = engine();
    feed(&mut before, poisson(|_| 100.0, 100.0, 120.0, 9), 300.0);
    let kept = serde_json::to_string(&before.baseline()).expect("plain numbers");
    let kept: Baseline = serde_json::from_str(&kept).expect("what was written");
    assert_eq!(kept, before.baseline());
    let mut after = StormDetector::new(ListenerId(0), &StormSettings::default(), Some(kept));
    let steady = poisson(|_| 100.0, 100.0, 10.0, 10);
    assert_eq!(sim::storms(&feed(&mut after, steady, 300.0)), []);
    let flood = poisson(|_| 1_000.0, 1_000.0, 4.0, 11).map(|now| now + 10.0);
    assert!(!sim::storms(&feed(&mut after, flood, 300.0)).is_empty());
}

#[test]
fn an_implausible_baseline_is_refused() {
    let good = Baseline {
        arrivals: Usual {
            fast: 5.0,
            slow: 5.0,
            variance: 5.0,
        },
        closes: Usual::default(),
        seconds: 600,
    };
    for bad in [f64::NAN, f64::INFINITY, -1.0, 1e12] {
        let mut baseline = good;
        baseline.arrivals.fast = bad;
        assert!(!baseline.is_plausible(), "{bad}");
        let storm = StormDetector::new(ListenerId(0), &StormSettings::default(), Some(baseline));
        assert_eq!(storm.baseline(), Baseline::default());
    }
    let storm = StormDetector::new(ListenerId(0), &StormSettings::default(), Some(good));
    assert_eq!(storm.baseline(), good);
}

#[test]
fn a_thrashing_client_is_reported_and_a_thousand_share_one_line() {
    for clients in [1_usize, 1_000] {
        let mut storm = engine();
        let mut emitted = Vec::new();
        let mut most = 0;
        for n in 0..clients * 6 {
            let now = 10.0 + n as f64 * 40.0 / (clients * 6) as f64;
            let client = address(n % clients);
            sim::run(&mut storm, at(now), &mut emitted);
            storm.arrived(at(now), client);
            storm.settled(at(now), client, AttemptOutcome::Accepted);
            let departure = Departure {
                age: Some(Duration::from_secs(1)),
                ..sim::departure(at(now + 0.001), client)
            };
            storm.departed(&departure, 500);
            emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
            most = most.max(storm.thrashing_clients());
        }
        // Not all of a thousand had thrashed at the last evaluation.
        assert!(
            (clients as u64).div_ceil(2) <= most && most <= clients as u64,
            "{most}"
        );
        sim::run(&mut storm, at(80.0), &mut emitted);
        assert_eq!(storm.thrashing_clients(), clients as u64);
        sim::run(&mut storm, at(300.0), &mut emitted);
        assert_eq!(storm.thrashing_clients(), 0);
        let reported = sim::thrashes(&emitted);
        assert!(reported.len() <= 4, "{reported:?}");
        assert_eq!(
            reported.iter().map(|thrash| thrash.subject.clients).max(),
            Some(clients as u64)
        );
        let last = reported.last().expect("the end");
        assert!(!last.is_firing());
        assert_eq!(storm.poll_timeout(), None);
    }
}

/// An input event.
#[derive(Clone, Debug)]
enum Input {
    Arrived(u8),
    Settled(u8, Option<u16>),
    Departed(u8, u8),
    ServerGone,
    Wait,
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => any::<u8>().prop_map(Input::Arrived),
        3 => (any::<u8>(), prop::option::of(200..600_u16)).prop_map(|(c, s)| Input::Settled(c, s)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(c, h)| Input::Departed(c, h)),
        1 => Just(Input::ServerGone),
        1 => Just(Input::Wait),
    ]
}

proptest! {
    /// For any input in any order: nothing breaks, and every storm ends.
    #[test]
    fn each_storm_ends_and_no_end_comes_without_a_beginning(
        inputs in prop::collection::vec((input(), 0..40_000_000_u64, 1..60_usize), 0..200),
        start in prop_oneof![Just(0_u64), Just(u64::MAX / 2)],
        learned in any::<bool>(),
    ) {
        let mut storm = if learned { used_to(1.0) } else { engine() };
        let mut emitted = Vec::new();
        let mut now = start;
        for (input, step, times) in inputs {
            now = now.saturating_add(step);
            for n in 0..times as u64 {
                // Slightly out of order.
                let at = Ktime(now.saturating_sub(n * 1_000_000));
                match input {
                    Input::Arrived(client) => storm.arrived(at, address(client.into())),
                    Input::Settled(client, status) => {
                        let outcome = status.map_or(AttemptOutcome::Accepted, |s| AttemptOutcome::Refused(Some(s)));
                        storm.settled(at, address(client.into()), outcome);
                    }
                    Input::Departed(client, how) => {
                        let departure = Departure {
                            how: CloseHow::ALL[usize::from(how) % 6],
                            by: [None, Some(Direction::Rx), Some(Direction::Tx)][usize::from(how) % 3],
                            idle: Duration::from_secs(how.into()),
                            age: (how > 100).then(|| Duration::from_secs(how.into())),
                            unacked: how % 7 == 0,
                            ..sim::departure(at, address(client.into()))
                        };
                        storm.departed(&departure, 60 - n.min(60));
                    }
                    Input::ServerGone => storm.server_gone(at),
                    Input::Wait => now = now.saturating_add(step * 10),
                }
                sim::run(&mut storm, Ktime(now), &mut emitted);
            }
        }
        sim::run(&mut storm, Ktime::NEVER, &mut emitted);
        prop_assert!(!storm.is_storm());
        prop_assert_eq!(storm.poll_timeout(), None);
        let mut firing = false;
        for storm in sim::storms(&emitted) {
            prop_assert!(firing || storm.is_firing(), "an end without a beginning");
            firing = storm.is_firing();
            prop_assert!(storm.subject.examples.len() <= ReconnectStorm::EXAMPLES);
            prop_assert!(storm.subject.refused.len() <= ReconnectStorm::STATUSES);
            prop_assert!(!storm.reason.is_empty());
        }
        prop_assert!(!firing, "a storm that does not end");
    }
}

#[test]
fn a_million_addresses_take_no_more_memory_than_a_few_thousand() {
    let mut storm = engine();
    let mut bytes = 0;
    for n in 0..1_000_000 {
        let now = Ktime(1_000_000_000 + n as u64 * 10_000);
        storm.arrived(now, address(n));
        if n == 10_000 {
            bytes = storm.bytes();
        }
    }
    assert!(storm.bytes() <= bytes && bytes <= 1_000_000, "{bytes}");
    assert_eq!(storm.clients().len(), 1_024);
}

#[test]
fn a_returning_client_is_counted_and_a_new_one_is_not() {
    let mut storm = engine();
    storm.arrived(at(1.0), address(1));
    assert_eq!(storm.reconnects(), 0);
    storm.settled(at(1.1), address(1), AttemptOutcome::Refused(Some(503)));
    storm.arrived(at(2.0), address(1));
    assert_eq!(storm.reconnects(), 1);
    storm.settled(at(2.1), address(1), AttemptOutcome::Accepted);
    storm.arrived(at(3.0), address(1));
    assert_eq!(storm.reconnects(), 1, "a second connection");
    storm.departed(&sim::departure(at(4.0), address(1)), 2);
    storm.departed(&sim::departure(at(4.0), address(1)), 1);
    storm.arrived(at(400.0), address(1));
    assert_eq!(storm.reconnects(), 1, "long after");
}
