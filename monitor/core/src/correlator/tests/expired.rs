//! Connections that a hop has forgotten.

use super::*;

#[test]
fn an_idle_flow_is_suspected_when_the_limit_has_certainly_passed() {
    let (mut bench, _) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(6_260);
    assert_eq!(bench.emitted, []);
    bench.until(6_261);
    assert_eq!(bench.emitted, [(6_260, FIRING, Expired, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "idle 6.2 s on a path that forgets after 6 s (lb): no FIN, no RST; \
         the application still thinks it is open"
    );
    assert_eq!(
        bench.core.poll_timeout(),
        None,
        "nothing sent, so only an event can change the verdict"
    );
}

#[test]
fn an_acknowledgement_that_was_never_published_does_not_hide_an_expired_flow() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    send(&mut facts, 1_000);
    bench.snapshot = Some(facts);
    bench.until(7_261);
    assert_eq!(bench.emitted, [(7_260, FIRING, Expired, Suspected)]);
}

#[test]
fn a_hop_that_closes_connections_leaves_no_zombie() {
    for hop in [None, Some(OnExpiry::Fin), Some(OnExpiry::Rst)] {
        let (mut bench, _) = Bench::opened(hop);
        bench.until(60_000);
        assert_eq!(bench.tally().detected.map(|n| n.iter().any(|n| *n > 0)), {
            let mut detected = [false; VerdictKind::ALL.len()];
            detected[Expiring as usize] = hop.is_some();
            detected
        });
        assert_eq!(bench.tally().at_risk, 0);
        assert_eq!(bench.core.poll_timeout(), None);
    }
}

#[test]
fn the_alert_names_the_hop_that_forgets_first() {
    let hop = |name: &str, seconds| Hop::new(name, Duration::from_secs(seconds), OnExpiry::Silent);
    let mut payload = hop("proxy", 5);
    payload.activity = Activity::Payload;
    let rules = ListenerRules {
        path: Path {
            hops: vec![hop("nat", 9), payload],
        },
        ..ListenerRules::new("web", None)
    };
    let mut bench = Bench::under(rules);
    let mut facts = Facts::just_opened(1, ms(0));
    facts.rx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(4_000));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(6_261);
    assert_eq!(bench.emitted, [(6_260, FIRING, Expired, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "without payload for 5.2 s on a path that forgets after 5 s (proxy): no FIN, no RST; the application still \
         thinks it is open"
    );
}

#[test]
fn a_hop_that_passes_packets_after_its_limit_makes_no_zombie() {
    let mut hop = Hop::new("proxy", Duration::from_secs(5), OnExpiry::Silent);
    hop.activity = Activity::Payload;
    let mut bench = Bench::under(ListenerRules::new("web", Some(hop)));
    let mut facts = Facts::just_opened(1, ms(0));
    facts.rx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(6_100));
    bench.event(Event::Opened(Box::new(facts)));
    bench.until(60_000);
    assert_eq!(bench.emitted, []);
}

#[test]
fn a_send_after_the_limit_is_suspected_at_once_and_confirmed_a_second_later() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::RstOnNextPacket));
    speak_into_silence(&mut facts, 0, 6_100);
    bench.trouble(Trouble::Resumed, 6_100, &facts);
    assert_eq!(bench.emitted, [(6_100, FIRING, Expired, Suspected)]);
    retransmit(&mut facts, 6_300);
    bench.trouble(Trouble::Retransmit, 6_300, &facts);
    bench.until(7_099);
    assert_eq!(bench.emitted.len(), 1);
    bench.until(7_100);
    assert_eq!(bench.emitted[1], (7_100, FIRING, Expired, Confirmed));
    assert_eq!(
        bench.reasons[1],
        "idle 6.1 s on a path that forgets after 6 s (lb), then 2 transmissions unanswered \
         for 1 s: the path is dead"
    );
    assert_eq!(bench.tally().detected(Expired), 1);
    assert_eq!(bench.tally().idle_at_death.count(), 1);
}

#[test]
fn an_answer_resolves_and_the_flow_may_die_again() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(6_500);
    speak_into_silence(&mut facts, 0, 7_000);
    bench.trouble(Trouble::Resumed, 7_000, &facts);
    ack(&mut facts, 7_040);
    bench.trouble(Trouble::Answered, 7_040, &facts);
    assert_eq!(bench.emitted[1], (7_040, RECOVERED, Expired, Suspected));
    assert_eq!(bench.reasons[1], "heard again after 7.0 s");
    bench.until(20_000);
    assert_eq!(bench.emitted[2], (13_300, FIRING, Expired, Suspected));
    assert_eq!(
        (bench.tally().detected(Expired), bench.tally().recovered[0]),
        (2, 1)
    );
}

#[test]
fn a_silence_ended_by_the_peer_proves_the_path_alive() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    facts.last_idle_gap = Some(IdleGap {
        from: ms(0),
        to: ms(6_200),
        ended_by: Direction::Rx,
    });
    facts.rx.last_packet = Some(ms(6_200));
    bench.trouble(Trouble::Resumed, 6_200, &facts);
    bench.until(12_000);
    assert_eq!(bench.emitted, []);
}

#[test]
fn a_reset_from_an_expired_path_is_not_a_recovery() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::RstOnNextPacket));
    speak_into_silence(&mut facts, 0, 7_000);
    bench.trouble(Trouble::Resumed, 7_000, &facts);
    facts.rx.last_packet = Some(ms(7_040));
    facts.rst_rx = true;
    bench.trouble(Trouble::Reset, 7_040, &facts);
    assert_eq!(bench.emitted.len(), 1);
    bench.closed(CloseHow::RstReceived, 7_040, &facts);
    let closed = Status::Resolved(AlertResolution::Closed(CloseHow::RstReceived));
    assert_eq!(bench.emitted[1], (7_040, closed, Expired, Suspected));
    assert_eq!(bench.tally().counts.zombies.iter().sum::<u64>(), 0);
    assert!(bench.core.is_empty());
}

#[test]
fn on_a_lossy_path_an_expired_flow_is_confirmed_by_more_than_two_tries() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    facts.loss = lossy();
    speak_into_silence(&mut facts, 0, 8_000);
    bench.trouble(Trouble::Resumed, 8_000, &facts);
    assert_eq!(bench.emitted, [(8_000, FIRING, Expired, Suspected)]);
    for at in [8_200, 8_600, 9_400, 11_000, 14_200, 20_600] {
        bench.until(at);
        retransmit(&mut facts, at);
        bench.snapshot = Some(facts.clone());
    }
    bench.until(33_000);
    assert_eq!(bench.emitted.len(), 1, "seven tries");
    retransmit(&mut facts, 33_400);
    bench.snapshot = Some(facts);
    bench.until(34_000);
    assert_eq!(bench.emitted[1..], [(34_000, FIRING, Expired, Confirmed)]);
}
