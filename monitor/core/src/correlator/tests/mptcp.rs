//! MPTCP subflows: a subflow may be dead while its connection lives.

use super::*;

const WHY: &str = ": one subflow of an MPTCP connection, which may live on by another";

fn opened(hop: Option<OnExpiry>) -> (Bench, Facts) {
    let (mut bench, mut facts) = Bench::opened(hop);
    facts.is_subflow = true;
    bench.snapshot = Some(facts.clone());
    (bench, facts)
}

#[test]
fn an_expired_subflow_is_never_confirmed_and_the_reason_says_why() {
    let (mut bench, mut facts) = opened(Some(OnExpiry::Silent));
    speak_into_silence(&mut facts, 0, 6_100);
    bench.trouble(Trouble::Resumed, 6_100, &facts);
    for at in [6_300, 6_700, 7_500, 9_100, 12_300] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(400_000);
    assert_eq!(bench.emitted, [(6_100, FIRING, Expired, Suspected)]);
    let path = "idle 6.1 s on a path that forgets after 6 s (lb)";
    assert_eq!(bench.reasons, [format!("{path}{WHY}")]);
    assert_eq!(bench.tally().idle_at_death.count(), 0);
    assert_eq!(bench.core.poll_timeout(), None, "no deadline is left");
    ack(&mut facts, 401_000);
    bench.trouble(Trouble::Answered, 401_000, &facts);
    assert_eq!(bench.emitted[1], (401_000, RECOVERED, Expired, Suspected));
}

#[test]
fn a_black_holed_subflow_is_never_confirmed() {
    let (mut bench, mut facts) = opened(None);
    send(&mut facts, 1_000);
    for at in [1_200, 1_600, 2_400, 4_000, 6_900] {
        retransmit(&mut facts, at);
        bench.trouble(Trouble::Retransmit, at, &facts);
    }
    bench.until(400_000);
    assert_eq!(bench.emitted, [(8_000, FIRING, BlackHoled, Suspected)]);
    let stuck = "100 bytes unacknowledged for 7 s after 5 retransmissions";
    assert_eq!(bench.reasons, [format!("{stuck}{WHY}")]);
}

#[test]
fn pings_inferred_from_tls_records_are_named_as_such() {
    let (mut bench, mut facts) = opened(None);
    facts.protocol = Protocol::Opaque;
    facts.ping_interval = Some(Duration::from_secs(2));
    for at in [1_000, 3_000] {
        ping(&mut facts, at);
        ack(&mut facts, at + 1);
        bench.trouble(Trouble::PingUnanswered, at + 1, &facts);
    }
    bench.snapshot = Some(facts);
    bench.until(10_000);
    assert_eq!(
        bench.reasons,
        [format!(
            "2 pings unanswered, by the sizes of TLS records, and no data for 3 s while TCP acknowledges{WHY}"
        )]
    );
}

#[test]
fn a_pong_may_come_by_another_subflow() {
    let (mut bench, mut facts) = opened(None);
    for at in [1_000, 2_000, 3_000, 4_000, 20_000] {
        ping(&mut facts, at);
        facts.rx.last_packet = Some(ms(at + 20));
        facts.ack_progress_at = Some(ms(at + 20));
        bench.trouble(Trouble::PingUnanswered, at + 20, &facts);
        bench.until(at + 500);
    }
    bench.until(100_000);
    let emitted: Vec<_> = bench
        .emitted
        .iter()
        .map(|(_, _, kind, how)| (*kind, *how))
        .collect();
    assert_eq!(emitted, [(Unresponsive, Suspected)]);
    assert!(bench.reasons[0].ends_with(WHY), "{:?}", bench.reasons);
}

#[test]
fn a_fin_ends_a_subflow_and_not_its_connection() {
    let (mut bench, mut facts) = opened(None);
    facts.fin_rx = true;
    facts.closing = Some(Closing {
        at: ms(2_000),
        by: ClosingBy::Fin(Direction::Rx),
    });
    facts.at = ms(2_000);
    bench.snapshot = Some(facts.clone());
    bench.event(Event::Closing(Box::new(facts.clone())));
    bench.until(100_000);
    assert_eq!(bench.emitted, [(62_000, FIRING, HalfClosed, Suspected)]);
    assert!(bench.reasons[0].ends_with(WHY), "{:?}", bench.reasons);
    facts.fin_tx = true;
    bench.closed(CloseHow::Fin, 101_000, &facts);
    assert_eq!(bench.tally().idle_at_death.count(), 0);
}

#[test]
fn unread_bytes_are_reported_on_a_subflow_too() {
    let (mut bench, facts) = opened(None);
    for at in [10_000, 41_000] {
        let queue = ReceiveQueue {
            conn: facts.conn,
            bytes: 100,
            read: 7,
        };
        bench.event(Event::RecvQueuesScanned {
            at: ms(at),
            unread: vec![queue],
            missed: Vec::new(),
        });
        bench.until(at);
    }
    assert_eq!(bench.emitted, [(41_000, FIRING, Stalled, Confirmed)]);
    assert_eq!(
        bench.reasons,
        ["this host's application has left 100 bytes unread for 31 s"]
    );
}
