//! The table of connections, its deadlines and its counts.

use super::*;
use crate::connection_ages::ConnectionAges;

#[test]
fn a_chatty_flow_is_checked_once_per_four_fifths_of_the_limit() {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    for at in (0..60_000).step_by(100) {
        facts.rx.last_packet = Some(ms(at));
        bench.snapshot = Some(facts.clone());
        bench.until(at);
    }
    assert!(bench.checks <= 13, "{} checks in 60 s", bench.checks);
    assert_eq!(bench.emitted, []);
}

#[test]
fn the_entry_of_a_closed_flow_does_not_wake_its_successor() {
    let (mut bench, facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.closed(CloseHow::Fin, 4_000, &facts);
    bench.event(Event::Opened(Box::new(Facts::just_opened(1, ms(4_000)))));
    bench.until(8_799);
    assert_eq!(bench.checks, 0);
    bench.until(8_800);
    assert_eq!(bench.checks, 1);
}

#[test]
fn a_vanished_socket_gets_a_grace_period_for_its_close_event() {
    let (mut bench, facts) = Bench::opened(Some(OnExpiry::Silent));
    bench.snapshot = None;
    bench.until(9_000);
    assert_eq!(bench.core.len(), 1);
    bench.until(10_000);
    assert_eq!(bench.core.len(), 0);
    assert_eq!(bench.emitted, []);
    assert_eq!(bench.core.poll_timeout(), None);
    bench.closed(CloseHow::Fin, 10_001, &facts);
    assert_eq!(bench.tally().abnormal_closures, 1, "a late close");
}

#[test]
fn lost_records_request_one_reconciliation_at_a_time() {
    let mut core = Bench::behind(None).core;
    core.handle_event(Event::Lost { at: ms(1) });
    core.handle_event(Event::Lost { at: ms(2) });
    assert_eq!(core.poll_action(), Some(Action::Reconcile));
    assert_eq!(core.poll_action(), None);
}

#[test]
fn reconciliation_reads_the_snapshot_of_a_known_flow() {
    let (mut bench, mut facts) = Bench::opened(None);
    ping(&mut facts, 1_000);
    ping(&mut facts, 2_000);
    bench.trouble(Trouble::PingUnanswered, 2_000, &facts);
    bench.until(4_000);
    let checks = bench.checks;
    // sock_diag has no facts on pings, so judging its facts would resolve the alert.
    let seeded = Facts {
        protocol: Protocol::Assumed,
        ..Facts::just_opened(1, ms(4_000))
    };
    bench.event(Event::Seeded(Box::new(seeded)));
    bench.show(ms(4_000));
    assert_eq!(bench.checks, checks + 1);
    assert_eq!(bench.emitted.len(), 1);
    assert_eq!(
        bench.tally().counts.connections[Protocol::WebSocket as usize].open,
        1
    );
}

#[test]
fn a_flow_older_than_the_daemon_is_judged_at_the_same_moment() {
    let mut bench = Bench::behind(Some(OnExpiry::Silent));
    let mut facts = Facts {
        established_at: None,
        ..Facts::just_opened(1, ms(5_000))
    };
    facts.rx.last_packet = Some(ms(1_000));
    bench.snapshot = Some(facts.clone());
    bench.event(Event::Seeded(Box::new(facts)));
    bench.until(9_000);
    assert_eq!(bench.emitted, [(7_260, FIRING, Expired, Suspected)]);
}

#[test]
fn an_unknown_listener_is_counted_and_ignored() {
    let mut core = Bench::behind(None).core;
    let facts = Box::new(Facts {
        listener: ListenerId(7),
        ..Facts::just_opened(1, ms(1))
    });
    core.handle_event(Event::Opened(facts.clone()));
    core.handle_event(Event::Closed {
        facts,
        how: CloseHow::Fin,
    });
    assert_eq!((core.rejected(), core.len()), (2, 0));
}

#[test]
fn closes_are_tallied_by_code_and_without_one_as_abnormal() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.tx.last_payload = Some(ms(1_000));
    facts.rx.last_packet = Some(ms(61_000));
    bench.closed(CloseHow::RstReceived, 61_500, &facts);
    let tally = bench.tally();
    assert_eq!(
        (tally.abnormal_closures, tally.idle_at_death.sum().as_secs()),
        (1, 60)
    );
    assert_eq!(tally.age_at_death.sum(), Duration::from_millis(61_500));

    facts.close = Some(Close {
        initiator: Direction::Rx,
        code: Some(1001),
    });
    bench.closed(CloseHow::CloseFrame, 62_000, &facts);
    let tally = bench.tally();
    assert_eq!(tally.close_codes.counts[&(Direction::Rx, Some(1001))], 1);
    assert_eq!(
        (tally.abnormal_closures, tally.idle_at_death.count()),
        (1, 1)
    );
    assert_eq!(
        tally
            .counts
            .connections
            .map(|phases| phases.open + phases.closing),
        [0; 3]
    );
}

#[test]
fn a_lifetime_counts_once_if_its_beginning_and_its_end_were_seen() {
    let (mut bench, facts) = Bench::opened(None);
    let established_at = facts.established_at.expect("seen");
    bench.closed(CloseHow::Fin, 61_500, &facts);
    let older = Facts {
        established_at: None,
        ..Facts::just_opened(2, ms(62_000))
    };
    bench.event(Event::Seeded(Box::new(older.clone())));
    bench.closed(CloseHow::Fin, 63_000, &older);
    bench.event(Event::Opened(Box::new(Facts::just_opened(3, ms(63_000)))));
    bench.event(Event::Gone {
        conn: ConnId(3),
        at: ms(64_000),
    });
    let durations = &bench.tally().counts.durations;
    assert_eq!(durations.count(), 1, "neither an older one nor a lost end");
    assert_eq!(durations.sum(), ms(61_500).since(established_at));
}

#[test]
fn an_age_counts_while_the_connection_is_in_the_table_and_its_establishment_is_known() {
    let mut bench = Bench::behind(None);
    let ages = |bench: &Bench, at| bench.tally().ages.histogram(ms(at));
    let found_first = Facts {
        established_at: None,
        ..Facts::just_opened(1, ms(10_000))
    };
    bench.event(Event::Seeded(Box::new(found_first)));
    assert_eq!(ages(&bench, 10_000).count(), 0);
    let facts = Facts::just_opened(1, ms(10_000));
    for _ in 0..2 {
        bench.event(Event::Opened(Box::new(facts.clone())));
    }
    assert_eq!(ages(&bench, 71_000).count(), 1);
    assert_eq!(ages(&bench, 71_000).sum(), Duration::from_secs(60));
    bench.closed(CloseHow::Fin, 71_500, &facts);
    assert_eq!(ages(&bench, 72_000).count(), 0);
    bench.event(Event::Opened(Box::new(Facts::just_opened(2, ms(73_000)))));
    bench.event(Event::Gone {
        conn: ConnId(2),
        at: ms(74_000),
    });
    assert_eq!(bench.tally().ages, ConnectionAges::default());
}

#[test]
fn a_protocol_that_becomes_known_moves_the_gauge() {
    let mut bench = Bench::behind(None);
    let assumed = Facts {
        protocol: Protocol::Assumed,
        ..Facts::just_opened(1, ms(0))
    };
    bench.event(Event::Opened(Box::new(assumed.clone())));
    bench.event(Event::Opened(Box::new(Facts {
        protocol: Protocol::WebSocket,
        ..assumed
    })));
    assert_eq!(
        bench.tally().counts.connections.map(|phases| phases.open),
        [1, 0, 0]
    );
}

#[test]
fn a_flow_that_is_not_a_websocket_is_forgotten() {
    let (mut bench, _) = Bench::opened(Some(OnExpiry::Silent));
    bench.until(7_000);
    bench.event(Event::Dismissed {
        conn: ConnId(1),
        at: ms(8_000),
    });
    assert_eq!(bench.emitted[1], (8_000, RECOVERED, Expired, Suspected));
    assert!(bench.core.is_empty());
    assert_eq!(bench.tally().counts.zombies, [0; 7]);
}
