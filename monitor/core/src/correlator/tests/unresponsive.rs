//! Unanswered pings.

use super::*;

fn floor_of(seconds: u64) -> (Bench, Facts) {
    let mut rules = ListenerRules::new("web", None);
    rules.unresponsive_floor = Duration::from_secs(seconds);
    let mut bench = Bench::under(rules);
    let facts = Facts::just_opened(1, ms(0));
    bench.event(Event::Opened(Box::new(facts.clone())));
    (bench, facts)
}

/// A ping that TCP acknowledges, as the kernel reports it.
fn unanswered(bench: &mut Bench, facts: &mut Facts, at: u64) {
    bench.until(at);
    let before = facts.second_try;
    ping(facts, at);
    ack(facts, at + 1);
    bench.snapshot = Some(facts.clone());
    if facts.second_try != before {
        bench.trouble(Trouble::PingUnanswered, at, facts);
    }
}

#[test]
fn a_deaf_client_is_suspected_at_the_second_try_and_confirmed_after_the_floor() {
    // (interval, floor, round trip, suspected, confirmed): ms, s, ms, and ms since the first ping.
    for (interval, floor, rtt, suspected, confirmed) in [
        (1_000, 10, 40, 2_000, 10_000),
        (2_500, 10, 0, 3_500, 10_000),
        (5_000, 10, 40, 6_000, 10_000),
        (9_500, 10, 40, 10_500, 10_500),
        (20_000, 10, 40, 21_000, 21_000),
        (20_000, 60, 40, 21_000, 60_000),
        // The first ping exceeds the ping timeout before the second leaves.
        (60_000, 10, 40, 30_000, 61_000),
        (1_000, 1, 40, 2_000, 2_000),
        (400, 3, 40, 1_400, 3_000),
        // The first ping at least 250 ms later is the second try.
        (20, 10, 40, 1_260, 10_000),
        (5_000, 10, 3_000, 17_000, 17_000),
    ] {
        let (mut bench, mut facts) = floor_of(floor);
        facts.ping_rtt = Some(Duration::from_millis(rtt));
        facts.tx.last_frame = Some(ms(0));
        bench.event(Event::Opened(Box::new(facts.clone())));
        for n in 0..=(70_000 / interval) {
            unanswered(&mut bench, &mut facts, 1_000 + n * interval);
        }
        bench.until(100_000);
        let at = |kind: Certainty| {
            let emitted = bench.emitted.iter().find(|emitted| emitted.3 >= kind);
            emitted.map(|emitted| emitted.0 - 1_000)
        };
        let case = format!("a ping each {interval} ms: {:?}", bench.emitted);
        assert_eq!(at(Suspected), Some(suspected), "{case}");
        assert_eq!(at(Confirmed), Some(confirmed), "{case}");
        assert!(
            bench.emitted.iter().all(|emitted| emitted.1 == FIRING),
            "{case}"
        );
    }
}

#[test]
fn a_pause_below_the_floor_is_never_confirmed_and_the_pongs_end_the_suspicion() {
    for interval in [1_000, 2_000, 3_000, 5_000, 9_000] {
        for pause in (1_000..10_000).step_by(450) {
            let (mut bench, mut facts) = floor_of(10);
            facts.ping_rtt = Some(Duration::from_millis(20));
            for n in 0..(pause / interval + 1) {
                unanswered(&mut bench, &mut facts, 1_000 + n * interval);
            }
            bench.until(1_000 + pause);
            pong(&mut facts, 1_000 + pause);
            bench.trouble(Trouble::Answered, 1_000 + pause, &facts);
            bench.until(100_000);
            let certain = bench.emitted.iter().any(|emitted| emitted.3 == Confirmed);
            assert!(!certain, "{interval} {pause}: {:?}", bench.emitted);
            let left_standing = bench
                .emitted
                .last()
                .is_some_and(|emitted| emitted.1 == FIRING);
            assert!(!left_standing, "{interval} {pause}: {:?}", bench.emitted);
        }
    }
}

#[test]
fn a_peer_whose_bytes_arrive_is_alive_despite_unanswered_pings() {
    for (ping_every, bytes_every) in [(1_000, 30), (1_000, 900), (20_000, 400), (20_000, 15_000)] {
        let (mut bench, mut facts) = floor_of(10);
        facts.ping_rtt = Some(Duration::from_millis(40));
        for at in (1_000..300_000).step_by(10) {
            if at % ping_every == 0 {
                unanswered(&mut bench, &mut facts, at);
            }
            if at % bytes_every == 0 {
                bench.until(at);
                let reported = facts.second_try.is_some();
                receive(&mut facts, at);
                bench.snapshot = Some(facts.clone());
                if reported {
                    bench.trouble(Trouble::Answered, at, &facts);
                }
            }
        }
        assert_eq!(bench.emitted, [], "{ping_every} {bytes_every}");
        assert!(facts.pings_unanswered > 10);
    }
}

#[test]
fn a_second_try_that_tcp_has_not_acknowledged_confirms_nothing() {
    let (mut bench, mut facts) = floor_of(10);
    unanswered(&mut bench, &mut facts, 1_000);
    bench.until(3_000);
    ping(&mut facts, 3_000);
    facts.unacked_bytes = 6;
    facts.retransmits = 1;
    facts.unacked_since = Some(ms(3_000));
    bench.trouble(Trouble::PingUnanswered, 3_000, &facts);
    bench.until(25_000);
    assert_eq!(bench.emitted, [(4_000, FIRING, Unresponsive, Suspected)]);
    ack(&mut facts, 25_000);
    bench.trouble(Trouble::Answered, 25_000, &facts);
    assert_eq!(bench.emitted.len(), 1, "the pong may be right behind");
    bench.until(27_000);
    let [_, (at, FIRING, Unresponsive, Confirmed)] = bench.emitted[..] else {
        panic!("{:?}", bench.emitted);
    };
    assert!((26_000..=27_000).contains(&at), "{at}");
}

#[test]
fn on_a_lossy_path_a_pong_may_be_sent_many_times() {
    let (mut bench, mut facts) = floor_of(10);
    facts.loss = lossy();
    facts.ping_rtt = Some(Duration::from_millis(10));
    unanswered(&mut bench, &mut facts, 1_000);
    unanswered(&mut bench, &mut facts, 2_000);
    // 0.21 s, doubled seven times.
    bench.until(2_000 + 26_600);
    assert_eq!(bench.emitted, [(3_000, FIRING, Unresponsive, Suspected)]);
    bench.until(2_000 + 26_700);
    let [_, (_, FIRING, Unresponsive, Confirmed)] = bench.emitted[..] else {
        panic!("{:?}", bench.emitted);
    };
}

/// A connection over TLS with pings at this interval, milliseconds.
fn under_tls(interval: u64, rtt: u64) -> (Bench, Facts) {
    let (mut bench, mut facts) = floor_of(10);
    facts.protocol = Protocol::Opaque;
    facts.heartbeat = Some(InferredHeartbeat::Learned);
    facts.ping_rtt = Some(Duration::from_millis(rtt));
    facts.ping_interval = Some(Duration::from_millis(interval));
    bench.event(Event::Opened(Box::new(facts.clone())));
    (bench, facts)
}

#[test]
fn under_tls_the_second_ping_without_an_answer_infers_and_nothing_confirms() {
    for rtt in [20, 600] {
        let (mut bench, mut facts) = under_tls(2_000, rtt);
        unanswered(&mut bench, &mut facts, 1_000);
        bench.until(100_000);
        assert_eq!(bench.emitted, [], "a single one proves nothing");
        for n in 1..20 {
            unanswered(&mut bench, &mut facts, 100_000 + n * 2_000);
        }
        bench.until(400_000);
        let grace = (4 * rtt).max(1_000);
        assert_eq!(
            bench.emitted,
            [(102_000 + grace, FIRING, Unresponsive, Certainty::Inferred)]
        );
        receive(&mut facts, 400_000);
        bench.trouble(Trouble::Answered, 400_000, &facts);
        let (at, status, ..) = bench.emitted[1];
        assert_eq!((at, status), (400_000, RECOVERED));
    }
}

#[test]
fn under_tls_a_peer_whose_timer_may_have_slowed_down_gets_more_than_a_minute() {
    for (interval, expected) in [
        (2_800, 7_600),
        // What the kernel's units make of 3 s.
        (2_953, 66_000),
        (3_000, 66_000),
        (10_000, 66_000),
        (25_000, 66_000),
        // The second ping comes later.
        (60_000, 122_000),
    ] {
        let (mut bench, mut facts) = under_tls(interval, 20);
        receive(&mut facts, 1_000);
        bench.snapshot = Some(facts.clone());
        for n in 1..20 {
            unanswered(&mut bench, &mut facts, 1_000 + n * interval);
        }
        bench.until(1_300_000);
        let [(at, FIRING, Unresponsive, Certainty::Inferred)] = bench.emitted[..] else {
            panic!("{interval}: {:?}", bench.emitted);
        };
        assert!((expected..expected + 200).contains(&at), "{interval}: {at}");
    }
}

#[test]
fn under_tls_a_path_that_dies_later_is_a_confirmed_death() {
    let (mut bench, mut facts) = under_tls(2_000, 20);
    for at in [1_000, 3_000] {
        unanswered(&mut bench, &mut facts, at);
    }
    bench.until(50_000);
    let inferred = (4_000, FIRING, Unresponsive, Certainty::Inferred);
    assert_eq!(bench.emitted, [inferred]);
    // The host of the frozen client disappears.
    send(&mut facts, 50_000);
    facts.unacked_bytes = 23;
    for at in [50_200, 50_600, 51_400, 53_000, 55_900] {
        bench.until(at);
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(60_000);
    assert_eq!(
        bench.emitted,
        [
            inferred,
            (57_000, SUPERSEDED, Unresponsive, Certainty::Inferred),
            (57_000, FIRING, BlackHoled, Confirmed)
        ]
    );
}

/// A single ping is never checked again. After a loss of events, every snapshot is read.
#[test]
fn under_tls_a_second_try_whose_event_was_lost_is_found_in_the_snapshot() {
    let (mut bench, mut facts) = under_tls(2_000, 20);
    unanswered(&mut bench, &mut facts, 1_000);
    bench.trouble(Trouble::PingUnanswered, 1_000, &facts);
    assert_eq!(bench.core.poll_timeout(), None);
    ping(&mut facts, 3_000);
    ack(&mut facts, 3_001);
    bench.snapshot = Some(facts.clone());
    bench.until(5_000);
    assert_eq!(bench.emitted, []);
    bench.core.handle_swept(&facts);
    bench.until(5_000);
    assert_eq!(
        bench.emitted,
        [(5_000, FIRING, Unresponsive, Certainty::Inferred)]
    );
}

#[test]
fn the_state_of_an_inferred_heartbeat_is_counted_while_the_connection_is_open() {
    let states = |bench: &Bench| bench.tally().heartbeats;
    let (mut bench, mut facts) = floor_of(10);
    facts.protocol = Protocol::Opaque;
    bench.event(Event::Opened(Box::new(facts.clone())));
    assert_eq!(states(&bench), [0; 3], "no record yet");
    facts.rx.last_payload = Some(ms(1_000));
    facts.heartbeat = Some(InferredHeartbeat::Unlearned);
    bench.trouble(Trouble::Answered, 1_000, &facts);
    assert_eq!(states(&bench), [0, 1, 0]);
    // No event announces the following.
    facts.heartbeat = Some(InferredHeartbeat::Learned);
    bench.snapshot = Some(facts.clone());
    bench.until(12_000);
    assert_eq!(states(&bench), [1, 0, 0]);
    assert_eq!(bench.core.poll_timeout(), None, "nothing more to learn");
    facts.fin_rx = true;
    bench.trouble(Trouble::Answered, 20_000, &facts);
    assert_eq!(states(&bench), [0; 3]);
}

#[test]
fn under_tls_no_heartbeat_is_looked_for_in_a_long_silence() {
    let (mut bench, mut facts) = floor_of(10);
    facts.protocol = Protocol::Opaque;
    facts.heartbeat = Some(InferredHeartbeat::Unlearned);
    facts.rx.last_payload = Some(ms(1_000));
    bench.event(Event::Opened(Box::new(facts.clone())));
    bench.snapshot = Some(facts);
    bench.until(590_000);
    assert!(bench.core.poll_timeout().is_some());
    bench.until(620_000);
    assert_eq!(bench.core.poll_timeout(), None);
    assert_eq!(bench.tally().heartbeats, [0, 1, 0]);
}

#[test]
fn under_tls_a_lossy_path_gets_more_time() {
    let (mut bench, mut facts) = under_tls(1_000, 10);
    facts.loss = lossy();
    unanswered(&mut bench, &mut facts, 1_000);
    unanswered(&mut bench, &mut facts, 2_000);
    bench.until(2_000 + 26_600);
    assert_eq!(bench.emitted, []);
    bench.until(2_000 + 26_700);
    assert_eq!(bench.emitted.len(), 1);
}

#[test]
fn the_reason_states_the_evidence() {
    let (mut bench, mut facts) = floor_of(10);
    unanswered(&mut bench, &mut facts, 1_000);
    unanswered(&mut bench, &mut facts, 6_000);
    bench.until(20_000);
    assert_eq!(
        bench.reasons,
        [
            "2 pings unanswered, and no data for 6 s while TCP acknowledges: \
             the client is busy, or gone",
            "2 pings unanswered, and no data for 10 s while TCP acknowledges: \
             a kernel or proxy is alive, the client is not",
        ]
    );
}

#[test]
fn a_lone_ping_is_suspected_after_its_timeout_and_a_late_pong_is_noticed() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.ping_rtt = Some(Duration::from_millis(20));
    facts.tx.last_frame = Some(ms(0));
    bench.event(Event::Opened(Box::new(facts.clone())));
    ping(&mut facts, 10_000);
    ack(&mut facts, 10_001);
    bench.snapshot = Some(facts.clone());
    bench.until(39_999);
    assert_eq!(bench.emitted, []);
    bench.until(40_000);
    assert_eq!(bench.emitted, [(40_000, FIRING, Unresponsive, Suspected)]);
    pong(&mut facts, 40_200);
    bench.snapshot = Some(facts);
    bench.until(42_000);
    assert_eq!(
        bench.emitted[1],
        (41_500, RECOVERED, Unresponsive, Suspected)
    );
}

/// The kernel reports the first ping, and no later one while every ping is answered.
#[test]
fn a_lone_ping_is_noticed_in_time_without_a_limit_after_any_number_of_answered_ones() {
    for answered in [0, 1, 2, 10] {
        let (mut bench, mut facts) = floor_of(10);
        for n in 0..=answered {
            let at = 1_000 + n * 60_000;
            bench.until(at);
            ping(&mut facts, at);
            ack(&mut facts, at + 1);
            bench.snapshot = Some(facts.clone());
            if n == 0 {
                bench.trouble(Trouble::PingUnanswered, at, &facts);
            }
            if n < answered {
                facts.ping_rtt = Some(Duration::from_millis(40));
                pong(&mut facts, at + 40);
                bench.snapshot = Some(facts.clone());
            }
        }
        let lone = 1_000 + answered * 60_000;
        bench.until(lone + 59_000);
        assert_eq!(
            bench.emitted,
            [(lone + 30_000, FIRING, Unresponsive, Suspected)]
        );
    }
}
