//! Peers whose application does not read.

use super::*;
use crate::send_queues::SendQueues;

/// The peer's window closes at `at`. Its kernel answers a probe every ten seconds.
fn close_window(bench: &mut Bench, facts: &mut Facts, at: u64) {
    facts.peer_window_closed_at = Some(ms(at));
    bench.until(at);
    probe(bench, facts, at + 2_000);
    bench.trouble(Trouble::WindowClosed, at + 2_000, facts);
}

fn probe(bench: &mut Bench, facts: &mut Facts, at: u64) {
    facts.tx.last_packet = Some(ms(at));
    facts.rx.last_packet = Some(ms(at));
    facts.unanswered_transmissions = 0;
    bench.snapshot = Some(facts.clone());
}

fn probe_until(bench: &mut Bench, facts: &mut Facts, end: u64) {
    let begin = facts.tx.last_packet.expect("a probe").0 / 1_000_000;
    for at in (begin..end).step_by(10_000).skip(1) {
        bench.until(at);
        probe(bench, facts, at);
    }
    bench.until(end);
}

fn open_window(bench: &mut Bench, facts: &mut Facts, at: u64) {
    facts.peer_window_closed_at = None;
    ack(facts, at);
    bench.snapshot = Some(facts.clone());
    bench.trouble(Trouble::Answered, at, facts);
}

/// A scan finds these bytes behind a closed window, after so many that were acknowledged.
fn scan(bench: &mut Bench, at: u64, bytes: u32, acked: u64) {
    let queue = SendQueue {
        conn: ConnId(1),
        listener: ListenerId(0),
        bytes,
        is_held: true,
        acked,
    };
    let queues = (bytes > 0).then_some(queue).into_iter().collect();
    let queues = bench
        .core
        .send_queues()
        .next(ms(at), queues, &[ConnId(1)], &[]);
    bench.until(at);
    bench.event(Event::SendQueuesScanned(queues));
    bench.until(at);
}

#[test]
fn a_window_that_stays_closed_for_half_a_minute_is_suspected_until_it_opens() {
    for lasts in [5_000, 29_900, 30_100, 200_000] {
        let (mut bench, mut facts) = Bench::opened(None);
        close_window(&mut bench, &mut facts, 5_000);
        probe_until(&mut bench, &mut facts, 5_000 + lasts);
        open_window(&mut bench, &mut facts, 5_000 + lasts);
        bench.until(400_000);
        let expected = [
            (35_000, FIRING, Backlogged, Suspected),
            (5_000 + lasts, RECOVERED, Backlogged, Suspected),
        ];
        let reported = if lasts > 30_000 { 2 } else { 0 };
        assert_eq!(bench.emitted, expected[..reported], "{lasts}");
    }
}

#[test]
fn one_stale_acknowledgement_does_not_prove_a_closed_window() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.peer_window_closed_at = Some(ms(5_000));
    facts.rx.last_packet = Some(ms(5_000));
    bench.trouble(Trouble::Answered, 5_000, &facts);
    bench.until(400_000);
    assert_eq!(bench.emitted, []);
}

#[test]
fn half_an_hour_with_bytes_that_wait_confirms_it() {
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    for at in (9_000..=1_809_000).step_by(10_000) {
        probe_until(&mut bench, &mut facts, at);
        scan(&mut bench, at, 4_096, 7);
    }
    assert_eq!(
        bench.emitted,
        [
            (31_000, FIRING, Backlogged, Suspected),
            (1_801_000, FIRING, Backlogged, Confirmed)
        ]
    );
    assert_eq!(
        bench.reasons,
        [
            "the peer acknowledges with a closed window for 30 s, and 4,096 bytes wait here: its \
             application reads little or nothing",
            "the peer acknowledges with a closed window for 1,800 s, and 4,096 bytes wait here: its \
             application does not read"
        ]
    );
    assert_eq!(bench.tally().send_queues.sum, 4_096);
    open_window(&mut bench, &mut facts, 1_812_000);
    assert_eq!(
        bench.emitted[2..],
        [(1_812_000, RECOVERED, Backlogged, Confirmed)]
    );
    scan(&mut bench, 1_819_000, 0, 7);
    assert_eq!(bench.tally().send_queues.max, 0);
}

#[test]
fn without_bytes_that_wait_it_stays_suspected() {
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    probe_until(&mut bench, &mut facts, 2_500_000);
    assert_eq!(bench.emitted, [(31_000, FIRING, Backlogged, Suspected)]);
}

/// On a connection older than wsmon, no packet has shown how the window closed.
#[test]
fn scans_alone_find_bytes_behind_a_closed_window() {
    let (mut bench, facts) = Bench::opened(None);
    bench.snapshot = Some(facts);
    for at in [9_000, 19_000, 29_000] {
        scan(&mut bench, at, 4_096, 7);
    }
    assert_eq!(bench.emitted, []);
    scan(&mut bench, 39_000, 5_000, 7);
    assert_eq!(bench.emitted, [(39_000, FIRING, Backlogged, Suspected)]);
    scan(&mut bench, 49_000, 5_000, 8);
    assert_eq!(
        bench.emitted[1..],
        [(49_000, RECOVERED, Backlogged, Suspected)]
    );
}

/// Its queue grows, because it reads more slowly than this host writes.
#[test]
fn a_slow_reader_whose_acknowledgements_move_is_never_reported() {
    let (mut bench, mut facts) = Bench::opened(None);
    for n in 0..60 {
        let at = 1_000 + n * 10_000;
        ack(&mut facts, at);
        close_window(&mut bench, &mut facts, at);
        scan(&mut bench, at + 5_000, 100_000 + n as u32 * 50_000, n);
        open_window(&mut bench, &mut facts, at + 9_900);
    }
    assert_eq!(bench.emitted, []);
}

#[test]
fn a_peer_that_stops_answering_is_not_backlogged() {
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    facts.unanswered_transmissions = 4;
    facts.tx.last_packet = Some(ms(26_000));
    bench.snapshot = Some(facts);
    bench.until(400_000);
    assert_eq!(bench.emitted, []);
}

#[test]
fn retransmissions_to_a_closed_window_are_not_a_black_hole() {
    let (mut bench, mut facts) = Bench::opened(None);
    send(&mut facts, 1_000);
    for n in 0..6 {
        retransmit(&mut facts, 2_000 + n * 1_000);
    }
    close_window(&mut bench, &mut facts, 1_000);
    bench.trouble(Trouble::Retransmit, 8_000, &facts);
    probe_until(&mut bench, &mut facts, 100_000);
    assert_eq!(bench.emitted, [(31_000, FIRING, Backlogged, Suspected)]);
}

#[test]
fn a_confirmed_death_takes_the_place_of_backlogged() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    facts.peer_window_closed_at = Some(ms(1_000));
    for at in (1_000..40_000).step_by(4_000) {
        bench.until(at);
        probe(&mut bench, &mut facts, at);
    }
    bench.until(40_000);
    // Its path breaks, and two probes stay unanswered.
    speak_into_silence(&mut facts, 37_000, 52_000);
    bench.until(52_000);
    bench.trouble(Trouble::Resumed, 52_000, &facts);
    retransmit(&mut facts, 54_000);
    bench.until(54_000);
    bench.trouble(Trouble::Retransmit, 54_000, &facts);
    bench.until(100_000);
    let (at, ..) = bench.emitted[1];
    assert_eq!(
        bench.emitted,
        [
            (31_000, FIRING, Backlogged, Suspected),
            (at, SUPERSEDED, Backlogged, Suspected),
            (at, FIRING, Expired, Confirmed)
        ]
    );
    assert!((54_000..56_000).contains(&at), "{at}");
}

#[test]
fn a_window_that_closes_is_not_a_sign_of_life_of_an_unresponsive_client() {
    let (mut bench, mut facts) = Bench::opened(None);
    for at in [1_000, 2_000] {
        ping(&mut facts, at);
        ack(&mut facts, at);
        bench.trouble(Trouble::PingUnanswered, at, &facts);
    }
    bench.until(12_000);
    (facts.first_try, facts.second_try) = (None, None);
    close_window(&mut bench, &mut facts, 12_000);
    probe_until(&mut bench, &mut facts, 100_000);
    let unresponsive = [
        (3_000, FIRING, Unresponsive, Suspected),
        (11_000, FIRING, Unresponsive, Confirmed),
    ];
    assert_eq!(bench.emitted, unresponsive);
    open_window(&mut bench, &mut facts, 100_000);
    assert_eq!(
        bench.emitted[2..],
        [(100_000, RECOVERED, Unresponsive, Confirmed)]
    );
}

#[test]
fn a_subflow_is_only_suspected() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.is_subflow = true;
    close_window(&mut bench, &mut facts, 1_000);
    for at in (9_000..=2_500_000).step_by(10_000) {
        probe_until(&mut bench, &mut facts, at);
        scan(&mut bench, at, 4_096, 7);
    }
    assert_eq!(bench.emitted, [(31_000, FIRING, Backlogged, Suspected)]);
}

/// Its probes may be dropped on this host, where no hook sees them.
#[test]
fn a_peer_that_is_not_heard_is_only_suspected() {
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    for at in (9_000..=2_500_000).step_by(10_000) {
        scan(&mut bench, at, 4_096, 7);
    }
    assert_eq!(bench.emitted, [(31_000, FIRING, Backlogged, Suspected)]);
}

#[test]
fn the_send_queue_of_a_connection_is_known_after_a_scan_that_covered_it() {
    let (mut bench, _) = Bench::opened(None);
    assert_eq!(bench.core.send_queue(ConnId(1)), None);
    scan(&mut bench, 1_000, 10, 0);
    assert_eq!(bench.core.send_queue(ConnId(1)), Some(10));
    scan(&mut bench, 2_000, 0, 0);
    assert_eq!(bench.core.send_queue(ConnId(1)), Some(0));
    assert_eq!(
        bench.core.send_queues(),
        &SendQueues::default().next(ms(2_000), Vec::new(), &[], &[])
    );
}
