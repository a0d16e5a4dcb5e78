//! Which connections are watched, and how many.

use std::time::{Duration, Instant};

use lab::Manner;

use crate::stage::{SOON, Stage, Watch, assert_between};

const LIMIT: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_outgoing_connection_expires_like_an_accepted_one() {
    let stage = Stage::new();
    let flags = ["--remote-port", stage.port(), "--lb-timeout", "3s"];
    let mut watch = Watch::start(&flags);
    let before = Instant::now();
    let client = stage.client(0, "/quiet", Manner::Responsive);
    // From its own socket's perspective the peer is the server.
    let alert = watch.verdict(stage.server.addr(), "expired", LIMIT + SOON);
    assert_between(
        before + LIMIT,
        alert.at,
        client.connected_at() + LIMIT + Duration::from_secs(1),
    );
    assert_eq!(alert.text("/conn/role"), "client");
    assert_eq!(alert.text("/conn/local"), client.local_addr().to_string());
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), 1.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_connection_with_both_ends_on_this_host_counts_once() {
    let stage = Stage::new();
    let older = stage.client(0, "/echo", Manner::Responsive);
    let mut watch = stage.watch(&["--lb-timeout", "3s"]);
    assert_eq!(watch.metric("wsmon_connections", &[]), 1.0);
    let every = Duration::from_secs(1);
    let newer = stage.client(1, "/echo", Manner::Talkative { every, size: 10 });
    watch.wait_for_metric("wsmon_connections_opened_total", &[], 1.0);
    let echoes = [("opcode", "binary"), ("direction", "tx")];
    watch.wait_for_metric("wsmon_frames_total", &echoes, 3.0);
    watch.verdict(older.local_addr(), "expired", SOON);
    assert_eq!(watch.metric("wsmon_connections", &[]), 2.0);
    assert_eq!(watch.metric("wsmon_zombies_detected_total", &[]), 1.0);
    watch.assert_never_accused(newer.local_addr());
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_beyond_the_table_size_are_counted_and_the_rest_is_judged() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "3s", "--max-connections", "5"]);
    assert_eq!(watch.metric("wsmon_degraded", &[]), 0.0);
    let tracked: Vec<_> = (0..5)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    watch.wait_for_metric("wsmon_connections", &[], 5.0);
    let untracked: Vec<_> = (5..8)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    let full = [("reason", "snapshots_full")];
    watch.wait_for_metric("wsmon_untracked_connections_total", &full, 3.0);
    assert_eq!(watch.metric("wsmon_degraded", &[]), 1.0);
    for client in &tracked {
        watch.verdict(client.local_addr(), "expired", SOON);
    }
    for client in &untracked {
        watch.assert_never_accused(client.local_addr());
        assert!(client.view().open);
    }
    let full = watch.metric("wsmon_untracked_connections_total", &full);
    assert_eq!(full, 3.0, "each is counted once");

    // Freed slots are reused.
    drop(tracked);
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    let late = stage.client(9, "/quiet", Manner::Responsive);
    watch.verdict(late.local_addr(), "expired", SOON);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn older_connections_beyond_the_table_size_are_counted_too() {
    let stage = Stage::new();
    let older: Vec<_> = (0..8)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    let watch = stage.watch(&["--lb-timeout", "3s", "--max-connections", "5"]);
    assert_eq!(watch.metric("wsmon_connections", &[]), 5.0);
    let no_room = [("reason", "no_room_at_start")];
    let untracked = watch.metric("wsmon_untracked_connections_total", &no_room);
    assert_eq!(untracked, 3.0);
    assert_eq!(watch.metric("wsmon_degraded", &[]), 1.0);
    let log = watch.daemon.log();
    assert!(log.contains("5 connections older than this start"), "{log}");
    assert!(log.contains("not watched: 3 older connections"), "{log}");
    assert!(older.iter().all(|client| client.view().open));
}
