//! How long servers take to respond, compared with what they measured.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lab::Lab;
use monitor_common::stats::RESPONSE_BOUNDS;
use wire::{REQUEST, RESPONSE, TEXT, ZERO_KEY, frame};

use crate::stage::{Watch, fresh_port};

const RESPONSE_TIME: &str = "wsmon_response_seconds";

/// The time that the server takes, in milliseconds: each in the middle of a bucket.
const DELAYS: [u64; 6] = [0, 38, 72, 175, 370, 700];
/// The kernel's coarse clock is as old as a tick.
const TICK: Duration = Duration::from_millis(10);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn response_times_are_what_the_server_measured_within_a_bucket() {
    measure("--port");
}

/// At the client's socket they include the path to the remote server.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn response_times_of_a_remote_service_are_measured_at_the_client() {
    measure("--remote-port");
}

fn measure(flag: &str) {
    let lab = Lab::new().unwrap();
    let addr = lab.server_addr(fresh_port());
    let watch = Watch::start(&[flag, &addr.port().to_string()]);
    let listener = lab.server_ns().run(|| TcpListener::bind(addr));
    let listener = listener.unwrap().unwrap();
    let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
    let client = lab.client_ns().run(|| TcpStream::connect(addr));
    let mut client = client.unwrap().unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(REQUEST).unwrap();
    read(&mut client, RESPONSE.len());
    let question = frame(TEXT, b"how are you?", ZERO_KEY);
    let mut roundtrips = Vec::new();
    for _ in DELAYS {
        // Two frames; the last counts.
        client.write_all(&question).unwrap();
        let sent = Instant::now();
        client.write_all(&question).unwrap();
        read(&mut client, 2 * answer().len());
        roundtrips.push(sent.elapsed());
    }
    drop(client);
    let took = serving.join().unwrap();

    let count = DELAYS.len() as f64;
    watch.wait_for_metric(&format!("{RESPONSE_TIME}_count"), &[], count);
    let metrics = watch.metrics();
    let sum = metrics.sum(&format!("{RESPONSE_TIME}_sum"), &[]);
    let seconds = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64();
    println!("{sum} s, the server {took:?}, the client {roundtrips:?}");
    // The server's socket sees the question before and the answer after its application; the client's
    // application sees them the other way around.
    let ticks = (TICK * DELAYS.len() as u32).as_secs_f64();
    let between = seconds(&took) - ticks..=seconds(&roundtrips) + ticks;
    assert!(between.contains(&sum), "{sum} s, not {between:?}");
    for bound in RESPONSE_BOUNDS {
        let le = (bound as f64 / 1e9).to_string();
        let found = metrics.sum(&format!("{RESPONSE_TIME}_bucket"), &[("le", &le)]);
        let bound = Duration::from_nanos(bound);
        let count = |is_within: &dyn Fn(&(&Duration, &Duration)) -> bool| {
            let both = took.iter().zip(&roundtrips);
            both.filter(is_within).count() as f64
        };
        let least = count(&|(_, longest)| **longest + TICK <= bound);
        let most = count(&|(shortest, _)| **shortest <= bound + TICK);
        assert!((least..=most).contains(&found), "{found} up to {le} s");
    }
}

/// Answers every second frame of the client with two frames; returns how long each answer took.
fn serve(mut stream: TcpStream) -> Vec<Duration> {
    stream.set_nodelay(true).unwrap();
    read(&mut stream, REQUEST.len());
    stream.write_all(RESPONSE).unwrap();
    let question = frame(TEXT, b"how are you?", ZERO_KEY).len();
    let mut took = Vec::new();
    for delay in DELAYS {
        read(&mut stream, 2 * question);
        let heard = Instant::now();
        thread::sleep(Duration::from_millis(delay));
        took.push(heard.elapsed());
        stream.write_all(&answer()).unwrap();
        stream.write_all(&answer()).unwrap();
    }
    took
}

fn answer() -> Vec<u8> {
    frame(TEXT, b"fine", None)
}

fn read(stream: &mut TcpStream, len: usize) {
    stream.read_exact(&mut vec![0; len]).unwrap();
}
