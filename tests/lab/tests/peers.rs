//! The server's counts and view match what happened.

use std::time::Duration;

use lab::{Client, Counts, Direction, Lab, LabError, Manner, Message, Opcode, Server, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn lab_with_server() -> (Lab, Server) {
    let lab = Lab::new().unwrap();
    let server = Server::start(lab.server_ns(), lab.server_addr(8080)).unwrap();
    (lab, server)
}

fn connect(lab: &Lab, server: &Server, path: &str, manner: Manner) -> Client {
    let from = lab.client_addr(0);
    Client::connect(lab.client_ns(), from, &server.url(path), manner).unwrap()
}

#[test]
#[ignore = "needs root: network namespaces"]
fn only_the_kernel_of_a_deaf_client_acknowledges() {
    let (lab, server) = lab_with_server();
    let client = connect(&lab, &server, "/heartbeat?every=100ms", Manner::Deaf);
    wait_until("three pings", SOON, || server.counts().pings_sent() >= 3).unwrap();
    let view = server.connection(client.local_addr()).unwrap();
    assert_eq!(view.to_string(), "open, no error");
    assert!(view.pings_sent_at.len() >= 3);
    assert_eq!(server.counts().pongs_received(), 0);

    let mut ss = lab.server_ns().command("ss");
    ss.args(["-tniH", "dst", &client.local_addr().to_string()]);
    let tcp_info = String::from_utf8(ss.output().unwrap().stdout).unwrap();
    assert!(!tcp_info.contains("retrans:"), "{tcp_info}");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn both_ends_count_the_same_frames() {
    let (lab, server) = lab_with_server();
    let every = Duration::from_millis(20);
    let talker = connect(
        &lab,
        &server,
        "/echo",
        Manner::Talkative { every, size: 200 },
    );
    let pinger = connect(&lab, &server, "/quiet", Manner::Pinging { every });
    let echoed = || talker.view().frames.get(Direction::Rx, Opcode::Binary);
    let answered = || pinger.view().frames.get(Direction::Rx, Opcode::Pong);
    wait_until("ten echoes and ten pongs", SOON, || {
        echoed() >= 10 && answered() >= 10
    })
    .unwrap();

    for client in [&talker, &pinger] {
        client.send(Message::Close(None)).unwrap();
        wait_until("the close handshake", SOON, || !client.view().open).unwrap();
        assert_eq!(client.view().to_string(), "closed, no error");
    }
    wait_until("the server to see both closed", SOON, || {
        server.counts().closed == 2
    })
    .unwrap();
    let frames = server.counts().frames;
    for opcode in [Opcode::Binary, Opcode::Ping, Opcode::Pong, Opcode::Close] {
        let clients_sent: u64 = [&talker, &pinger]
            .map(|client| client.view().frames.get(Direction::Tx, opcode))
            .iter()
            .sum();
        assert_eq!(
            frames.get(Direction::Rx, opcode),
            clients_sent,
            "{opcode:?}"
        );
    }
    assert_eq!(frames.get(Direction::Tx, Opcode::Close), 2);
    assert!(matches!(
        talker.send(Message::text("late")),
        Err(LabError::Closed(_))
    ));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn the_server_reports_how_a_connection_ended() {
    let (lab, server) = lab_with_server();
    let resetting = connect(&lab, &server, "/quiet", Manner::Responsive);
    let crashing = connect(&lab, &server, "/quiet", Manner::Responsive);
    let (reset_peer, crash_peer) = (resetting.local_addr(), crashing.local_addr());
    resetting.reset().unwrap();
    drop(crashing);
    wait_until("both to end", SOON, || server.counts().closed == 2).unwrap();
    for peer in [reset_peer, crash_peer] {
        let view = server.connection(peer).unwrap();
        assert!(
            view.error
                .is_some_and(|error| error.to_lowercase().contains("reset"))
        );
        assert!(server.send(peer, Message::text("late")).is_err());
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_dual_stack_server_identifies_ipv4_peers_by_ipv4_address() {
    let lab = Lab::new().unwrap();
    let any = "[::]:8080".parse().unwrap();
    let server = Server::start(lab.server_ns(), any).unwrap();
    for (from, to) in [
        (lab.client_addr(1), lab.server_addr(8080)),
        (lab.client_addr_v6(1), lab.server_addr_v6(8080)),
    ] {
        let url = format!("ws://{to}/quiet");
        let client = Client::connect(lab.client_ns(), from, &url, Manner::Responsive).unwrap();
        let known = || server.connection(client.local_addr()).is_some();
        wait_until("the server to know the client", SOON, known).unwrap();
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_unknown_path_is_refused() {
    let (lab, server) = lab_with_server();
    let from = lab.client_addr(0);
    let attempt = Client::connect(lab.client_ns(), from, &server.url("/loud"), Manner::Deaf);
    let Err(LabError::Handshake { source, .. }) = attempt else {
        panic!("expected a refused handshake, got {attempt:?}");
    };
    assert!(source.to_string().contains("404"), "{source}");
    assert_eq!(server.counts(), Counts::default());
}
