//! Connections that an application neglects: half closed, or not read.

use super::*;

#[test]
fn a_peer_that_closed_a_minute_ago_makes_a_half_closed_connection() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.fin_rx = true;
    facts.closing = Some(Closing {
        at: ms(2_000),
        by: ClosingBy::Fin(Direction::Rx),
    });
    facts.at = ms(2_000);
    bench.event(Event::Closing(Box::new(facts.clone())));
    bench.snapshot = Some(facts.clone());
    bench.until(61_999);
    assert_eq!(bench.emitted, []);
    bench.until(62_000);
    assert_eq!(bench.emitted, [(62_000, FIRING, HalfClosed, Confirmed)]);
    facts.fin_tx = true;
    bench.closed(CloseHow::Fin, 63_000, &facts);
    assert_eq!(bench.emitted.len(), 2);
    assert_eq!(
        bench.tally().idle_at_death.count(),
        1,
        "since the close, not since the verdict"
    );
}

#[test]
fn an_application_that_does_not_read_for_half_a_minute_is_stalled_until_it_does() {
    let (mut bench, facts) = Bench::opened(None);
    let observe = |bench: &mut Bench, at: u64, read: u64, bytes: u32| {
        let queue = ReceiveQueue {
            conn: facts.conn,
            bytes,
            read,
        };
        let unread = (bytes > 0).then_some(queue).into_iter().collect();
        bench.event(Event::RecvQueuesScanned {
            at: ms(at),
            unread,
            missed: Vec::new(),
        });
        bench.until(at);
    };
    observe(&mut bench, 10_000, 7, 100);
    observe(&mut bench, 25_000, 9, 200);
    observe(&mut bench, 50_000, 9, 300);
    assert_eq!(bench.emitted, [], "it read in between, 25 s ago");
    observe(&mut bench, 56_000, 9, 400);
    assert_eq!(bench.emitted, [(56_000, FIRING, Stalled, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "this host's application has left 400 bytes unread for 31 s"
    );
    observe(&mut bench, 70_000, 409, 0);
    assert_eq!(
        bench.emitted[1..],
        [(70_000, RECOVERED, Stalled, Confirmed)]
    );
}

/// The window of this host closes at `at`, and the kernel reports it two seconds later.
fn close_window(bench: &mut Bench, facts: &mut Facts, at: u64) {
    facts.own_window_closed_at = Some(ms(at));
    bench.snapshot = Some(facts.clone());
    bench.until(at + 2_000);
    bench.trouble(Trouble::WindowClosed, at + 2_000, facts);
}

fn open_window(bench: &mut Bench, facts: &mut Facts, at: u64) {
    bench.until(at);
    facts.own_window_closed_at = None;
    bench.trouble(Trouble::Answered, at, facts);
}

fn scan(bench: &mut Bench, at: u64, read: u64) {
    let unread = vec![ReceiveQueue {
        conn: ConnId(1),
        bytes: 60_000,
        read,
    }];
    bench.until(at);
    bench.event(Event::RecvQueuesScanned {
        at: ms(at),
        unread,
        missed: Vec::new(),
    });
    bench.until(at);
}

#[test]
fn a_closed_window_is_suspected_after_ten_seconds_without_a_scan() {
    for lasts in [2_500, 5_000, 9_900, 10_100, 60_000] {
        let (mut bench, mut facts) = Bench::opened(None);
        close_window(&mut bench, &mut facts, 5_000);
        open_window(&mut bench, &mut facts, 5_000 + lasts);
        bench.until(200_000);
        let expected = [
            (15_000, FIRING, Stalled, Suspected),
            (5_000 + lasts, RECOVERED, Stalled, Suspected),
        ];
        let reported = if lasts > 10_000 { 2 } else { 0 };
        assert_eq!(bench.emitted, expected[..reported], "{lasts}");
    }
}

#[test]
fn a_window_that_opens_repeatedly_is_not_stalled() {
    let (mut bench, mut facts) = Bench::opened(None);
    for n in 0..50 {
        close_window(&mut bench, &mut facts, 1_000 + n * 10_000);
        open_window(&mut bench, &mut facts, 10_900 + n * 10_000);
    }
    assert_eq!(bench.emitted, []);
}

#[test]
fn scans_confirm_or_refute_that_nothing_is_read_behind_a_closed_window() {
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    for at in [9_000, 19_000, 29_000, 39_000] {
        scan(&mut bench, at, 7);
    }
    let suspected = (11_000, FIRING, Stalled, Suspected);
    assert_eq!(
        bench.emitted,
        [suspected, (39_000, FIRING, Stalled, Confirmed)]
    );
    assert_eq!(
        bench.reasons,
        [
            "this host's window has been closed for 10 s: its application reads little or nothing",
            "this host's application has left 60,000 bytes unread for 38 s"
        ]
    );
    open_window(&mut bench, &mut facts, 45_000);
    scan(&mut bench, 49_000, 50_000);
    assert_eq!(
        bench.emitted[2..],
        [(49_000, RECOVERED, Stalled, Confirmed)]
    );

    // The application reads a little between two checks, too little to open the window.
    let (mut bench, mut facts) = Bench::opened(None);
    close_window(&mut bench, &mut facts, 1_000);
    for n in 1..20 {
        scan(&mut bench, 9_000 + n * 10_000, n);
    }
    let recovered = (29_000, RECOVERED, Stalled, Suspected);
    assert_eq!(bench.emitted, [suspected, recovered]);
}

#[test]
fn a_client_is_not_unresponsive_while_this_hosts_window_is_closed() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.pings_unanswered = 20;
    close_window(&mut bench, &mut facts, 1_000);
    bench.until(100_000);
    assert_eq!(bench.emitted, [(11_000, FIRING, Stalled, Suspected)]);
}
