//! In the lab, connections die as they do behind a real load balancer.

use std::{net::SocketAddr, time::Duration};

use lab::{Client, Direction, Lab, Manner, Message, Opcode, Server, wait_until};

const SOON: Duration = Duration::from_secs(10);

fn lab_with_server() -> (Lab, Server) {
    let lab = Lab::new().unwrap();
    let server = Server::start(lab.server_ns(), lab.server_addr(8080)).unwrap();
    (lab, server)
}

fn connect(lab: &Lab, server: &Server, index: u8, path: &str, manner: Manner) -> Client {
    let from = lab.client_addr(index);
    Client::connect(lab.client_ns(), from, &server.url(path), manner).unwrap()
}

fn tcp_state_at_server(lab: &Lab, peer: SocketAddr) -> String {
    let mut ss = lab.server_ns().command("ss");
    ss.args(["-tnH", "dst", &peer.to_string()]);
    let output = String::from_utf8(ss.output().unwrap().stdout).unwrap();
    output
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_connection_idle_past_the_timeout_is_silently_forgotten() {
    let (lab, server) = lab_with_server();
    let timeout = Duration::from_secs(1);
    lab.silent_idle_timeout(timeout).unwrap();
    let client = connect(&lab, &server, 0, "/quiet", Manner::Responsive);
    wait_until("the idle timeout to pass", SOON, || {
        client.connected_at().elapsed() > timeout + Duration::from_millis(100)
    })
    .unwrap();
    assert_eq!(lab.dropped_packets().unwrap().forgotten, 0);

    server
        .send(client.local_addr(), Message::text("are you there"))
        .unwrap();
    let forgotten = || lab.dropped_packets().unwrap().forgotten;
    wait_until("two unanswered transmissions", SOON, || forgotten() >= 2).unwrap();
    let from_server = forgotten();
    client.send(Message::text("are you there")).unwrap();
    wait_until("the client's packets to be dropped too", SOON, || {
        forgotten() > from_server
    })
    .unwrap();

    for view in [
        server.connection(client.local_addr()).unwrap(),
        client.view(),
    ] {
        assert_eq!(view.to_string(), "open, no error");
        assert_eq!(view.frames.get(Direction::Tx, Opcode::Text), 1);
        assert_eq!(view.frames.get(Direction::Rx, Opcode::Text), 0);
    }
    assert_eq!(tcp_state_at_server(&lab, client.local_addr()), "ESTAB");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_heartbeat_inside_the_timeout_keeps_the_connection() {
    let (lab, server) = lab_with_server();
    lab.silent_idle_timeout(Duration::from_secs(1)).unwrap();
    let client = connect(
        &lab,
        &server,
        0,
        "/heartbeat?every=400ms",
        Manner::Responsive,
    );
    wait_until("five pongs, twice the timeout", SOON, || {
        server.counts().pongs_received() >= 5
    })
    .unwrap();
    assert_eq!(lab.dropped_packets().unwrap().forgotten, 0);
    assert!(client.connected_at().elapsed() >= Duration::from_secs(2));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn the_timeout_can_be_changed_and_must_be_whole_seconds() {
    let lab = Lab::new().unwrap();
    lab.silent_idle_timeout(Duration::from_secs(2)).unwrap();
    lab.silent_idle_timeout(Duration::from_secs(60)).unwrap();
    for wrong in [Duration::ZERO, Duration::from_millis(1500)] {
        assert!(lab.silent_idle_timeout(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_black_hole_affects_only_one_client_and_heals() {
    let (lab, server) = lab_with_server();
    let stream = "/stream?every=50ms&size=100";
    let victim = connect(&lab, &server, 0, stream, Manner::Responsive);
    let neighbour = connect(&lab, &server, 1, stream, Manner::Responsive);
    let received = |client: &Client| client.view().frames.get(Direction::Rx, Opcode::Binary);
    wait_until("the first messages", SOON, || received(&victim) >= 2).unwrap();

    lab.black_hole(lab.client_addr(0)).unwrap();
    let before = received(&victim);
    let neighbour_before = received(&neighbour);
    wait_until("retransmissions to be dropped", SOON, || {
        lab.dropped_packets().unwrap().black_holed >= 3
    })
    .unwrap();
    wait_until("the neighbour to receive more", SOON, || {
        received(&neighbour) > neighbour_before + 3
    })
    .unwrap();
    assert!(
        received(&victim) <= before + 1,
        "one message may have been in flight"
    );
    assert!(server.connection(victim.local_addr()).unwrap().open);

    lab.heal(lab.client_addr(0)).unwrap();
    lab.heal(lab.client_addr(0)).unwrap();
    wait_until("the stream to continue", SOON, || {
        received(&victim) > before + 3
    })
    .unwrap();
}

#[test]
#[ignore = "needs root: network namespaces"]
fn ipv6_connections_behave_the_same() {
    let lab = Lab::new().unwrap();
    lab.silent_idle_timeout(Duration::from_secs(60)).unwrap();
    let server = Server::start(lab.server_ns(), lab.server_addr_v6(8080)).unwrap();
    let from = lab.client_addr_v6(3);
    let stream = server.url("/stream?every=50ms&size=10");
    let client = Client::connect(lab.client_ns(), from, &stream, Manner::Responsive).unwrap();
    let received = || client.view().frames.get(Direction::Rx, Opcode::Binary);
    wait_until("the first messages", SOON, || received() >= 2).unwrap();
    lab.black_hole(from).unwrap();
    wait_until("packets to be dropped", SOON, || {
        lab.dropped_packets().unwrap().black_holed >= 2
    })
    .unwrap();
    assert_eq!(lab.dropped_packets().unwrap().forgotten, 0);
}
