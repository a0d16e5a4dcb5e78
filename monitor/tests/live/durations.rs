//! Lifetimes and ages of connections, compared with what their peers measured.

use std::time::{Duration, Instant};

use lab::{Manner, Message, wait_until};

use crate::stage::{SOON, Stage, Watch};

const DURATION: &str = "wsmon_connection_duration_seconds";
const AGE: &str = "wsmon_connection_age_seconds";
/// The kernel's coarse clock is as old as a tick.
const TICK: Duration = Duration::from_millis(10);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_age_and_the_lifetime_of_a_connection_are_what_its_client_measured() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let before = Instant::now();
    let client = stage.client(0, "/echo", Manner::Responsive);
    let connected = Instant::now();
    watch.wait_for_metric(&format!("{AGE}_count"), &[], 1.0);
    assert_eq!(count(&watch, DURATION), 0.0, "it has not ended");
    // The age is rounded down by at most a second.
    watch.wait_for_metric(&format!("{AGE}_bucket"), &[("le", "2")], 0.0);
    assert!(before.elapsed() > Duration::from_secs(2));
    assert_eq!(count(&watch, AGE), 1.0);
    let age = watch.metric(&format!("{AGE}_sum"), &[]);
    assert!(age <= before.elapsed().as_secs_f64(), "{age} s");

    let shortest = connected.elapsed().saturating_sub(TICK);
    client.send(Message::Close(None)).unwrap();
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 1.0);
    let longest = before.elapsed() + TICK;
    assert_eq!(count(&watch, DURATION), 1.0);
    assert_eq!(count(&watch, AGE), 0.0);
    let sum = watch.metric(&format!("{DURATION}_sum"), &[]);
    assert!(
        (shortest.as_secs_f64()..=longest.as_secs_f64()).contains(&sum),
        "{sum} s, not {shortest:?} to {longest:?}"
    );
    for bound in ["1", "2", "5", "10", "20", "30", "60", "604800"] {
        let limit = Duration::from_secs(bound.parse().unwrap());
        let found = watch.metric(&format!("{DURATION}_bucket"), &[("le", bound)]);
        if limit < shortest {
            assert_eq!(found, 0.0, "up to {bound} s, after {shortest:?}");
        } else if limit >= longest {
            assert_eq!(found, 1.0, "up to {bound} s, after {longest:?}");
        }
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn every_end_counts_once_except_those_of_older_connections() {
    const ROUNDS: u64 = 20;
    let stage = Stage::new();
    let older = stage.client(3, "/echo", Manner::Responsive);
    let watch = stage.watch(&[]);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    assert_eq!(count(&watch, AGE), 0.0, "its establishment was not seen");
    for round in 1..=ROUNDS {
        let polite = stage.client(0, "/echo", Manner::Responsive);
        let resetting = stage.client(1, "/quiet", Manner::Responsive);
        polite.send(Message::Close(None)).unwrap();
        resetting.reset().unwrap();
        wait_until("the server to see both leave", SOON, || {
            stage.server.counts().closed == 2 * round
        })
        .unwrap();
    }
    let ended = 2.0 * ROUNDS as f64;
    watch.wait_for_metric("wsmon_connections_closed_total", &[], ended);
    assert_eq!(count(&watch, DURATION), ended);
    older.send(Message::Close(None)).unwrap();
    watch.wait_for_metric("wsmon_connections_closed_total", &[], ended + 1.0);
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    assert_eq!(count(&watch, DURATION), ended);
    assert_eq!(count(&watch, AGE), 0.0);
}

fn count(watch: &Watch, histogram: &str) -> f64 {
    watch.metric(&format!("{histogram}_count"), &[])
}
