//! The reports about a storm, from its start to its end.

use super::{
    super::sim::{KILLED, Outage, Policy, Wire},
    *,
};

#[test]
fn a_killed_server_is_reported_from_the_mass_close_to_the_end() {
    let case = Outage::of(2_000, Policy::Fixed(1.0));
    let storms = outage(&case);
    let [first, .., last] = storms.as_slice() else {
        panic!("{storms:?}");
    };
    assert_eq!(
        (first.subject.phase, first.is_firing()),
        (StormPhase::MassClose, true)
    );
    assert_eq!(
        (first.subject.closes, first.subject.cause),
        (2_000, Some(Cause::ServerRestart))
    );
    assert_eq!(
        (last.subject.phase, last.is_firing()),
        (StormPhase::Over, false)
    );
    assert_eq!(storms.iter().filter(|storm| !storm.is_firing()).count(), 1);
    assert_eq!(last.subject.successes, 2_000);
    let arrivals = sim::wire(&case)
        .iter()
        .filter(|(time, event)| *time > at(KILLED) && matches!(event, Wire::Arrived(_)))
        .count() as u64;
    assert_eq!(last.subject.attempts, arrivals);
    assert_eq!(last.subject.refused, [(Some(503), arrivals - 2_000)]);
    assert_eq!(last.subject.returning_share, Some(1.0));
    assert!(
        last.subject.peak_rate >= 1_900.0,
        "{}",
        last.subject.peak_rate
    );
}

#[test]
fn a_storm_is_reported_within_a_second_of_its_first_wave() {
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
        let reported = storms
            .iter()
            .find(|storm| storm.subject.phase == StormPhase::Storm);
        let reported = reported.expect("a storm").at;
        assert!(
            reported.since(first.0) <= Duration::from_secs(1),
            "{policy:?}"
        );
    }
}

#[test]
fn the_reason_describes_the_storm_and_its_advice_matches() {
    let reason = |policy| {
        let storms = outage(&Outage::of(2_000, policy));
        let named = storms
            .into_iter()
            .rfind(|storm| storm.subject.phase == StormPhase::Storm);
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
