//! Pings that nobody answers.

use super::*;

#[test]
fn on_a_lossy_path_a_pong_may_be_sent_many_times() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.loss = lossy();
    facts.ping_rtt = Some(Duration::from_millis(10));
    for at in [1_000, 2_000] {
        ping(&mut facts, at);
        ack(&mut facts, at + 10);
    }
    bench.trouble(Trouble::PingUnanswered, 2_010, &facts);
    // 0.21 s, doubled seven times.
    bench.until(2_000 + 26_600);
    assert_eq!(bench.said, []);
    bench.until(2_000 + 26_700);
    let [(_, FIRING, Unresponsive, Confirmed)] = bench.said[..] else {
        panic!("{:?}", bench.said);
    };
}

#[test]
fn a_deaf_client_is_confirmed_at_its_second_unanswered_ping() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.ping_rtt = Some(Duration::from_millis(500));
    ping(&mut facts, 1_000);
    ack(&mut facts, 1_001);
    ping(&mut facts, 21_000);
    bench.trouble(Trouble::PingUnanswered, 21_000, &facts);
    bench.until(22_999);
    assert_eq!(bench.said, []);
    bench.until(23_000);
    assert_eq!(bench.said, [(23_000, FIRING, Unresponsive, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "2 pings unanswered for 22 s while TCP acknowledges: \
         a kernel or proxy is alive, the client is not"
    );
}

#[test]
fn pings_that_leave_faster_than_the_grace_do_not_put_off_the_verdict() {
    let (mut bench, mut facts) = Bench::opened(None);
    for at in [2_000, 2_400, 2_800, 3_200] {
        ping(&mut facts, at);
        ack(&mut facts, at);
        bench.trouble(Trouble::PingUnanswered, at, &facts);
    }
    bench.snapshot = Some(facts);
    bench.until(3_399);
    assert_eq!(bench.said, []);
    bench.until(3_400);
    assert_eq!(bench.said, [(3_400, FIRING, Unresponsive, Confirmed)]);
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
    assert_eq!(bench.said, []);
    bench.until(40_000);
    assert_eq!(bench.said, [(40_000, FIRING, Unresponsive, Suspected)]);
    facts.pings_unanswered = 0;
    facts.first_unanswered_ping = None;
    facts.last_unanswered_ping = None;
    facts.rx.last_packet = Some(ms(40_200));
    bench.snapshot = Some(facts);
    bench.until(42_000);
    assert_eq!(bench.said[1], (41_500, RECOVERED, Unresponsive, Suspected));
}
