//! Connections older than the daemon.

use std::time::{Duration, Instant};

use lab::{Client, Direction, Lab, Manner, Opcode, Server, rerun_after_stalls, wait_until};

use crate::stage::{SOON, Stage, Watch, assert_between, fresh_port};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_connection_twenty_seconds_older_than_the_daemon_expires_at_the_same_moment() {
    rerun_after_stalls(|| {
        const HEAD_START: Duration = Duration::from_secs(20);
        const LIMIT: Duration = Duration::from_secs(25);
        let stage = Stage::new();
        stage.lab.silent_idle_timeout(LIMIT).unwrap();
        let before = Instant::now();
        let idle = stage.client(0, "/quiet", Manner::Responsive);
        let healthy = stage.client(1, "/heartbeat?every=4s", Manner::Responsive);
        wait_until("the head start", HEAD_START + SOON, || {
            idle.connected_at().elapsed() >= HEAD_START
        })
        .unwrap();

        let mut watch = stage.watch(&["--lb-timeout", "25s"]);
        assert_eq!(watch.metric("wsmon_connections", &[]), 2.0);
        assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), 0.0);
        let alert = watch.verdict(idle.local_addr(), "expired", LIMIT);
        assert_between(
            before + LIMIT,
            alert.at,
            idle.connected_at() + LIMIT + Duration::from_secs(1),
        );
        assert!(alert.number("/evidence/idle_seconds") >= Some(25.0));
        watch.assert_never_accused(healthy.local_addr());
    });
}

/// When an older connection ends, the kernel removes its snapshot as well, without a warning in the
/// log.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn older_connections_end_without_a_line_in_the_log() {
    let stage = Stage::new();
    let older = stage.client(0, "/quiet", Manner::Responsive);
    let busy = stage.client(1, "/heartbeat?every=100ms", Manner::Responsive);
    let mut watch = stage.watch(&[]);
    assert_eq!(watch.metric("wsmon_connections", &[]), 2.0);
    let pings = [("direction", "tx")];
    wait_until("packets of one of them", SOON, || {
        watch.metric("wsmon_pings_total", &pings) >= 3.0
    })
    .unwrap();
    drop((older, busy));
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 2.0);
    assert_eq!(watch.daemon.complaints(&[]).unwrap(), Vec::<String>::new());
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_that_died_before_the_start_are_found_at_once() {
    rerun_after_stalls(|| {
        let stage = Stage::new();
        let idle = stage.client(0, "/quiet", Manner::Responsive);
        let stream = "/stream?every=200ms&size=1000";
        let victim = stage.client(1, stream, Manner::Responsive);
        let streaming = || victim.view().frames.get(Direction::Rx, Opcode::Binary) >= 2;
        wait_until("the stream to flow", SOON, streaming).unwrap();
        let dropped_at = Instant::now();
        stage.lab.black_hole(stage.lab.client_addr(1)).unwrap();
        wait_until("both to be long dead", SOON, || {
            dropped_at.elapsed() >= Duration::from_secs(8)
        })
        .unwrap();

        let mut watch = stage.watch(&["--lb-timeout", "5s"]);
        let ready_at = Instant::now();
        for (client, kind) in [(&idle, "expired"), (&victim, "black_holed")] {
            let alert = watch.verdict(client.local_addr(), kind, SOON);
            let latest = ready_at + Duration::from_secs(1);
            assert_between(dropped_at, alert.at, latest);
        }
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_older_heartbeat_and_its_end_are_detected_over_ipv4_ipv6_and_mapped_addresses() {
    rerun_after_stalls(|| {
        let lab = Lab::new().unwrap();
        let (v4_port, dual_port) = (fresh_port(), fresh_port());
        let v4 = Server::start(lab.server_ns(), lab.server_addr(v4_port)).unwrap();
        let any = format!("[::]:{dual_port}").parse().unwrap();
        let dual = Server::start(lab.server_ns(), any).unwrap();
        let heartbeats = [
            (&v4, lab.client_addr(0), lab.server_addr(v4_port)),
            (&dual, lab.client_addr(1), lab.server_addr(dual_port)),
            (&dual, lab.client_addr_v6(2), lab.server_addr_v6(dual_port)),
        ]
        .map(|(server, from, to)| {
            let url = format!("ws://{to}/heartbeat?every=1s");
            let client = Client::connect(lab.client_ns(), from, &url, Manner::Responsive).unwrap();
            (server, client)
        });
        wait_until("a pong from each", SOON, || {
            v4.counts().pongs_received() >= 1 && dual.counts().pongs_received() >= 2
        })
        .unwrap();

        let ports = [v4_port, dual_port].map(|port| port.to_string());
        let mut watch = Watch::start(&["--port", &ports[0], "--port", &ports[1]]);
        let known = [("protocol", "websocket"), ("state", "open")];
        watch.wait_for_metric("wsmon_connections", &known, 3.0);
        assert_eq!(watch.metric("wsmon_connections", &[]), 3.0);

        for (_, client) in &heartbeats {
            client.go_deaf().unwrap();
        }
        for (server, client) in &heartbeats {
            let peer = client.local_addr();
            let alert = watch.verdict(peer, "unresponsive", SOON);
            let answered = client.view().frames.get(Direction::Rx, Opcode::Ping);
            let pings = server.connection(peer).unwrap().pings_sent_at;
            let second_unanswered = pings[usize::try_from(answered).unwrap() + 1];
            assert_between(
                second_unanswered,
                alert.at,
                second_unanswered + Duration::from_millis(1500),
            );
            assert_eq!(alert.text("/conn/protocol"), "websocket");
        }
    });
}
