//! Ten thousand connections that end in every way, a quarter of them with their server.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use lab::Lab;
use rustix::net::sockopt::set_socket_linger;
use wire::{CLOSE, REQUEST, TEXT, ZERO_KEY, frame};

use crate::{
    access_log::{LogFile, sum},
    killable::Killable,
    stage::{Watch, fresh_port},
};

const CONNECTIONS: usize = 10_000;
const QUARTER: usize = CONNECTIONS / 4;
/// Messages of each client.
const MESSAGES: usize = 3;

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn ten_thousand_ends_have_ten_thousand_lines() {
    lab::raise_open_files_limit().unwrap();
    let lab = Lab::new().unwrap();
    let mut server = Killable::start(lab.server_ns(), lab.server_addr(fresh_port()));
    let file = LogFile::new();
    let [flag, path] = file.flags();
    let port = server.addr.port().to_string();
    let watch = Watch::start(&["--port", &port, &flag, &path]);

    let connect = || {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        for _ in 0..MESSAGES {
            stream.write_all(&frame(TEXT, b"hello", ZERO_KEY)).unwrap();
        }
        stream
    };
    let gather = || (0..CONNECTIONS).map(|_| connect()).collect();
    let mut clients: Vec<TcpStream> = lab.client_ns().run(gather).unwrap();
    let frames = (CONNECTIONS * MESSAGES) as f64;
    wait_for(&watch, "wsmon_frames_total", &[], frames);

    let mut quarter = || clients.split_off(clients.len() - QUARTER);
    let (polite, leaving, resetting, orphans) = (quarter(), quarter(), quarter(), quarter());
    for mut client in polite {
        let goodbye = frame(CLOSE, &1000_u16.to_be_bytes(), ZERO_KEY);
        client.write_all(&goodbye).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, frame(CLOSE, &1000_u16.to_be_bytes(), None));
    }
    for mut client in leaving {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the server leaves too");
    }
    for client in resetting {
        set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    }
    wait_for(
        &watch,
        "wsmon_connections_closed_total",
        &[],
        3.0 * QUARTER as f64,
    );
    server.kill();
    wait_for(
        &watch,
        "wsmon_connections_closed_total",
        &[],
        CONNECTIONS as f64,
    );
    drop(orphans);

    let lines = file.lines_of_all(&watch, CONNECTIONS);
    let count = |how: &str| lines.iter().filter(|line| line["how"] == how).count();
    assert_eq!(count("close_frame"), QUARTER);
    assert_eq!(count("rst_received"), QUARTER);
    assert_eq!(
        count("fin"),
        2 * QUARTER,
        "those of the killed server end with a FIN"
    );
    assert_eq!(sum(&lines, "/rx/messages"), (CONNECTIONS * MESSAGES) as u64);
    assert_eq!(
        sum(&lines, "/rx/frames"),
        (CONNECTIONS * MESSAGES + QUARTER) as u64
    );
    let payload = CONNECTIONS * MESSAGES * 5 + QUARTER * 2;
    assert_eq!(sum(&lines, "/rx/payload_bytes"), payload as u64);
    assert_eq!(sum(&lines, "/tx/frames"), QUARTER as u64);
    assert_eq!(sum(&lines, "/rx/unsynced_bytes"), 0);
}

/// Waits for a value that takes longer than a single event.
fn wait_for(watch: &Watch, name: &str, labels: &[(&str, &str)], value: f64) {
    const LONG: Duration = Duration::from_secs(120);
    let reached = || watch.metric(name, labels) == value;
    lab::wait_until(name, LONG, reached)
        .unwrap_or_else(|error| panic!("{error}: {} of {value}", watch.metric(name, labels)));
}
