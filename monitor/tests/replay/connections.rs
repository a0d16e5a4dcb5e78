//! How connections start and end, and which connection a packet belongs to.

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    records::{connection_summary::ConnectionSummary, skipped::Skip},
    replay::{Capture, ReplayRecord, websocket_ports},
};
use monitor_core::{ListenerRules, State, facts::Direction};
use wire::{
    ACK, CLOSE, Conversation, End, MILLI, PING, REQUEST, RESPONSE, RST, Recording, SECOND, START,
    SYN, TEXT,
};

use crate::{frame, judge, opened, server, upgrade};

const LATER: u64 = START + SECOND;

/// How each connection ended, by number.
fn ends(connections: &[&ConnectionSummary]) -> Vec<(u64, Option<&'static str>)> {
    connections
        .iter()
        .map(|connection| (connection.cookie.0, connection.how))
        .collect()
}

fn end(number: u64, how: Option<&'static str>) -> (u64, Option<&'static str>) {
    (number, how)
}

fn seconds(stamp: Option<jiff::Timestamp>) -> Option<f64> {
    let start = jiff::Timestamp::from_nanosecond(START.into()).expect("a moment");
    stamp.map(|stamp| stamp.duration_since(start).as_secs_f64())
}

#[test]
fn a_connection_is_reported_with_its_times_and_its_close_frame() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.says(
        &mut recording,
        LATER,
        End::Client,
        &frame(TEXT, b"hi", true),
    );
    conversation.says(
        &mut recording,
        LATER,
        End::Server,
        &frame(CLOSE, &[3, 233], false),
    );
    conversation.says(
        &mut recording,
        LATER,
        End::Client,
        &frame(CLOSE, &[3, 233], true),
    );
    conversation.close(&mut recording, LATER + SECOND, End::Server);
    let played = judge(&recording, &[server(8080, None)]);
    let [connection] = played.connections()[..] else {
        panic!("{played:?}");
    };
    assert_eq!(
        connection.local,
        Some("10.0.0.1:8080".parse().expect("an address"))
    );
    assert_eq!(
        connection.peer,
        Some("10.0.0.2:40000".parse().expect("an address"))
    );
    assert_eq!(
        (connection.role, connection.protocol),
        (Some("server"), "websocket")
    );
    assert_eq!(seconds(connection.established_at), Some(0.002));
    assert_eq!(seconds(connection.closed_at), Some(2.002));
    assert_eq!(connection.ts, connection.closed_at.expect("an end"));
    assert_eq!(connection.duration_seconds, Some(2.0));
    assert_eq!(connection.how, Some("close_frame"));
    let close = connection.close.expect("a close frame");
    assert_eq!((close.initiator, close.code), (Direction::Tx, Some(1001)));
    assert_eq!(
        connection.rx.frames_by_opcode,
        Some([("close", 1), ("text", 1)].into())
    );
    assert_eq!(connection.tx.frames_by_opcode, Some([("close", 1)].into()));
    assert_eq!(played.summary.open, 0);
}

#[test]
fn a_connection_without_an_end_stays_open() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.fin(&mut recording, LATER, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    let [connection] = played.connections()[..] else {
        panic!("{played:?}");
    };
    assert_eq!((connection.how, connection.closed_at), (None, None));
    assert_eq!(
        seconds(Some(connection.ts)),
        Some(1.0),
        "the recording's end"
    );
    assert_eq!(connection.duration_seconds, None);
    assert_eq!(played.summary.open, 1);
}

#[test]
fn a_reset_ends_a_connection_and_its_sender_is_reported() {
    for (from, how) in [(End::Client, "rst_received"), (End::Server, "rst_sent")] {
        let mut conversation = Conversation::v4();
        let mut recording = opened(&mut conversation);
        conversation.rst(&mut recording, LATER, from);
        conversation.ack(&mut recording, LATER + MILLI, from.other());
        let played = judge(&recording, &[server(8080, None)]);
        assert_eq!(ends(&played.connections()), [end(1, Some(how))]);
        assert_eq!(played.summary.skipped.get(Skip::AfterClose), 1);
    }
}

#[test]
fn a_reset_that_tcp_would_ignore_ends_nothing() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let true_next = conversation.next[0];
    for wrong in [true_next.wrapping_sub(1), true_next.wrapping_add(1), 5] {
        conversation.next[0] = wrong;
        conversation.segment(&mut recording, LATER, End::Client, RST, &[]);
    }
    conversation.next[0] = true_next;
    conversation.says(
        &mut recording,
        LATER,
        End::Client,
        &frame(TEXT, b"alive", true),
    );
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(ends(&played.connections()), [end(1, None)]);
    assert_eq!(played.summary.skipped.get(Skip::StrayReset), 3);
    assert_eq!(played.frames().len(), 1);
}

#[test]
fn reused_ports_are_a_new_connection() {
    let mut recording = Recording::default();
    for (life, isn) in [(0, 1000), (1, 77), (2, 1_000_000)] {
        let mut conversation = Conversation::v4();
        conversation.next[0] = isn;
        let at = START + life * SECOND;
        conversation.open(&mut recording, at);
        upgrade(&mut conversation, &mut recording, at);
        conversation.says(
            &mut recording,
            at + 20 * MILLI,
            End::Client,
            &frame(TEXT, b"a", true),
        );
        if life == 0 {
            conversation.close(&mut recording, at + 30 * MILLI, End::Client);
        }
    }
    let played = judge(&recording, &[server(8080, None)]);
    let connections = played.connections();
    // The second one vanished; the handshake of the third one shows it.
    assert_eq!(
        ends(&connections),
        [end(1, Some("fin")), end(2, Some("unknown")), end(3, None)]
    );
    assert_eq!(connections[1].closed_at, None);
    assert!(
        connections
            .iter()
            .all(|connection| connection.rx.frames_by_opcode == Some([("text", 1)].into()))
    );
    assert!(played.summary.skipped.iter().next().is_none());
}

#[test]
fn an_unanswered_syn_ends_nothing() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let mut stranger = Conversation::v4();
    stranger.next[0] = 5_000_000;
    stranger.syn(&mut recording, LATER);
    // A challenge acknowledgement, and the connection continues.
    conversation.ack(&mut recording, LATER, End::Server);
    conversation.says(
        &mut recording,
        LATER,
        End::Client,
        &frame(TEXT, b"alive", true),
    );
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(ends(&played.connections()), [end(1, None)]);
    assert_eq!(played.frames().len(), 1);
}

#[test]
fn a_refused_connection_is_not_counted() {
    let mut conversation = Conversation::v4();
    let mut recording = Recording::default();
    conversation.syn(&mut recording, START);
    conversation.segment(&mut recording, START, End::Server, RST | ACK, &[]);
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(
        played.summary.connections + played.summary.other_connections,
        0
    );
}

#[test]
fn an_older_connection_is_assumed_until_segments_begin_with_frames() {
    let mut conversation = Conversation::v4();
    conversation.acked = conversation.next;
    conversation.acked.reverse();
    let mut recording = Recording::default();
    let middle = b"the middle of some frame";
    conversation.says(&mut recording, START, End::Client, middle);
    let played = judge(&recording, &[server(8080, None)]);
    let connection = played.connections()[0];
    assert_eq!(
        (connection.protocol, connection.established_at),
        ("assumed", None)
    );
    assert_eq!(connection.rx.unsynced_bytes, Some(middle.len() as u64));

    let text = frame(TEXT, &[b'a'; 50], true);
    for i in 0..10 {
        conversation.says(&mut recording, LATER + i, End::Client, &text);
    }
    let played = judge(&recording, &[server(8080, None)]);
    let connection = played.connections()[0];
    assert_eq!(
        (connection.protocol, connection.established_at),
        ("websocket", None)
    );
    let believed = connection.rx.messages.expect("known");
    assert!((1..10).contains(&believed), "{believed}");
    // Bytes before the frames were recognised are reported as unsynced.
    let doubted = middle.len() as u64 + (10 - believed) * text.len() as u64;
    assert_eq!(connection.rx.unsynced_bytes, Some(doubted));
}

#[test]
fn plain_http_is_counted_but_not_reported() {
    let mut conversation = Conversation::v4();
    let mut recording = Recording::default();
    conversation.open(&mut recording, START);
    let request = b"GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n";
    conversation.says(&mut recording, LATER, End::Client, request);
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    conversation.says(&mut recording, LATER, End::Server, response);
    conversation.close(&mut recording, LATER, End::Server);
    let played = judge(&recording, &[server(8080, None)]);
    assert!(played.records.is_empty(), "{:?}", played.records);
    assert_eq!(
        (played.summary.connections, played.summary.other_connections),
        (0, 1)
    );
}

#[test]
fn tls_is_opaque_and_its_end_is_reported() {
    let mut conversation = Conversation::v4();
    let mut recording = Recording::default();
    conversation.open(&mut recording, START);
    conversation.says(
        &mut recording,
        LATER,
        End::Client,
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7],
    );
    conversation.close(&mut recording, LATER, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    let connection = played.connections()[0];
    assert_eq!(
        (connection.protocol, connection.how),
        ("opaque", Some("fin"))
    );
}

#[test]
fn a_remote_port_is_seen_from_the_clients_end() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.says(&mut recording, LATER, End::Client, &frame(PING, b"", true));
    let remote = ListenerConfig {
        rules: ListenerRules::new("8080", None),
        ports: vec![PortRange(8080..=8080)],
        remote: true,
    };
    let played = judge(&recording, std::slice::from_ref(&remote));
    let connection = played.connections()[0];
    assert_eq!(connection.role, Some("client"));
    assert_eq!(
        connection.local,
        Some("10.0.0.2:40000".parse().expect("an address"))
    );
    // The client's socket is established by the server's answer.
    assert_eq!(seconds(connection.established_at), Some(0.001));
    assert_eq!(connection.tx.frames_by_opcode, Some([("ping", 1)].into()));
    assert_eq!(connection.tx.pings_unanswered, Some(1));
    // If both ends are watched, the server's is reported.
    let played = judge(&recording, &[remote, server(8080, None)]);
    let roles: Vec<_> = played.connections().iter().map(|c| c.role).collect();
    assert_eq!(roles, [Some("server")]);
}

#[test]
fn between_two_watched_ports_the_handshake_identifies_the_server() {
    for first in [0, 1] {
        let mut conversation = Conversation::new("10.0.0.2:8081", "10.0.0.1:8080");
        let mut recording = opened(&mut conversation);
        // Also if the recording begins with the answer.
        recording.packets.drain(..first);
        let played = judge(&recording, &[server(8080, None), server(8081, None)]);
        let connection = played.connections()[0];
        assert_eq!(
            (connection.listener.as_str(), connection.role),
            ("8080", Some("server"))
        );
        assert_eq!(connection.protocol, "websocket");
    }
}

#[test]
fn repeated_data_is_a_retransmission_and_a_keepalive_is_not() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let text = frame(TEXT, b"once", false);
    conversation.shouts(&mut recording, LATER, End::Server, &text);
    conversation.repeats(&mut recording, LATER + 200 * MILLI, End::Server, &text);
    conversation.acked[0] = conversation.next[1];
    conversation.ack(&mut recording, LATER + 210 * MILLI, End::Client);
    // Keepalive probes with and without a byte, one before the next sequence number (RFC 9293
    // §3.8.4).
    for probe in [&b""[..], b"x"] {
        conversation.next[1] = conversation.next[1].wrapping_sub(1);
        let at = LATER + SECOND;
        conversation.segment(&mut recording, at, End::Server, ACK, probe);
        conversation.next[1] = conversation.acked[0];
        conversation.ack(&mut recording, at + MILLI, End::Client);
    }
    let played = judge(&recording, &[server(8080, None)]);
    let connection = played.connections()[0];
    assert_eq!(connection.retransmits_total, Some(1));
    assert_eq!(connection.tx.frames_by_opcode, Some([("text", 1)].into()));
}

#[test]
fn timestamps_that_go_back_are_counted_and_break_nothing() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    conversation.says(&mut recording, LATER, End::Client, &frame(TEXT, b"a", true));
    conversation.says(&mut recording, 0, End::Client, &frame(TEXT, b"b", true));
    conversation.says(
        &mut recording,
        LATER - 1,
        End::Client,
        &frame(TEXT, b"c", true),
    );
    conversation.close(&mut recording, LATER, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(
        played.summary.out_of_order, 2,
        "one of them by a microsecond"
    );
    let stamps: Vec<_> = played
        .frames()
        .iter()
        .map(|f| seconds(Some(f.ts)))
        .collect();
    assert_eq!(stamps, [Some(1.0); 3]);
    assert_eq!(ends(&played.connections()), [end(1, Some("fin"))]);
}

#[test]
fn handshakes_that_never_complete_are_forgotten() {
    let mut recording = Recording::default();
    let mut late = Conversation::v4();
    late.syn(&mut recording, START);
    late.syn_ack(&mut recording, START);
    // An unrelated connection advances the clock.
    let mut stranger = Conversation::new("10.0.0.3:40000", "10.0.0.1:8080");
    stranger.syn(&mut recording, START + 131 * SECOND);
    late.ack(&mut recording, START + 132 * SECOND, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    let connection = played.connections()[0];
    assert_eq!((connection.cookie.0, connection.protocol), (3, "assumed"));
}

#[test]
fn the_ports_of_upgrades_are_found() {
    let found = |client: &[u8], server: &[u8]| {
        let mut conversation = Conversation::v4();
        let mut recording = Recording::default();
        conversation.open(&mut recording, START);
        conversation.says(&mut recording, START, End::Client, client);
        conversation.says(&mut recording, START, End::Server, server);
        let file = recording.pcap();
        let mut capture = Capture::open(&file[..]).expect("a recording");
        websocket_ports(&mut capture)
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(found(REQUEST, RESPONSE), [8080]);
    assert_eq!(found(REQUEST, b"HTTP/1.1 400 Bad Request\r\n\r\n"), [8080]);
    assert_eq!(found(b"?", RESPONSE), [8080]);
    let plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(found(plain, b"HTTP/1.1 200 OK\r\n\r\n"), [0_u16; 0]);
}

#[test]
fn a_syn_with_another_sequence_number_is_another_attempt() {
    let mut recording = Recording::default();
    let mut first = Conversation::v4();
    first.syn(&mut recording, START);
    let mut second = Conversation::v4();
    second.next[0] = 9_000_000;
    second.segment(&mut recording, START + SECOND, End::Client, SYN, &[]);
    second.acked[1] = second.next[0];
    second.syn_ack(&mut recording, START + SECOND);
    second.ack(&mut recording, START + SECOND, End::Client);
    upgrade(&mut second, &mut recording, START + SECOND);
    second.rst(&mut recording, START + 2 * SECOND, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    assert_eq!(ends(&played.connections()), [end(1, Some("rst_received"))]);
}

#[test]
fn a_packet_captured_on_two_interfaces_counts_once() {
    for v4 in [true, false] {
        let mut conversation = match v4 {
            true => Conversation::v4(),
            false => Conversation::v6(),
        };
        let mut recording = opened(&mut conversation);
        let text = frame(TEXT, b"once", false);
        conversation.shouts(&mut recording, LATER, End::Server, &text);
        conversation.ack(&mut recording, LATER + 10 * MILLI, End::Client);
        conversation.rst(&mut recording, LATER + 20 * MILLI, End::Server);
        let once = judge(&recording, &[server(8080, None)]);
        let copy = |(at, packet): &(u64, Vec<u8>)| {
            let mut routed = packet.clone();
            // One hop later, with the checksum filled in.
            routed[if packet[0] >> 4 == 4 { 8 } else { 7 }] -= 1;
            let tcp = if packet[0] >> 4 == 4 { 24 } else { 40 };
            routed[tcp + 16] ^= 0xff;
            [(*at, packet.clone()), (at + 20_000, routed)]
        };
        let packets = recording.packets.iter().flat_map(copy).collect();
        let mut twice = judge(&Recording { packets }, &[server(8080, None)]);
        let copies = twice.summary.skipped.get(Skip::CapturedTwice);
        let after_close = twice.summary.skipped.get(Skip::AfterClose);
        // Without IPv4's identification, a bare acknowledgement could also be a duplicate one.
        let acks = if v4 { 0 } else { 3 };
        let packets = recording.packets.len() as u64;
        assert_eq!((copies, after_close), (packets - 1 - acks, 1));
        twice.summary = once.summary.clone();
        assert_eq!(format!("{twice:?}"), format!("{once:?}"));
        assert_eq!(once.connections()[0].retransmits_total, Some(0));
    }
}

#[test]
fn a_new_connection_without_a_recorded_syn_ack_is_recognised_by_its_next_segment() {
    let mut conversation = Conversation::v4();
    let mut recording = opened(&mut conversation);
    let mut next = Conversation::v4();
    next.next[0] = 7_000_000;
    next.syn(&mut recording, LATER);
    next.acked[0] = next.next[1];
    upgrade(&mut next, &mut recording, LATER);
    let played = judge(&recording, &[server(8080, None)]);
    let connections = played.connections();
    assert_eq!(ends(&connections), [end(1, Some("unknown")), end(2, None)]);
    assert_eq!(connections[1].protocol, "websocket");
    assert_eq!(seconds(connections[1].established_at), Some(1.005));
}

#[test]
fn a_refused_or_unanswered_upgrade_is_reported_by_its_states() {
    let states = |recording: &Recording| {
        let played = judge(recording, &[server(8080, None)]);
        assert_eq!(played.connections().len(), 0);
        let reasons = played.records.iter().map(|record| match record {
            ReplayRecord::State(transition) => (transition.to, transition.reason.to_string()),
            other => panic!("{other:?}"),
        });
        reasons.collect::<Vec<_>>()
    };
    let requested = (State::Connecting, "upgrade requested".to_owned());
    let ended = |reason: &str| (State::Closed, reason.to_owned());
    let mut conversation = Conversation::v4();
    let mut recording = Recording::default();
    conversation.open(&mut recording, START);
    conversation.says(&mut recording, LATER, End::Client, REQUEST);
    let mut refused = (conversation.clone(), recording.clone());
    let response = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    refused.0.says(&mut refused.1, LATER, End::Server, response);
    assert_eq!(
        states(&refused.1),
        [requested.clone(), ended("refused 403")]
    );

    conversation.rst(&mut recording, LATER, End::Server);
    assert_eq!(states(&recording), [requested, ended("no answer")]);
}

/// A connection with data in its SYN, which the server accepts or not (RFC 7413 §4.2).
fn fast_open(recording: &mut Recording, data: &[u8], is_taken: bool) -> Conversation {
    let mut conversation = Conversation::v4();
    conversation.segment(recording, START, End::Client, SYN, data);
    if !is_taken {
        conversation.next[0] -= data.len() as u32;
    }
    conversation.acked[1] = conversation.next[0];
    conversation.syn_ack(recording, START + MILLI);
    conversation
}

#[test]
fn a_request_in_a_syn_counts_once_accepted_or_retransmitted() {
    for is_taken in [true, false] {
        let mut recording = Recording::default();
        let mut conversation = fast_open(&mut recording, REQUEST, is_taken);
        if is_taken {
            // The server need not wait for the last acknowledgement.
            conversation.says(&mut recording, START + 2 * MILLI, End::Server, RESPONSE);
            conversation.ack(&mut recording, START + 3 * MILLI, End::Client);
        } else {
            conversation.ack(&mut recording, START + 2 * MILLI, End::Client);
            conversation.says(&mut recording, START + 3 * MILLI, End::Client, REQUEST);
            conversation.says(&mut recording, START + 4 * MILLI, End::Server, RESPONSE);
        }
        let text = frame(TEXT, b"hi", true);
        conversation.says(&mut recording, LATER, End::Client, &text);
        let played = judge(&recording, &[server(8080, None)]);
        let [connection] = played.connections()[..] else {
            panic!("{played:?}");
        };
        assert_eq!(connection.protocol, "websocket");
        assert_eq!(
            connection.rx.frames_by_opcode,
            Some([("text", 1)].into()),
            "{is_taken}"
        );
        assert_eq!(
            (connection.rx.unsynced_bytes, connection.tx.unsynced_bytes),
            (Some(0), Some(0))
        );
        assert_eq!(played.connecting(), 1, "{played:?}");
    }
}

#[test]
fn a_client_hello_in_a_syn_is_tls_unless_the_connection_is_refused() {
    let hello = b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03 and then 32 bytes of random";
    let mut recording = Recording::default();
    let mut conversation = fast_open(&mut recording, hello, true);
    conversation.ack(&mut recording, START + 2 * MILLI, End::Client);
    let played = judge(&recording, &[server(8080, None)]);
    let [connection] = played.connections()[..] else {
        panic!("{played:?}");
    };
    assert_eq!(connection.protocol, "opaque");

    let mut recording = Recording::default();
    let mut conversation = Conversation::v4();
    conversation.segment(&mut recording, START, End::Client, SYN, hello);
    conversation.rst(&mut recording, START + MILLI, End::Server);
    assert_eq!(
        judge(&recording, &[server(8080, None)]).connections().len(),
        0
    );
}

#[test]
fn a_connection_opened_from_a_watched_port_is_outgoing() {
    let watched = [server(12_530, None)];
    for met_at in ["SYN", "answer"] {
        let mut recording = Recording::default();
        let mut conversation = Conversation::new("10.0.0.1:12530", "10.0.0.2:8080");
        conversation.open(&mut recording, START);
        upgrade(&mut conversation, &mut recording, START);
        if met_at == "answer" {
            recording.packets.remove(0);
        }
        let played = judge(&recording, &watched);
        assert_eq!(played.connections().len(), 0, "{met_at}: {played:?}");
    }
    // In the other direction it is a server's connection.
    let mut recording = Recording::default();
    let mut conversation = Conversation::new("10.0.0.2:8080", "10.0.0.1:12530");
    conversation.open(&mut recording, START);
    upgrade(&mut conversation, &mut recording, START);
    assert_eq!(judge(&recording, &watched).connections().len(), 1);
}

#[test]
fn a_request_behind_a_proxy_header_in_one_segment_is_found_with_its_port() {
    let mut recording = Recording::default();
    let mut conversation = Conversation::v4();
    conversation.open(&mut recording, START);
    let request = [b"PROXY TCP4 192.0.2.7 192.0.2.2 1000 443\r\n", REQUEST].concat();
    conversation.says(&mut recording, START + 5 * MILLI, End::Client, &request);
    let file = recording.pcap();
    let mut capture = Capture::open(&file[..]).expect("a recording");
    assert_eq!(websocket_ports(&mut capture), [8080].into());

    conversation.says(&mut recording, START + 6 * MILLI, End::Server, RESPONSE);
    let played = judge(&recording, &[server(8080, None)]);
    let [connection] = played.connections()[..] else {
        panic!("{played:?}");
    };
    assert_eq!(connection.protocol, "websocket");
    assert_eq!(played.connecting(), 1);
}
