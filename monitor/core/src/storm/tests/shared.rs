//! Many clients behind one address: a proxy, a NAT, a load balancer.

use super::*;

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// The findings about an address with `stay` lasting connections, from which another one leaves
/// after a second at each moment of `leave`.
fn behind_one_address(stay: u64, leave: impl IntoIterator<Item = f64>) -> Vec<Alert<Thrash>> {
    let mut storm = engine();
    let mut emitted = Vec::new();
    for n in 0..stay {
        let now = at(1.0 + n as f64 / 1_000.0);
        storm.arrived(now, PROXY);
        storm.settled(now, PROXY, AttemptOutcome::Accepted);
        storm.connect(now, PROXY);
    }
    for moment in leave {
        sim::run(&mut storm, at(moment), &mut emitted);
        storm.arrived(at(moment), PROXY);
        storm.settled(at(moment), PROXY, AttemptOutcome::Accepted);
        let slot = storm.connect(at(moment), PROXY);
        storm.disconnect(slot);
        let departure = Departure {
            age: Some(Duration::from_secs(1)),
            ..sim::departure(at(moment + 1.0), PROXY)
        };
        storm.departed(&departure, stay + 1);
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    sim::thrashes(&emitted)
}

/// `count` moments within 50 s.
fn moments(count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |n| 10.0 + 50.0 * n as f64 / count as f64)
}

#[test]
fn short_connections_are_compared_with_all_connections_of_the_address() {
    for (stay, leave, thrashes) in [
        (0, 4, false),
        (0, 5, true),
        (1, 6, true),
        (4, 5, true),
        (5, 5, false),
        (5, 6, true),
        (19, 30, true),
        (115, 5, false),
        (115, 100, false),
        (115, 300, true),
        (5_000, 5, false),
        (5_000, 1_000, false),
    ] {
        let reported = behind_one_address(stay, moments(leave));
        assert_eq!(
            !reported.is_empty(),
            thrashes,
            "{stay} stay, {leave} leave: {reported:?}"
        );
    }
}

#[test]
fn a_crowd_with_occasional_short_connections_never_thrashes() {
    for (stay, every) in [(2, 40.0), (10, 9.0), (120, 2.0), (5_000, 0.05)] {
        let leave = (0..3_000).map(|n| 10.0 + f64::from(n) * every);
        assert_eq!(behind_one_address(stay, leave), [], "{stay}");
    }
}

#[test]
fn an_address_with_many_connections_is_reported_as_shared() {
    for (stay, shared) in [(2, false), (18, false), (19, true), (115, true)] {
        let reported = behind_one_address(stay, moments(400));
        let first = reported.first().expect("most connections leave at once");
        let row = &first.subject.examples[0];
        assert_eq!(row.is_shared(), shared, "{row:?}");
        assert_eq!(
            first.reason.contains("a proxy, NAT or load balancer"),
            shared
        );
        assert_eq!(first.reason.contains("a client connects"), !shared);
        assert_eq!(
            row.interval.is_none(),
            shared,
            "only for one client: {row:?}"
        );
        assert_eq!(row.open, stay);
    }
}

#[test]
fn some_shared_addresses_among_clients_are_counted() {
    let mut storm = engine();
    let mut emitted = Vec::new();
    for n in 0..40 {
        storm.connect(at(1.0), address(n / 20));
    }
    for n in 0..1_000_usize {
        let now = at(10.0 + n as f64 / 50.0);
        sim::run(&mut storm, now, &mut emitted);
        storm.arrived(now, address(n % 4));
        let departure = Departure {
            age: Some(Duration::from_millis(100)),
            ..sim::departure(now, address(n % 4))
        };
        storm.departed(&departure, 50);
        emitted.extend(std::iter::from_fn(|| storm.poll_alert()));
    }
    let last = sim::thrashes(&emitted).pop().expect("all thrash").reason;
    assert!(last.starts_with("4 clients connect "), "{last}");
    assert!(
        last.contains("(2 of them are proxies, NATs or load balancers)"),
        "{last}"
    );
}

#[test]
fn attempts_per_minute_cover_one_minute_at_any_rate() {
    for (gap, least, most) in [
        (0.0, 120.0, 120.0),
        (0.05, 120.0, 120.0),
        (1.0, 59.0, 61.0),
        (6.0, 9.0, 11.0),
    ] {
        let mut storm = engine();
        for n in 0..120 {
            storm.arrived(at(5.0 + gap * f64::from(n)), PROXY);
        }
        let row = &storm.clients()[0];
        assert_eq!(row.attempts, 120);
        assert!(
            (least..=most).contains(&row.attempts_per_minute),
            "{gap}: {row:?}"
        );
    }
}
