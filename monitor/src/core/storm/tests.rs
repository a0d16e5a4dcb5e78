use std::{collections::BTreeSet, f64::consts::TAU};

use proptest::prelude::*;

use super::{
    sim::{KILLED, Outage, Policy, Random, Wire, address},
    *,
};

fn at(seconds: f64) -> Ktime {
    Ktime((seconds * 1e9) as u64)
}

fn engine() -> Storm {
    Storm::new(&StormSettings::default(), None)
}

/// An engine that has learned this rate.
fn used_to(rate: f64) -> Storm {
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
    Storm::new(&StormSettings::default(), Some(baseline))
}

fn outage(outage: &Outage) -> Vec<ReconnectStorm> {
    sim::storms(&sim::play(&mut engine(), &sim::wire(outage)))
}

/// The pattern that was named last before the end, and all that were named.
fn patterns(storms: &[ReconnectStorm]) -> (Pattern, Option<Duration>, Vec<Pattern>) {
    let last = storms
        .iter()
        .rfind(|storm| storm.phase == Phase::Storm)
        .expect("a storm");
    let all = storms.iter().map(|storm| storm.pattern).collect();
    // At the end the most is known.
    let period = storms.last().and_then(|end| end.period);
    (last.pattern, period, all)
}

/// A light and a heavily loaded machine: what a step costs the clients and the server.
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

fn assert_period(period: Option<Duration>, seconds: f64, case: &Outage) {
    let period = period.expect("a period").as_secs_f64();
    assert!(
        (period / seconds - 1.0).abs() <= 0.05,
        "{period} s: {case:?}"
    );
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
fn clients_that_back_off_without_jitter_are_told_with_their_first_delay_though_it_was_not_seen() {
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
fn other_ways_to_spread_attempts_are_not_called_rhythms() {
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
fn lockstep_is_seen_though_half_of_the_clients_have_jitter() {
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
fn a_killed_server_is_told_from_the_mass_close_to_the_end() {
    let case = Outage::of(2_000, Policy::Fixed(1.0));
    let storms = outage(&case);
    let [first, .., last] = storms.as_slice() else {
        panic!("{storms:?}");
    };
    assert_eq!((first.phase, first.firing), (Phase::MassClose, true));
    assert_eq!(
        (first.closes, first.cause),
        (2_000, Some(Cause::ServerRestart))
    );
    assert_eq!((last.phase, last.firing), (Phase::Over, false));
    assert_eq!(storms.iter().filter(|storm| !storm.firing).count(), 1);
    assert_eq!(last.successes, 2_000);
    let arrivals = sim::wire(&case)
        .iter()
        .filter(|(time, event)| *time > at(KILLED) && matches!(event, Wire::Arrived(_)))
        .count() as u64;
    assert_eq!(last.attempts, arrivals);
    assert_eq!(last.refused, [(Some(503), arrivals - 2_000)]);
    assert_eq!(last.returning_share, Some(1.0));
    assert!(last.peak_rate >= 1_900.0, "{}", last.peak_rate);
}

#[test]
fn a_storm_is_told_within_a_second_of_its_first_wave() {
    for policy in [
        Policy::Fixed(1.0),
        Policy::Backoff(1.0, 2.0),
        Policy::FullJitter(1.0, 2.0),
    ] {
        let case = Outage::of(2_000, policy);
        let wire = sim::wire(&case);
        let first = wire
            .iter()
            .find(|(time, event)| *time > at(KILLED) && matches!(event, Wire::Arrived(_)))
            .expect("an attempt");
        let storms = outage(&case);
        let told = storms.iter().find(|storm| storm.phase == Phase::Storm);
        let told = told.expect("a storm").at;
        assert!(told.since(first.0) <= Duration::from_secs(1), "{policy:?}");
    }
}

#[test]
fn the_reason_tells_what_was_seen_and_fits_the_advice_to_it() {
    let reason = |policy| {
        let storms = outage(&Outage::of(2_000, policy));
        let named = storms
            .into_iter()
            .rfind(|storm| storm.phase == Phase::Storm);
        named.expect("a storm").reason
    };
    let lockstep = reason(Policy::Fixed(1.0));
    assert!(
        lockstep.starts_with(
            "clients retry every 1.0 s without jitter after 2000 were lost when the server on this host \
             ended"
        ),
        "{lockstep}"
    );
    assert!(lockstep.contains("up to 50 % at random"), "{lockstep}");
    let jittered = reason(Policy::FullJitter(1.0, 2.0));
    assert!(!jittered.contains("at random"), "{jittered}");
    assert!(jittered.contains("429"), "{jittered}");
}

/// Feeds arrivals at these moments, all accepted; connections live for up to twice `life` seconds.
fn feed(storm: &mut Storm, arrivals: impl Iterator<Item = f64>, life: f64) -> Vec<StormFinding> {
    let mut said = Vec::new();
    let mut random = Random(99);
    // When, how old, whose.
    let mut open: BTreeSet<(Ktime, Ktime, usize)> = BTreeSet::new();
    for (n, seconds) in arrivals.enumerate() {
        let now = at(seconds);
        while let Some((end, begun, client)) = open.first().copied().filter(|next| next.0 <= now) {
            sim::run(storm, end, &mut said);
            let departure = Departure {
                by: Some(Direction::Rx),
                age: Some(end.since(begun)),
                ..sim::departure(end, address(client))
            };
            storm.departed(&departure, open.len() as u64);
            open.pop_first();
        }
        sim::run(storm, now, &mut said);
        let client = n % 5_000;
        storm.arrived(now, address(client));
        storm.settled(now, address(client), Outcome::Accepted);
        open.insert((at(seconds + life * 2.0 * random.uniform()), now, client));
        said.extend(std::iter::from_fn(|| storm.poll_finding()));
    }
    said
}

/// Moments of a Poisson process whose rate changes with time.
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
fn traffic_that_comes_in_bursts_by_nature_is_never_a_storm() {
    // Batches of 50 at moments of chance, and 200 within a third of a second each minute.
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
fn a_daily_swing_is_no_storm_and_neither_is_the_morning_after_a_quiet_night() {
    // A day in twenty minutes is steeper than any day.
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
fn the_first_seconds_of_a_daemon_are_learned_and_no_storm() {
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
fn clients_that_are_refused_for_half_a_minute_are_a_storm_also_if_nothing_else_is_known() {
    let mut storm = engine();
    let mut said = Vec::new();
    for n in 0..600 {
        let now = 5.0 + f64::from(n) / 10.0;
        sim::run(&mut storm, at(now), &mut said);
        storm.arrived(at(now), address(n as usize % 30));
        storm.settled(
            at(now),
            address(n as usize % 30),
            Outcome::Refused(Some(429)),
        );
        said.extend(std::iter::from_fn(|| storm.poll_finding()));
    }
    let storms = sim::storms(&said);
    let first = storms.first().expect("a storm");
    assert!((at(30.0)..at(40.0)).contains(&first.at), "{:?}", first.at);
    assert_eq!(first.refused, [(Some(429), first.attempts)]);
    assert!(first.returning_share.is_some_and(|share| share > 0.8));
    assert!(
        storms
            .iter()
            .any(|storm| storm.pattern == Pattern::Lockstep)
    );
}

#[test]
fn what_is_a_mass_close_depends_on_how_many_are_open() {
    for (open, closed, expected) in [
        (50, 50, true),
        (2_000, 50, false),
        (2_000, 150, true),
        (20, 20, false),
    ] {
        let mut storm = used_to(0.0);
        let mut said = Vec::new();
        for n in 0..closed {
            let departure = sim::departure(at(100.0 + n as f64 * 0.01), address(n));
            storm.departed(&departure, (open - n) as u64);
        }
        sim::run(&mut storm, at(300.0), &mut said);
        let storms = sim::storms(&said);
        let phases: Vec<Phase> = storms.iter().map(|storm| storm.phase).collect();
        let told = match expected {
            true => vec![Phase::MassClose, Phase::Over],
            false => vec![],
        };
        assert_eq!(phases, told, "{closed} of {open}");
        if let Some(first) = storms.first() {
            assert_eq!(first.closes, closed as u64);
        }
    }
}

#[test]
fn nothing_is_to_be_waited_for_while_nothing_is_wrong() {
    let mut storm = engine();
    assert_eq!(storm.poll_timeout(), None);
    feed(&mut storm, poisson(|_| 100.0, 100.0, 120.0, 8), 20.0);
    assert_eq!(storm.poll_timeout(), None);
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut before = engine();
    feed(&mut before, poisson(|_| 100.0, 100.0, 120.0, 9), 300.0);
    let kept = serde_json::to_string(&before.baseline()).expect("plain numbers");
    let kept: Baseline = serde_json::from_str(&kept).expect("what was written");
    assert_eq!(kept, before.baseline());
    let mut after = Storm::new(&StormSettings::default(), Some(kept));
    let steady = poisson(|_| 100.0, 100.0, 10.0, 10);
    assert_eq!(sim::storms(&feed(&mut after, steady, 300.0)), []);
    let flood = poisson(|_| 1_000.0, 1_000.0, 4.0, 11).map(|now| now + 10.0);
    assert!(!sim::storms(&feed(&mut after, flood, 300.0)).is_empty());
}

#[test]
fn a_baseline_that_nobody_learned_is_refused() {
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
        let storm = Storm::new(&StormSettings::default(), Some(baseline));
        assert_eq!(storm.baseline(), Baseline::default());
    }
    let storm = Storm::new(&StormSettings::default(), Some(good));
    assert_eq!(storm.baseline(), good);
}

#[test]
fn a_client_that_thrashes_is_told_and_a_thousand_are_one_line() {
    for clients in [1_usize, 1_000] {
        let mut storm = engine();
        let mut said = Vec::new();
        for n in 0..clients * 6 {
            let now = 10.0 + n as f64 * 40.0 / (clients * 6) as f64;
            let client = address(n % clients);
            sim::run(&mut storm, at(now), &mut said);
            storm.arrived(at(now), client);
            storm.settled(at(now), client, Outcome::Accepted);
            let departure = Departure {
                age: Some(Duration::from_secs(1)),
                ..sim::departure(at(now + 0.001), client)
            };
            storm.departed(&departure, 500);
            said.extend(std::iter::from_fn(|| storm.poll_finding()));
        }
        sim::run(&mut storm, at(300.0), &mut said);
        let told: Vec<&Thrash> = said
            .iter()
            .filter_map(|finding| match finding {
                StormFinding::Thrash(thrash) => Some(&**thrash),
                StormFinding::Reconnect(_) => None,
            })
            .collect();
        assert!(told.len() <= 4, "{told:?}");
        assert_eq!(
            told.iter().map(|thrash| thrash.clients).max(),
            Some(clients as u64)
        );
        let last = told.last().expect("the end");
        assert!(!last.firing);
        assert_eq!(storm.poll_timeout(), None);
    }
}

#[test]
fn an_event_that_comes_late_changes_nothing() {
    let case = Outage::of(500, Policy::Fixed(1.0));
    let mut wire = sim::wire(&case);
    let mut random = Random(5);
    // By up to 30 ms.
    wire.sort_by_cached_key(|(time, _)| time.0 + random.bits() % 30_000_000);
    let storms = sim::storms(&sim::play(&mut engine(), &wire));
    let (pattern, period, _) = patterns(&storms);
    assert_eq!(pattern, Pattern::Lockstep);
    assert_period(period, 1.0, &case);
    let last = storms.last().expect("an end");
    assert_eq!((last.phase, last.successes), (Phase::Over, 500));
}

/// How an event came.
#[derive(Clone, Debug)]
enum Input {
    Arrived(u8),
    Settled(u8, Option<u16>),
    Departed(u8, u8),
    Server(bool),
    Wait,
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => any::<u8>().prop_map(Input::Arrived),
        3 => (any::<u8>(), prop::option::of(200..600_u16)).prop_map(|(c, s)| Input::Settled(c, s)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(c, h)| Input::Departed(c, h)),
        1 => any::<bool>().prop_map(Input::Server),
        1 => Just(Input::Wait),
    ]
}

proptest! {
    /// Whatever comes, in whatever order: nothing breaks, and what begins ends.
    #[test]
    fn each_storm_ends_and_nothing_is_told_of_none(
        inputs in prop::collection::vec((input(), 0..40_000_000_u64, 1..60_usize), 0..200),
        start in prop_oneof![Just(0_u64), Just(u64::MAX / 2)],
        learned in any::<bool>(),
    ) {
        let mut storm = if learned { used_to(1.0) } else { engine() };
        let mut said = Vec::new();
        let mut now = start;
        for (input, step, times) in inputs {
            now = now.saturating_add(step);
            for n in 0..times as u64 {
                // A little out of order.
                let at = Ktime(now.saturating_sub(n * 1_000_000));
                match input {
                    Input::Arrived(client) => storm.arrived(at, address(client.into())),
                    Input::Settled(client, status) => {
                        let outcome = status.map_or(Outcome::Accepted, |s| Outcome::Refused(Some(s)));
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
                    Input::Server(gone) => storm.server(at, match gone {
                        true => ServerChange::Gone,
                        false => ServerChange::Listening,
                    }),
                    Input::Wait => now = now.saturating_add(step * 10),
                }
                sim::run(&mut storm, Ktime(now), &mut said);
            }
        }
        sim::run(&mut storm, Ktime::NEVER, &mut said);
        prop_assert!(!storm.is_storm());
        prop_assert_eq!(storm.poll_timeout(), None);
        let mut firing = false;
        for storm in sim::storms(&said) {
            prop_assert!(firing || storm.firing, "an end without a beginning");
            firing = storm.firing;
            prop_assert!(storm.examples.len() <= ReconnectStorm::EXAMPLES);
            prop_assert!(storm.refused.len() <= ReconnectStorm::STATUSES);
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
fn a_client_that_comes_back_is_counted_and_a_new_one_is_not() {
    let mut storm = engine();
    storm.arrived(at(1.0), address(1));
    assert_eq!(storm.reconnects(), 0);
    storm.settled(at(1.1), address(1), Outcome::Refused(Some(503)));
    storm.arrived(at(2.0), address(1));
    assert_eq!(storm.reconnects(), 1);
    storm.settled(at(2.1), address(1), Outcome::Accepted);
    storm.arrived(at(3.0), address(1));
    assert_eq!(storm.reconnects(), 1, "a second connection");
    storm.departed(&sim::departure(at(4.0), address(1)), 2);
    storm.departed(&sim::departure(at(4.0), address(1)), 1);
    storm.arrived(at(400.0), address(1));
    assert_eq!(storm.reconnects(), 1, "long after");
}

/// What it costs with a million addresses. Not a test of speed: it prints.
#[test]
#[ignore = "a measurement: run it with --release"]
fn the_cost_of_an_event_with_a_million_addresses() {
    let mut storm = engine();
    let mut random = Random(1);
    let clients: Vec<IpAddr> = (0..1_000_000)
        .map(|_| address(random.bits() as usize & 0xff_ffff))
        .collect();
    let mut worst = Duration::ZERO;
    for (round, pace) in [(0_u64, 100_000_u64), (1, 100_000), (2, 10_000)] {
        let begin = std::time::Instant::now();
        for (n, client) in clients.iter().enumerate() {
            let now = Ktime((round * 200 + 1) * 1_000_000_000 + n as u64 * pace);
            storm.arrived(now, *client);
            storm.settled(now, *client, Outcome::Refused(Some(429)));
            storm.departed(&sim::departure(now, *client), 1_000_000);
            while storm.poll_timeout().is_some_and(|due| due <= now) {
                let begin = std::time::Instant::now();
                storm.handle_timeout(now);
                worst = worst.max(begin.elapsed());
            }
            while storm.poll_finding().is_some() {}
        }
        let each = begin.elapsed() / 3_000_000;
        println!("round {round}: {each:?} for each event, the longest look {worst:?}");
    }
    println!("{} bytes", storm.bytes());
}
