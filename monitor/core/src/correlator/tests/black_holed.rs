//! Bytes that stay unacknowledged.

use super::*;

#[test]
fn five_retransmissions_in_seven_seconds_are_a_black_hole() {
    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    facts.unacked_bytes = 4_096;
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(7_999);
    assert_eq!(bench.emitted, []);
    bench.until(8_000);
    assert_eq!(bench.emitted, [(8_000, FIRING, BlackHoled, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "4,096 bytes unacknowledged for 7 s after 5 retransmissions; \
         TCP itself gives up only after about 15 minutes"
    );
    ack(&mut facts, 9_000);
    bench.trouble(Trouble::Answered, 9_000, &facts);
    assert_eq!(bench.emitted[1], (9_000, RECOVERED, BlackHoled, Confirmed));
}

#[test]
fn on_a_lossy_path_a_black_hole_is_suspected_until_tcp_has_tried_often_enough() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.loss = lossy();
    send(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(8_500);
    assert_eq!(bench.emitted, [(8_000, FIRING, BlackHoled, Suspected)]);
    assert_eq!(
        bench.reasons[0],
        "100 bytes unacknowledged for 7 s after 5 retransmissions, on a path where 15 % of the tries \
         fail anyway: it may be chance"
    );
    retransmit(&mut facts, 13_500);
    bench.snapshot = Some(facts.clone());
    bench.until(26_000);
    assert_eq!(bench.emitted.len(), 1, "seven tries");
    retransmit(&mut facts, 26_300);
    bench.snapshot = Some(facts);
    bench.until(28_000);
    assert_eq!(
        bench.emitted[1..],
        [(27_000, FIRING, BlackHoled, Confirmed)]
    );
    assert_eq!(bench.core.poll_timeout(), None);
    assert_eq!(bench.tally().detected(BlackHoled), 1);
}

#[test]
fn loss_on_other_connections_delays_the_confirmation() {
    let (mut bench, mut facts) = Bench::opened(None);
    let deliveries = Deliveries {
        delivered: 1_000,
        late: 250,
        retransmits: 390,
    };
    bench
        .core
        .handle_deliveries(ms(0), ListenerId(0), deliveries);
    send(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        assert_eq!(bench.core.wants_deliveries(), at > 1_600, "at {at}");
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
        bench.until(at + 50);
    }
    bench.until(8_000);
    assert_eq!(bench.emitted, [(8_000, FIRING, BlackHoled, Suspected)]);
    bench.until(200_000);
    assert!(!bench.core.wants_deliveries(), "TCP has given up");
}

#[test]
fn a_fifth_retransmission_that_left_early_or_just_now_proves_nothing() {
    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    for at in [1_020, 1_230, 1_640, 2_470, 4_130] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.snapshot = Some(facts.clone());
    bench.until(8_499);
    retransmit(&mut facts, 8_500);
    bench.snapshot = Some(facts.clone());
    assert_eq!(bench.emitted, []);
    bench.until(9_000);
    assert_eq!(bench.emitted, [(9_000, FIRING, BlackHoled, Confirmed)]);

    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    for at in [1_400, 2_200, 3_800, 7_000, 13_400] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(14_399);
    assert_eq!(bench.emitted, []);
    bench.until(14_400);
    assert_eq!(bench.emitted, [(14_400, FIRING, BlackHoled, Confirmed)]);
}

#[test]
fn an_outage_of_five_seconds_does_not_make_a_zombie() {
    let (mut bench, mut facts) = Bench::opened(None);
    ping(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 7_200] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    ack(&mut facts, 7_203);
    bench.trouble(Trouble::Answered, 7_203, &facts);
    // Bytes that waited for the acknowledgement leave at once.
    for _ in 0..6 {
        ping(&mut facts, 7_203);
        bench.trouble(Trouble::PingUnanswered, 7_203, &facts);
    }
    ack(&mut facts, 7_206);
    pong(&mut facts, 7_206);
    bench.snapshot = Some(facts);
    bench.until(20_000);
    assert_eq!(bench.emitted, []);
}

#[test]
fn after_a_long_silence_two_retransmissions_in_a_second_are_enough() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Fin));
    speak_into_silence(&mut facts, 0, 8_000);
    for at in [8_200, 8_600] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(10_000);
    assert_eq!(bench.emitted, [(9_000, FIRING, BlackHoled, Confirmed)]);
}
