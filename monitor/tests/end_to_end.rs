//! End to end on the running kernel: what a user of wsmon sees of one dead connection.
//!
//! Runs on the development machine, and alone in the guests of `cargo xtask vm`. Those are slow:
//! every wait is for a condition, with a generous limit.

mod tun;

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use lab::{Daemon, wait_until};
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use tun::{Family, Peer, in_new_namespace};

/// Far more than anything takes in an emulated guest on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const PORT: u16 = 28_301;

#[test]
#[ignore = "needs root: loads programs"]
fn the_check_reports_that_wsmon_can_run_here() {
    let output = wsmon(&["check", "-v"]);
    let table = text(&output);
    println!("{table}");
    assert_eq!(output.status.code(), Some(0), "{table}");
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn a_peer_that_stops_answering_is_reported_listed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let alert_log = folder.path().join("alerts");
    let port = PORT.to_string();
    in_new_namespace(|tun| {
        let flags = ["--port", &port, "--lb-timeout", "1s", "--alert-log"];
        let flags = flags
            .map(Path::new)
            .into_iter()
            .chain([alert_log.as_path()]);
        let mut daemon = Daemon::start_within(LIMIT, &binary(), flags).unwrap();

        let peer_port = 20_001;
        let peer_addr = SocketAddr::new(Family::V4.peer(), peer_port);
        let listener = TcpListener::bind((Family::V4.kernel(), PORT)).unwrap();
        let (mut peer, mut socket) = Peer::connect(tun, Family::V4, &listener, peer_port, 1_000);
        // Dropping it sends a reset at once.
        set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        tun.write(&peer.data(peer.isn, wire::REQUEST));
        socket
            .read_exact(&mut vec![0; wire::REQUEST.len()])
            .unwrap();
        socket.write_all(wire::RESPONSE).unwrap();
        peer.receive(tun, wire::RESPONSE.len());
        tun.write(&peer.acknowledgement());

        // From now on the peer is silent. The path has forgotten the connection after a second.
        wait_for_alert(&alert_log, peer_addr, "firing", "suspected");
        // Now the server sends, and gets no answer.
        socket.write_all(&[0x89, 0]).unwrap();
        wait_for_alert(&alert_log, peer_addr, "firing", "confirmed");

        let control = daemon.control().to_str().unwrap();
        let list = text(&wsmon(&["list", "--json", "--control", control]));
        let listed: Vec<Value> = list.lines().map(json).collect();
        assert_eq!(listed.len(), 1, "{list}");
        assert_eq!(listed[0]["peer"], peer_addr.to_string(), "{list}");
        assert_eq!(listed[0]["verdict"]["kind"], "expired", "{list}");
        let expired = [("listener", port.as_str()), ("kind", "expired")];
        wait_for_metric(&daemon, "wsmon_zombie_connections", &expired, 1.0);
        wait_for_metric(&daemon, "wsmon_zombies_detected_total", &expired, 1.0);

        drop(socket);
        wait_for_alert(&alert_log, peer_addr, "resolved", "confirmed");
        wait_for_metric(&daemon, "wsmon_zombie_connections", &expired, 0.0);
        let status = daemon.terminate(LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{}", daemon.log());
    });
}

/// The duration means little in an emulated guest, so it is only printed. `host/refusal.rs` checks
/// the limit.
#[test]
#[ignore = "needs root: loads programs"]
fn a_kernel_that_refuses_a_program_is_reported_in_one_line() {
    let begin = Instant::now();
    let run = "run --refused-shape --port 80 --metrics-addr 127.0.0.1:0 --control none";
    let output = wsmon(&run.split(' ').collect::<Vec<_>>());
    println!("refused after {:?}", begin.elapsed());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("refuses program "), "{stderr}");
    assert!(stderr.contains("program is too large"), "{stderr}");
}

/// The list next to the recording contains the frames that were put into it.
#[test]
fn a_recording_gives_the_frames_that_were_put_into_it() {
    const RECORDING: &[u8] = include_bytes!("../../testdata/recordings/fragments.pcap");
    const TRUTH: &str = include_str!("../../testdata/recordings/fragments.json");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fragments.pcap");
    fs::write(&file, RECORDING).unwrap();
    let output = wsmon(&["replay", "--json", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let frames: Vec<Value> = text(&output)
        .lines()
        .map(json)
        .filter(|line| line["type"] == "frame")
        .collect();
    let truth = json(TRUTH);
    let truth = truth.as_array().unwrap();
    assert_eq!(frames.len(), truth.len());
    for (frame, expected) in frames.iter().zip(truth) {
        for (field, value) in expected.as_object().unwrap() {
            // Each reader numbers connections differently.
            if field != "cookie" {
                assert_eq!(
                    &frame[field], value,
                    "{field} of {frame}, expected {expected}"
                );
            }
        }
    }
}

/// Waits until the log has an alert about `peer` with this status and certainty.
fn wait_for_alert(alert_log: &Path, peer: SocketAddr, status: &str, certainty: &str) {
    let peer = peer.to_string();
    let what = format!("a {certainty} alert about {peer}, {status}");
    let found = wait_until(&what, LIMIT, || {
        alerts(alert_log).iter().any(|alert| {
            alert["alert"] == "zombie"
                && alert["status"] == status
                && alert["kind"] == "expired"
                && alert["certainty"] == certainty
                && alert["conn"]["peer"] == peer
        })
    });
    found.unwrap_or_else(|error| panic!("{error}; alerts: {:?}", alerts(alert_log)));
}

/// Waits until a scrape gives the metric this value. On a slow machine a scrape may time out.
fn wait_for_metric(daemon: &Daemon, name: &str, labels: &[(&str, &str)], value: f64) {
    let mut last = None;
    let reached = wait_until(&format!("{name} to be {value}"), LIMIT, || {
        last = daemon
            .metrics()
            .ok()
            .map(|metrics| metrics.sum(name, labels));
        last == Some(value)
    });
    reached.unwrap_or_else(|error| panic!("{error}; it is {last:?}\n{}", daemon.log()));
}

/// The complete lines of the log so far.
fn alerts(alert_log: &Path) -> Vec<Value> {
    let log = fs::read_to_string(alert_log).unwrap();
    let end = log.rfind('\n').map_or(0, |newline| newline + 1);
    log[..end].lines().map(json).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn wsmon(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

/// The path given by cargo, or the test's own folder if that was moved.
fn binary() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_wsmon"));
    if built.is_file() {
        return built;
    }
    let test = env::current_exe().expect("the path of this test");
    test.with_file_name("wsmon")
}
