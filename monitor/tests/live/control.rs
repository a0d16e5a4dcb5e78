//! The control socket's view of connections.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use lab::{Manner, Message, wait_until};
use serde_json::Value;

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::{
    stage::{SOON, Stage},
    viewer::{Viewer, query, reported},
};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_are_listed_oldest_first_and_each_filter_works() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    assert_eq!(reported(control, &["list"]), "no connections\n");
    assert_eq!(reported(control, &["list", "--json"]), "");
    let clients: Vec<_> = (0..3)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    watch.wait_for_metric("wsmon_connections", &[], 3.0);

    let listed = |args: &[&str]| -> Vec<Value> {
        let text = reported(control, &[&["list", "--json"], args].concat());
        text.lines().map(|line| json(line.as_bytes())).collect()
    };
    let opened = |record: &Value| record["states"][1]["ts"].as_str().unwrap().to_owned();
    let peer = |record: &Value| record["peer"].as_str().unwrap().to_owned();
    let peers = |args: &[&str]| listed(args).iter().map(peer).collect::<Vec<_>>();
    // Connections opened within one tick are sorted by cookie, which processors assign in batches.
    let all = listed(&[]);
    assert!(all.is_sorted_by_key(opened));
    let addrs: Vec<_> = all.iter().map(peer).collect();
    let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().to_string()).collect();
    assert_eq!(
        addrs.iter().collect::<BTreeSet<_>>(),
        expected.iter().collect()
    );
    assert_eq!(peers(&["--limit", "2"]), addrs[..2]);
    assert_eq!(peers(&["--state", "open"]), addrs);
    assert_eq!(peers(&["--state", "closing"]), Vec::<String>::new());
    assert_eq!(peers(&["--listener", stage.port()]), addrs);
    let second = clients[1].local_addr().ip().to_string();
    assert_eq!(peers(&["--peer", &second]), [expected.remove(1)]);

    let table = reported(control, &["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("COOKIE "), "{table}");
    for (line, addr) in lines[1..].iter().zip(&addrs) {
        assert!(line.contains(addr.as_str()), "{table}");
        assert!(line.contains("websocket"), "{table}");
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_are_sorted_by_their_figures_before_the_limit_applies() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let clients: Vec<_> = (0..3)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    clients[0].send(Message::text("x".repeat(1000))).unwrap();
    for message in ["a", "b", "c"] {
        clients[2].send(Message::text(message)).unwrap();
    }
    // A ping publishes everything before it at once. The second client is the last that speaks.
    for (client, pings) in [(0, 1), (2, 2), (1, 3)] {
        clients[client].send(Message::Ping("".into())).unwrap();
        watch.wait_for_metric(
            "wsmon_pings_total",
            &[("direction", "rx")],
            f64::from(pings),
        );
    }
    let peers = |args: &[&str]| -> Vec<String> {
        let text = reported(control, &[&["list", "--json"], args].concat());
        let records = text.lines().map(|line| json(line.as_bytes()));
        let peer = |record: Value| record["peer"].as_str().unwrap().to_owned();
        records.map(peer).collect()
    };
    let expected = |order: [usize; 3]| order.map(|index| clients[index].local_addr().to_string());
    assert_eq!(peers(&["--sort", "frames"]), expected([2, 0, 1]));
    assert_eq!(peers(&["--sort", "bytes"]), expected([0, 2, 1]));
    assert_eq!(peers(&["--sort", "retransmits"]).len(), 3);
    let highest = peers(&["--sort", "frames", "--limit", "1"]);
    assert_eq!(highest, expected([2, 0, 1])[..1]);
    let second = clients[1].local_addr().ip().to_string();
    let chosen = peers(&["--sort", "bytes", "--limit", "1", "--peer", &second]);
    assert_eq!(chosen, expected([1, 0, 2])[..1], "others take no place");
    // Connections idle since the same tick of 8.4 ms are tied, until the second client speaks again.
    let last = &expected([0, 2, 1])[2];
    wait_until("the last speaker to be the least idle", SOON, || {
        clients[1].send(Message::Ping("".into())).unwrap();
        peers(&["--sort", "idle"]).last() == Some(last)
    })
    .unwrap();

    let invalid = query(control, &["list", "--sort", "colour"]);
    assert_eq!(invalid.status.code(), Some(2));
    let said = String::from_utf8(invalid.stderr).unwrap();
    let valid = "age, urgency, idle, retransmits, queue, frames, bytes, rx-rate, tx-rate";
    assert!(said.contains(valid), "{said}");
    let refused = get(control, "/v1/connections?order=colour");
    for order in valid.split(", ") {
        assert!(refused.contains(order), "{refused}");
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn ended_connections_are_listed_as_of_their_end_the_latest_first() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    assert_eq!(reported(control, &["list", "--ended"]), "no connections\n");
    let clients: Vec<_> = (0..4)
        .map(|index| stage.client(index, "/quiet", Manner::Responsive))
        .collect();
    for (ended, client) in (1..).zip([1, 0, 2]) {
        clients[client].send(Message::Close(None)).unwrap();
        watch.wait_for_metric("wsmon_connections_closed_total", &[], f64::from(ended));
    }
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    let listed = |args: &[&str]| -> Vec<Value> {
        let text = reported(control, &[&["list", "--ended", "--json"], args].concat());
        text.lines().map(|line| json(line.as_bytes())).collect()
    };
    let peers = |args: &[&str]| -> Vec<String> {
        let peer = |record: &Value| record["peer"].as_str().unwrap().to_owned();
        listed(args).iter().map(peer).collect()
    };
    let addr = |index: usize| clients[index].local_addr().to_string();
    assert_eq!(peers(&[]), [2, 0, 1].map(addr));
    assert_eq!(peers(&["--limit", "2"]), [2, 0].map(addr));
    let first = clients[1].local_addr().ip().to_string();
    assert_eq!(peers(&["--peer", &first]), [addr(1)]);
    for record in listed(&[]) {
        assert_eq!(
            (&record["type"], &record["state"]),
            (&"connection".into(), &"closed".into())
        );
        let cookie = record["cookie"].as_str().unwrap();
        let inspected = json(reported(control, &["inspect", cookie, "--json"]).as_bytes());
        assert_eq!(inspected["cookie"], record["cookie"]);
        assert_eq!(inspected["age_seconds"], record["age_seconds"]);
    }
    let table = reported(control, &["list", "--ended"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].ends_with(" ENDED"), "{table}");
    assert!(
        lines[1].contains(&addr(2)) && lines[1].ends_with(" close_frame"),
        "{table}"
    );
    assert_eq!(reported(control, &["list", "--json"]).lines().count(), 1);
    assert!(get(control, "/v1/connections?ended=true&order=idle").contains("without order"));
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_connection_can_be_inspected_before_and_after_its_end() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "2s"]);
    let client = stage.client(0, "/quiet", Manner::Responsive);
    client.send(Message::text("hello")).unwrap();
    // A ping publishes everything before it at once.
    client.send(Message::Ping("12".into())).unwrap();
    let alert = watch.verdict(client.local_addr(), "expired", SOON);
    let cookie = alert.text("/conn/cookie").to_owned();
    let control = watch.daemon.control();
    let inspect = || json(reported(control, &["inspect", &cookie, "--json"]).as_bytes());
    let alive = inspect();
    assert_eq!(alive["cookie"], cookie);
    assert_eq!(alive["peer"], client.local_addr().to_string());
    assert_eq!(alive["local"], stage.server.addr().to_string());
    assert_eq!(alive["role"], "server");
    assert_eq!(alive["state"], "open");
    let states = |record: &Value| -> Vec<Value> {
        let states = record["states"].as_array().unwrap();
        states.iter().map(|s| s["state"].clone()).collect()
    };
    assert_eq!(states(&alive), ["connecting", "open"]);
    assert_eq!(alive["handshake"]["path"], "/quiet");
    assert_eq!(alive["handshake"]["faults"], Value::Array(vec![]));
    assert_eq!(alive["verdict"]["kind"], "expired");
    assert_eq!(alive["verdict"]["reason"], alert.json["reason"]);
    assert_eq!(alive["rx"]["frames"], 2);
    assert_eq!(alive["rx"]["payload_bytes"], 7);
    assert_eq!(alive["rx"]["pings"], 1);
    assert_eq!(alive["rx"]["pings_unanswered"], 0);
    assert!(alive["rx"]["ping_rtt_seconds"].as_f64() > Some(0.0));
    assert!(alive["idle_seconds"].as_f64() >= Some(2.0), "{alive}");
    let page = reported(control, &["inspect", &cookie]);
    assert!(
        page.starts_with(&format!("connection {cookie} at ")),
        "{page}"
    );
    assert!(page.contains("verdict    expired (suspected)"), "{page}");

    let standing = get(control, "/v1/alerts");
    let standing: Vec<Value> = standing.lines().map(|line| json(line.as_bytes())).collect();
    assert_eq!(standing.len(), 1);
    for field in ["status", "kind", "certainty", "reason", "listener", "hop"] {
        assert_eq!(standing[0][field], alert.json[field], "{field}");
    }
    assert_eq!(standing[0]["conn"]["cookie"], cookie);

    client.send(Message::Close(None)).unwrap();
    let closed = [("how", "close_frame")];
    watch.wait_for_metric("wsmon_connections_closed_total", &closed, 1.0);
    assert_eq!(get(control, "/v1/alerts"), "");
    let control = watch.daemon.control();
    let over = json(reported(control, &["inspect", &cookie, "--json"]).as_bytes());
    assert_eq!(over["state"], "closed");
    assert_eq!(over["close"]["initiator"], "peer");
    assert_eq!(over["verdict"], Value::Null);
    assert_eq!(states(&over), ["connecting", "open", "closing", "closed"]);
    assert_eq!(over["handshake"]["path"], "/quiet");
    assert_eq!(reported(control, &["list"]), "no connections\n");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn following_a_connection_shows_each_change_until_it_is_closed() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let client = stage.client(0, "/quiet", Manner::Responsive);
    let other = stage.client(1, "/quiet", Manner::Responsive);
    watch.wait_for_metric("wsmon_connections", &[], 2.0);
    let peer = client.local_addr().ip().to_string();
    let record = json(reported(control, &["list", "--json", "--peer", &peer]).as_bytes());
    let cookie = record["cookie"].as_str().unwrap();
    let mut viewer = Viewer::run(control, &["inspect", cookie, "--json", "--follow"]);
    viewer.read();
    assert_eq!(viewer.next()["state"], "open");
    other.send(Message::Close(None)).unwrap();
    let closed = [("how", "close_frame")];
    watch.wait_for_metric("wsmon_connections_closed_total", &closed, 1.0);
    let close = CloseFrame {
        code: CloseCode::Away,
        reason: "".into(),
    };
    client.send(Message::Close(Some(close))).unwrap();
    for (from, to, text) in [
        ("open", "closing", "close frame 1001 from peer"),
        ("closing", "closed", "close_frame"),
    ] {
        let change = viewer.next();
        assert_eq!(change["type"], "transition");
        assert_eq!(change["cookie"], cookie, "the other one is not followed");
        assert_eq!(change["listener"], stage.port());
        assert_eq!(change["peer"], client.local_addr().to_string());
        assert_eq!((&change["from"], &change["to"]), (&from.into(), &to.into()));
        assert_eq!(change["reason"], text);
    }
    let (status, said) = viewer.end();
    assert!(status.success(), "{said}");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn requests_for_missing_or_invalid_things_get_an_error() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let unknown = query(control, &["inspect", "1"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        said.starts_with("wsmon: no connection 1 is watched"),
        "{said}"
    );
    assert!(get(control, "/v1/frames?opcode=shout").contains("invalid opcode \"shout\""));
    assert!(get(control, "/v1/connections?colour=red").contains("unknown parameter"));

    let socket = std::fs::metadata(control).unwrap();
    assert_eq!(socket.permissions().mode() & 0o7777, 0o660);
    let metrics = std::net::TcpStream::connect(watch.daemon.metrics_addr()).unwrap();
    let over_tcp = response(metrics, "/v1/connections");
    assert!(over_tcp.starts_with("HTTP/1.0 404"), "{over_tcp}");
}

/// The body of a finite answer.
pub(crate) fn get(control: &Path, target: &str) -> String {
    let response = response(UnixStream::connect(control).unwrap(), target);
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// HTTP/1.0, in which a body is not chunked.
fn response(mut stream: impl Read + Write, target: &str) -> String {
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
    std::io::read_to_string(stream).unwrap()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}
