//! What a client may take: the number of connections, and time.

use std::time::Instant;

use super::*;

/// A limit that a test can wait for.
const BRIEF: Duration = Duration::from_millis(400);

const PLAIN: &str = "{}";

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A connection, over TLS if this configuration has it.
fn connect(bench: &Bench, config: &str) -> Box<dyn Stream> {
    match config {
        TLS => Box::new(bench.tls(bench.client(&[&TLS13]))),
        _ => Box::new(bench.plain()),
    }
}

/// Waits until the server ends the connection.
#[track_caller]
fn wait_for_end(stream: &mut impl Read) {
    let ended = io::copy(stream, &mut io::sink());
    // Over TLS, the end comes without a close_notify.
    let is_late = ended
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    assert!(!is_late, "{ended:?}");
}

#[test]
fn unfinished_handshakes_delay_no_other_and_are_given_up() {
    let limits = ClientLimits {
        handshake: Duration::from_secs(2),
        ..ClientLimits::default()
    };
    let bench = Bench::start_with(TLS, limits);
    let begin = Instant::now();
    let mut silent: Vec<_> = (0..20).map(|_| bench.plain()).collect();
    let answer = request(&mut bench.tls(bench.client(&[&TLS13])), "");
    assert_eq!(status(&answer.expect("an answer")), 200);
    assert!(begin.elapsed() < limits.handshake, "{:?}", begin.elapsed());
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).expect("closed in time"), 0);
    }
    assert!(begin.elapsed() >= limits.handshake, "{:?}", begin.elapsed());
}

#[test]
fn a_connection_without_a_complete_request_is_closed() {
    let limits = ClientLimits {
        request: BRIEF,
        ..ClientLimits::default()
    };
    for config in [PLAIN, TLS] {
        let bench = Bench::start_with(config, limits);
        let begin = Instant::now();
        let mut half_sent = connect(&bench, config);
        half_sent
            .write_all(b"GET / HTTP/1.1\r\nHo")
            .expect("it listens");
        let mut idle = connect(&bench, config);
        request(&mut idle, "").expect("an answer");
        for stream in [&mut half_sent, &mut idle] {
            wait_for_end(stream);
        }
        assert!(begin.elapsed() >= BRIEF, "{config}: {:?}", begin.elapsed());
    }
}

#[test]
fn a_request_that_trickles_in_is_given_up() {
    let limits = ClientLimits {
        request: BRIEF,
        ..ClientLimits::default()
    };
    let bench = Bench::start_with(PLAIN, limits);
    let mut stream = bench.plain();
    let pause = Some(Duration::from_millis(20));
    stream.set_read_timeout(pause).expect("a timeout");
    let begin = Instant::now();
    let mut trickles = || {
        let is_sent = stream.write_all(b"G").is_ok();
        let read = stream.read(&mut [0]);
        is_sent && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    while trickles() {
        assert!(begin.elapsed() < SOON, "it is still open");
    }
    assert!(begin.elapsed() >= BRIEF, "{:?}", begin.elapsed());
}

#[test]
fn further_connections_wait_until_one_ends() {
    let limits = ClientLimits {
        connections: 2,
        ..ClientLimits::default()
    };
    for config in [PLAIN, TLS] {
        let bench = Bench::start_with(config, limits);
        let mut served = [connect(&bench, config), connect(&bench, config)];
        for stream in &mut served {
            request(stream, "").expect("an answer");
        }
        let socket = bench.plain();
        let patience = |limit| socket.set_read_timeout(Some(limit)).expect("a timeout");
        let mut waiting: Box<dyn Stream> = match config {
            TLS => {
                let socket = socket.try_clone().expect("a descriptor");
                Box::new(tls_over(socket, bench.client(&[&TLS13])))
            }
            _ => Box::new(socket.try_clone().expect("a descriptor")),
        };
        patience(BRIEF);
        let waits = request(&mut waiting, "").expect_err("there is no room");
        assert_eq!(waits.kind(), io::ErrorKind::WouldBlock, "{config}: {waits}");
        request(&mut served[1], "").expect("an answer on an open connection");
        patience(SOON);
        let [first, _second] = served;
        drop(first);
        request(&mut waiting, "").expect("there is room now");
    }
}

#[test]
fn a_client_that_does_not_read_makes_room_for_another() {
    let limits = ClientLimits {
        connections: 1,
        unread: BRIEF,
        ..ClientLimits::default()
    };
    let bench = Bench::start_with(PLAIN, limits);
    let mut deaf = bench.plain();
    // Tens of megabytes of responses, which no buffers of sockets hold.
    let requests = "GET /docs/metrics.md HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    deaf.write_all(requests.as_bytes()).expect("it listens");
    request(&mut bench.plain(), "").expect("there is room");
}

#[test]
fn a_change_of_tls_ends_older_connections_after_a_response() {
    for before in [PLAIN, TLS] {
        let bench = Bench::start(before);
        let mut old = connect(&bench, before);
        let head = request(&mut old, "").expect("an answer");
        assert!(!head.contains("connection: close"), "{head}");
        bench.write("web.yml", &format!("{TLS}  min_version: TLS13\n"));
        wait_until("the new rules", || {
            let head = request(&mut bench.tls(bench.client(&[&TLS13])), "");
            let is_served = head.is_ok();
            let old_version = request(&mut bench.tls(bench.client(&[&TLS12])), "");
            is_served && old_version.is_err()
        });
        let head = request(&mut old, "").expect("the last answer");
        assert_eq!(status(&head), 200);
        assert!(head.contains("connection: close\r\n"), "{head}");
        wait_for_end(&mut old);
    }
}
