//! Each way to die, when it is detected, and how the verdict ends.

use std::{
    fs,
    time::{Duration, Instant},
};

use lab::{Manner, Message, rerun_after_stalls, wait_until};

use crate::stage::{SOON, Stage, assert_between};

const LIMIT: Duration = Duration::from_secs(5);
const LIMIT_FLAG: [&str; 2] = ["--lb-timeout", "5s"];
const A_SECOND: Duration = Duration::from_secs(1);
const HEARTBEAT: &str = "/heartbeat?every=1s";

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_idle_connection_expires_within_a_second_after_the_limit_and_never_before() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        stage.lab.silent_idle_timeout(LIMIT).unwrap();
        let mut watch = stage.watch(&LIMIT_FLAG);
        let healthy = stage.client(1, HEARTBEAT, Manner::Responsive);
        let before = Instant::now();
        let idle = stage.client(0, "/quiet", Manner::Responsive);
        let peer = idle.local_addr();

        let port = [("listener", stage.port())];
        watch.wait_for_metric("wsmon_at_risk_connections", &port, 1.0);
        watch.assert_never_accused(peer);
        let alert = watch.verdict(peer, "expired", LIMIT + SOON);
        assert_between(
            before + LIMIT,
            alert.at,
            idle.connected_at() + LIMIT + A_SECOND,
        );
        assert_eq!(alert.text("/certainty"), "suspected");
        assert_eq!(alert.text("/listener"), stage.port());
        assert_eq!(alert.text("/conn/role"), "server");
        assert_eq!(alert.text("/conn/protocol"), "websocket");
        assert_eq!(alert.number("/evidence/limit_seconds"), Some(5.0));
        assert!(alert.number("/evidence/idle_seconds") >= Some(5.0));
        assert_eq!(alert.number("/evidence/unacked_bytes"), Some(0.0));

        stage.server.send(peer, Message::text("hello?")).unwrap();
        watch.alert("the confirmation", SOON, |alert| {
            alert.peer() == Some(peer) && alert.text("/certainty") == "confirmed"
        });
        let view = stage.server.connection(peer).unwrap();
        assert_eq!(view.to_string(), "open, no error");
        assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 1.0);
        watch.assert_never_accused(healthy.local_addr());
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_expired_connection_recovers_when_its_client_sends() {
    let stage = Stage::new();
    let mut watch = stage.watch(&LIMIT_FLAG);
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let peer = idle.local_addr();
    watch.verdict(peer, "expired", LIMIT + SOON);
    idle.send(Message::text("still here")).unwrap();
    assert_eq!(watch.resolution(peer, SOON), "recovered");
    let expired = [("kind", "expired")];
    assert_eq!(watch.metric("wsmon_zombies_recovered_total", &expired), 1.0);
    assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 0.0);
    // It can expire a second time.
    watch.wait_for_metric("wsmon_zombies_detected_total", &expired, 2.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_black_holed_sender_is_found_within_ten_seconds_and_recovers_when_the_path_heals() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        let mut watch = stage.watch(&["--lb-timeout", "60s"]);
        let healthy = stage.client(1, HEARTBEAT, Manner::Responsive);
        let stream = "/stream?every=200ms&size=1000";
        let victim = stage.client(0, stream, Manner::Responsive);
        let peer = victim.local_addr();
        let tx = [("direction", "tx"), ("opcode", "binary")];
        watch.wait_for_metric("wsmon_frames_total", &tx, 3.0);

        let dropped_at = Instant::now();
        stage.lab.black_hole(stage.lab.client_addr(0)).unwrap();
        let alert = watch.verdict(peer, "black_holed", SOON);
        assert_between(dropped_at, alert.at, dropped_at + Duration::from_secs(10));
        assert_eq!(alert.text("/certainty"), "confirmed");
        assert!(alert.number("/evidence/unacked_bytes") >= Some(1000.0));
        assert!(alert.number("/evidence/retransmits") >= Some(5.0));
        let view = stage.server.connection(peer).unwrap();
        assert_eq!(view.to_string(), "open, no error");

        // The next retransmission may come after 7 s, the one after that after 13 s.
        stage.lab.heal(stage.lab.client_addr(0)).unwrap();
        assert_eq!(watch.resolution(peer, SOON + SOON), "recovered");
        assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 0.0);
        watch.assert_never_accused(healthy.local_addr());
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_deaf_client_is_suspected_at_its_second_ping_and_confirmed_after_the_floor() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        let mut watch = stage.watch(&["--lb-timeout", "60s"]);
        let healthy = stage.client(1, HEARTBEAT, Manner::Responsive);
        let deaf = stage.client(0, HEARTBEAT, Manner::Deaf);
        let peer = deaf.local_addr();
        let alert = watch.verdict(peer, "unresponsive", SOON);
        let view = stage.server.connection(peer).unwrap();
        assert_eq!(view.to_string(), "open, no error");
        let second_ping = view.pings_sent_at[1];
        assert_between(
            second_ping,
            alert.at,
            second_ping + Duration::from_millis(1500),
        );
        assert_eq!(alert.text("/certainty"), "suspected");
        assert!(alert.number("/evidence/pings_unanswered") >= Some(2.0));
        assert_eq!(alert.number("/evidence/retransmits"), Some(0.0));
        let confirmed = watch.alert("the confirmation", SOON, |alert| {
            alert.peer() == Some(peer) && alert.text("/certainty") == "confirmed"
        });
        let floor = view.pings_sent_at[0] + Duration::from_secs(10);
        assert_between(floor, confirmed.at, floor + A_SECOND);
        assert_eq!(confirmed.number("/evidence/limit_seconds"), Some(10.0));
        watch.assert_never_accused(healthy.local_addr());
    });
}

/// Like a client that uploads over a slow link: its pongs wait behind its data.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_client_whose_data_arrives_is_alive_with_any_number_of_pending_pings() {
    let stage = Stage::new();
    let flags = ["--lb-timeout", "60s", "--unresponsive-floor", "2s"];
    let mut watch = stage.watch(&flags);
    let uploading = stage.client(0, "/heartbeat?every=400ms", Manner::Deaf);
    let peer = uploading.local_addr();
    let began = Instant::now();
    wait_until("a dozen pings without a pong", SOON, || {
        uploading.send(Message::text("more")).unwrap();
        let view = stage.server.connection(peer).unwrap();
        began.elapsed() > A_SECOND * 5 && view.pings_sent_at.len() > 10
    })
    .unwrap();
    watch.assert_never_accused(peer);
    // Then it stops sending.
    watch.verdict(peer, "unresponsive", SOON);
}

/// Packets show it before a scan of the sockets can.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_server_that_does_not_read_is_stalled_until_it_reads_on() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        let mut watch = stage.watch(&["--lb-timeout", "60s"]);
        let uploading = stage.client(0, "/deaf", Manner::Responsive);
        let peer = uploading.local_addr();
        let began = Instant::now();
        let more_than_fits = vec![0x77; 8 << 20];
        uploading
            .send(Message::Binary(more_than_fits.into()))
            .unwrap();
        let alert = watch.verdict(peer, "stalled", SOON);
        assert_between(
            began + Duration::from_secs(10),
            alert.at,
            began + Duration::from_secs(12),
        );
        assert_eq!(alert.text("/certainty"), "suspected");
        assert_eq!(alert.number("/evidence/limit_seconds"), Some(10.0));
        assert!(alert.number("/evidence/tcp/unread_bytes") > Some(0.0));
        stage.server.read_on(peer).unwrap();
        assert_eq!(watch.resolution(peer, SOON), "recovered");
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_reset_ends_an_expired_connection_without_recovery() {
    let stage = Stage::new();
    let mut watch = stage.watch(&LIMIT_FLAG);
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let peer = idle.local_addr();
    watch.verdict(peer, "expired", LIMIT + SOON);
    // Like a load balancer that answers the next packet with a RST.
    idle.reset().unwrap();
    assert_eq!(watch.resolution(peer, SOON), "rst_received");
    assert_eq!(watch.metric("wsmon_zombies_recovered_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 0.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn each_verdict_ends_with_its_connection_and_reports_how_it_ended() {
    let stage = Stage::new();
    // TCP gives up after 13 s instead of 15 minutes.
    stage
        .lab
        .server_ns()
        .run(|| fs::write("/proc/sys/net/ipv4/tcp_retries2", "5"))
        .unwrap()
        .unwrap();
    let mut watch = stage.watch(&["--lb-timeout", "60s"]);
    let stream = "/stream?every=200ms&size=100";
    let black_holed = stage.client(0, stream, Manner::Responsive);
    let deaf = stage.client(2, HEARTBEAT, Manner::Deaf);
    stage.lab.black_hole(stage.lab.client_addr(0)).unwrap();

    watch.verdict(deaf.local_addr(), "unresponsive", SOON);
    watch.verdict(black_holed.local_addr(), "black_holed", SOON);
    for kind in ["black_holed", "unresponsive"] {
        let gauge = watch.metric("wsmon_zombie_connections", &[("kind", kind)]);
        assert_eq!(gauge, 1.0, "{kind}");
    }

    let deaf_peer = deaf.local_addr();
    // It has not read the pings, so its kernel sends a RST on close.
    drop(deaf);
    assert_eq!(watch.resolution(deaf_peer, SOON), "rst_received");
    let timeout = watch.resolution(black_holed.local_addr(), SOON + SOON);
    assert_eq!(timeout, "timeout");
    assert_eq!(watch.metric("wsmon_zombie_connections", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_zombies_recovered_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_abnormal_closures_total", &[]), 2.0);
    assert_eq!(watch.metric("wsmon_connections", &[]), 0.0);
}
