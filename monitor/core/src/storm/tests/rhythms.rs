//! The rhythms in which clients come back.

use super::{
    super::sim::{Outage, Policy, Random},
    *,
};

/// Lightly and heavily loaded machines: the cost of a step for the clients and for the server.
const COSTS: [(f64, f64); 3] = [
    (0.000_02, 0.000_05),
    (0.000_05, 0.000_4),
    (0.000_1, 0.000_3),
];

fn each_outage(policy: Policy) -> impl Iterator<Item = Outage> {
    let seeds = (1..=2).flat_map(|seed| [false, true].map(|shared| (seed, shared)));
    seeds.flat_map(move |(seed, shared)| {
        COSTS.map(|(client_cost, server_cost)| Outage {
            seed,
            shared,
            client_cost,
            server_cost,
            late: 0.005,
            stall: 0.05,
            ..Outage::of(2_000, policy)
        })
    })
}

#[test]
fn clients_that_retry_at_a_fixed_interval_are_in_lockstep() {
    for policy in [Policy::Fixed(1.0), Policy::Ticking(1.0)] {
        for case in each_outage(policy) {
            let (pattern, period, all) = patterns(&outage(&case));
            assert_eq!(pattern, Pattern::Lockstep, "{case:?}");
            assert_period(period, 1.0, &case);
            assert!(!all.contains(&Pattern::Backoff), "{case:?}");
        }
    }
}

#[test]
fn a_backoff_without_jitter_is_reported_with_its_first_delay_even_if_that_was_not_seen() {
    for case in each_outage(Policy::Backoff(1.0, 2.0)) {
        let (pattern, period, all) = patterns(&outage(&case));
        assert_eq!(pattern, Pattern::Backoff, "{case:?}");
        assert_period(period, 1.0, &case);
        assert!(!all.contains(&Pattern::Lockstep), "{case:?}");
    }
}

#[test]
fn full_jitter_is_neither_lockstep_nor_backoff() {
    for case in each_outage(Policy::FullJitter(1.0, 2.0)) {
        let (pattern, period, all) = patterns(&outage(&case));
        assert_eq!((pattern, period), (Pattern::Jittered, None), "{case:?}");
        assert!(!all.contains(&Pattern::Lockstep), "{case:?}");
        assert!(!all.contains(&Pattern::Backoff), "{case:?}");
    }
}

#[test]
fn other_ways_to_spread_attempts_are_not_reported_as_rhythms() {
    let policies = [
        Policy::FullJitter(1.0, 1.0),
        Policy::EqualJitter(1.0, 2.0),
        Policy::EqualJitter(1.0, 1.0),
        Policy::HalfMore(1.0, 2.0),
        Policy::HalfMore(1.0, 1.0),
    ];
    for policy in policies {
        for shared in [false, true] {
            let case = Outage {
                shared,
                late: 0.005,
                ..Outage::of(2_000, policy)
            };
            let (.., all) = patterns(&outage(&case));
            assert!(!all.contains(&Pattern::Lockstep), "{case:?}");
            assert!(!all.contains(&Pattern::Backoff), "{case:?}");
        }
    }
}

#[test]
fn intervals_and_factors_of_all_kinds_are_recognised() {
    let cases = [
        (Policy::Fixed(0.5), 2_000, Pattern::Lockstep, 0.5),
        (Policy::Fixed(3.0), 60, Pattern::Lockstep, 3.0),
        (Policy::Fixed(5.0), 2_000, Pattern::Lockstep, 5.0),
        (Policy::Ticking(2.0), 300, Pattern::Lockstep, 2.0),
        (Policy::Backoff(0.5, 2.0), 2_000, Pattern::Backoff, 0.5),
        (Policy::Backoff(1.0, 1.5), 2_000, Pattern::Backoff, 1.0),
        (Policy::Backoff(1.0, 3.0), 2_000, Pattern::Backoff, 1.0),
    ];
    for (policy, clients, expected, seconds) in cases {
        for shared in [false, true] {
            let case = Outage {
                shared,
                ..Outage::of(clients, policy)
            };
            let (pattern, period, _) = patterns(&outage(&case));
            assert_eq!(pattern, expected, "{case:?}");
            assert_period(period, seconds, &case);
        }
    }
}

#[test]
fn an_interval_of_30_s_is_found_in_a_long_outage() {
    let case = Outage {
        warm: 100.0,
        ..Outage::of(500, Policy::Fixed(30.0))
    };
    let (pattern, period, _) = patterns(&outage(&case));
    assert_eq!(pattern, Pattern::Lockstep);
    assert_period(period, 30.0, &case);
}

#[test]
fn lockstep_is_recognised_even_if_half_of_the_clients_have_jitter() {
    for shared in [false, true] {
        let case = Outage {
            clients: vec![
                (1_000, Policy::Fixed(1.0)),
                (1_000, Policy::FullJitter(1.0, 2.0)),
            ],
            shared,
            ..Outage::of(0, Policy::Fixed(1.0))
        };
        let (pattern, period, _) = patterns(&outage(&case));
        assert_eq!(pattern, Pattern::Lockstep, "{case:?}");
        assert_period(period, 1.0, &case);
    }
}

#[test]
fn late_events_change_nothing() {
    let case = Outage::of(500, Policy::Fixed(1.0));
    let mut wire = sim::wire(&case);
    let mut random = Random(5);
    // Delayed by up to 30 ms.
    wire.sort_by_cached_key(|(time, _)| time.0 + random.bits() % 30_000_000);
    let storms = sim::storms(&sim::play(&mut engine(), &wire));
    let (pattern, period, _) = patterns(&storms);
    assert_eq!(pattern, Pattern::Lockstep);
    assert_period(period, 1.0, &case);
    let last = storms.last().expect("an end");
    assert_eq!(
        (last.subject.phase, last.subject.successes),
        (StormPhase::Over, 500)
    );
}
