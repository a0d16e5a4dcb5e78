//! Warnings about live connections: at risk, about to expire, or quiet.

use super::*;

#[test]
fn a_hop_that_closes_is_announced_when_a_twentieth_of_its_limit_is_left() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(6_000);
    assert_eq!(bench.emitted, [(5_960, FIRING, Expiring, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "idle 5.9 s; lb closes connections after 6 s of silence: expect a disconnect, not a zombie"
    );
    facts.fin_rx = true;
    facts.at = ms(6_040);
    bench.event(Event::Closing(Box::new(facts.clone())));
    assert_eq!(bench.emitted.len(), 1, "the FIN was announced");
    bench.closed(CloseHow::Fin, 6_050, &facts);
    let closed = Status::Resolved(AlertResolution::Closed(CloseHow::Fin));
    assert_eq!(bench.emitted[1..], [(6_050, closed, Expiring, Suspected)]);
    assert_eq!(bench.tally().detected(Expiring), 1);
}

#[test]
fn a_message_in_time_ends_the_announcement() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(5_970);
    facts.rx.last_packet = Some(ms(5_980));
    bench.snapshot = Some(facts);
    bench.until(11_000);
    assert_eq!(
        bench.emitted[1..],
        [(6_960, RECOVERED, Expiring, Suspected)]
    );
}

#[test]
fn the_reported_silence_is_what_the_hop_counts() {
    use Activity::{Packet, Payload};
    use Directions::{Each, Either};
    // What the hop counts; the last packet and the last payload of each side; the report 95 s after the
    // last activity that counts, on a limit of 100 s.
    for (activity, direction, rx, tx, reported) in [
        (
            Packet,
            Either,
            (5_000, 1_000),
            (3_000, 1_000),
            "idle 95.2 s",
        ),
        (
            Payload,
            Either,
            (90_000, 5_000),
            (94_000, 1_000),
            "without payload for 95.2 s",
        ),
        (
            Payload,
            Either,
            (90_000, 1_000),
            (94_000, 5_000),
            "without payload for 95.2 s",
        ),
        (
            Packet,
            Each,
            (5_000, 5_000),
            (94_000, 94_000),
            "idle 95.2 s",
        ),
        (
            Payload,
            Each,
            (94_000, 94_000),
            (90_000, 5_000),
            "without payload for 95.2 s",
        ),
    ] {
        let hop = Hop {
            activity,
            direction,
            ..Hop::new("lb", Duration::from_secs(100), OnExpiry::Fin)
        };
        let mut bench = Bench::under(ListenerRules::new("web", Some(hop)));
        let mut facts = Facts::just_opened(1, ms(0));
        bench.event(Event::Opened(Box::new(facts.clone())));
        for (side, (packet, payload)) in [(&mut facts.rx, rx), (&mut facts.tx, tx)] {
            side.last_packet = Some(ms(packet));
            side.last_payload = Some(ms(payload));
        }
        bench.snapshot = Some(facts);
        bench.until(101_000);
        assert_eq!(bench.emitted.len(), 1, "{reported}: {:?}", bench.emitted);
        let sentence = format!("{reported}; lb closes connections after 100 s of silence");
        let reason = &bench.reasons[0];
        assert!(reason.starts_with(&sentence), "{reason}, not {sentence}");
    }
}

#[test]
fn the_end_of_the_maximum_lifetime_is_announced_on_a_busy_connection_too() {
    let hop = Hop {
        idle_timeout: None,
        max_lifetime: Some(Duration::from_secs(100)),
        ..Hop::new("gateway", Duration::from_secs(1), OnExpiry::Fin)
    };
    let mut bench = Bench::under(ListenerRules::new("web", Some(hop)));
    let mut facts = Facts::just_opened(1, ms(0));
    bench.event(Event::Opened(Box::new(facts.clone())));
    facts.rx.last_packet = Some(ms(94_999));
    bench.snapshot = Some(facts);
    bench.until(100_000);
    assert_eq!(bench.emitted, [(95_000, FIRING, Expiring, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "95 s old; gateway closes connections after 100 s: expect a disconnect, busy or not"
    );
}

#[test]
fn a_peer_without_messages_is_quiet_despite_control_frames() {
    let mut bench = Bench::under(ListenerRules {
        message_gap: Some(Duration::from_secs(35)),
        ..ListenerRules::new("web", None)
    });
    let mut facts = Facts::just_opened(1, ms(0));
    facts.opened_at = Some(ms(10));
    facts.rx.last_message = Some(ms(1_000));
    bench.event(Event::Opened(Box::new(facts.clone())));
    facts.rx.last_packet = Some(ms(36_000));
    bench.snapshot = Some(facts.clone());
    bench.until(36_259);
    assert_eq!(bench.emitted, []);
    bench.until(36_261);
    assert_eq!(bench.emitted, [(36_260, FIRING, Quiet, Suspected)]);
    facts.rx.last_message = Some(ms(36_500));
    bench.snapshot = Some(facts);
    bench.until(39_000);
    assert_eq!(bench.emitted[1].1, RECOVERED);
}

#[test]
fn a_zombie_verdict_replaces_a_warning() {
    let mut bench = Bench::under(ListenerRules {
        message_gap: Some(Duration::from_secs(3)),
        ..ListenerRules::new(
            "web",
            Some(Hop::new("lb", Duration::from_secs(6), OnExpiry::Silent)),
        )
    });
    let facts = Facts::just_opened(1, ms(0));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(7_000);
    assert_eq!(
        bench.emitted,
        [
            (3_260, FIRING, Quiet, Suspected),
            (6_260, SUPERSEDED, Quiet, Suspected),
            (6_260, FIRING, Expired, Suspected),
        ]
    );
}

#[test]
fn the_at_risk_gauge_rises_at_four_fifths_and_falls_with_activity() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    bench.until(4_799);
    assert_eq!(bench.tally().at_risk, 0);
    bench.until(4_800);
    assert_eq!(bench.tally().at_risk, 1);
    facts.rx.last_packet = Some(ms(4_900));
    bench.snapshot = Some(facts);
    bench.until(5_800);
    assert_eq!(bench.tally().at_risk, 0);
}
