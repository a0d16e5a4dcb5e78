//! How a flow begins, which protocol is recognised, and how it ends.

use monitor_common::{
    event::CloseHow,
    snapshot::{origin, protocol},
    stream::mode,
};

use super::{
    ws::{Frame, Stream},
    *,
};

#[test]
fn a_connection_ends_in_one_of_six_ways() {
    let closing = Stream::new(b"", &[Frame::close(1001, 0)], true).bytes;
    let end = |act: fn(&mut Socket, &[u8])| {
        let mut socket = Socket::upgraded();
        act(&mut socket, &closing);
        socket.connection.flow.snapshot.close_how()
    };
    // A local abort sets the state before its reset leaves.
    assert_eq!(end(|_, _| {}), CloseHow::RstSent);
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.origin = origin::SEEDED),
        CloseHow::Unknown,
        "no packet was ever seen, so no FIN either"
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
        }),
        CloseHow::RstSent,
        "TCP does not give up before a retransmission"
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
            socket.connection.flow.retransmit(&mut socket.stats);
        }),
        CloseHow::Timeout
    );
    assert_eq!(
        end(|socket, _| {
            socket.tx(segment(5000, 1000), DATA);
            socket.rx(flagged(1000, 5000, tcp_flags::FIN), b"");
        }),
        CloseHow::Fin
    );
    // The two tracepoints write these. A reset after a FIN changes nothing: the connection had already
    // ended.
    assert_eq!(
        end(|socket, _| {
            socket.rx(flagged(1000, 5000, tcp_flags::FIN), b"");
            socket.connection.flow.snapshot.rst_tx = 1;
        }),
        CloseHow::Fin
    );
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.rst_tx = 1),
        CloseHow::RstSent
    );
    assert_eq!(
        end(|socket, _| socket.connection.flow.snapshot.rst_rx = 1),
        CloseHow::RstReceived
    );
    assert_eq!(
        end(|socket, close| {
            let notes = socket.rx(segment(1000, 5000), close);
            assert_ne!(notes & notable::CLOSING, 0);
            let fin = socket.rx(flagged(1008, 5000, tcp_flags::FIN), b"");
            assert_eq!(
                fin & notable::CLOSING,
                0,
                "the close frame was the first sign"
            );
            socket.connection.flow.snapshot.rst_rx = 1;
            assert_eq!(socket.connection.flow.snapshot.close_code, 1001);
        }),
        CloseHow::CloseFrame
    );
}

#[test]
fn an_adopted_flow_keeps_its_seed_until_packets_bring_sequence_numbers() {
    let mut socket = Socket::established();
    let s = &mut socket.connection.flow.snapshot;
    s.origin = origin::SEEDED;
    (s.snd_nxt, s.una_known, s.nxt_known) = (100, 1, 1);
    s.unacked_since = 5;
    s.retransmits = 3;
    assert_eq!(s.outstanding(), 100);
    socket.connection.flow.join_mid_stream(Direction::Tx);
    assert_eq!(
        socket.connection.flow.snapshot.outstanding(),
        0,
        "the seed's numbers are not the stream's"
    );

    let notes = socket.tx(segment(70_000, 1), DATA);
    assert_ne!(notes & notable::OPENED, 0);
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.outstanding(), s.unacked_since),
        (100, 5),
        "outstanding since the seed's time"
    );
    assert_eq!(s.protocol, protocol::ASSUMED);
    assert_eq!(
        socket.stats.opened.get(),
        0,
        "it opened before the monitor started"
    );

    let notes = socket.rx(segment(1, 70_100), b"");
    assert_ne!(notes & notable::ANSWERED, 0);
    assert_eq!(socket.connection.flow.snapshot.outstanding(), 0);
}

#[test]
fn an_adopted_flow_without_a_seed_is_outstanding_since_its_first_packet() {
    let mut socket = Socket::established();
    socket.connection.flow.snapshot.unacked_since = 5;
    socket.connection.flow.join_mid_stream(Direction::Tx);
    socket.tx(segment(70_000, 1), DATA);
    let s = &socket.connection.flow.snapshot;
    assert_eq!((s.outstanding(), s.unacked_since), (100, socket.now));
}

#[test]
fn plain_http_is_never_watched() {
    let mut socket = Socket::established();
    for _ in 0..2 {
        let notes = socket.rx(segment(1, 1), b"GET /health HTTP/1.1\r\n\r\n");
        assert_eq!(notes & notable::EVENTS, 0);
        let notes = socket.tx(segment(1, 25), b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(notes & notable::EVENTS, 0);
    }
    assert_eq!(socket.connection.flow.snapshot.protocol, protocol::HTTP);
    assert!(!socket.connection.flow.snapshot.is_watched());
    assert_eq!(socket.stats, ListenerStats::EMPTY);
}

#[test]
fn an_adopted_flow_that_speaks_http_is_dismissed_and_may_still_upgrade() {
    for (direction, http) in [
        (Direction::Rx, &b"POST /a HTTP/1.1\r\n\r\n"[..]),
        (Direction::Tx, b"HTTP/1.1 404 Not Found\r\n\r\n"),
    ] {
        let mut socket = Socket::established();
        socket.connection.flow.snapshot.origin = origin::ADOPTED;
        socket.connection.flow.join_mid_stream(direction);
        let notes = socket.take(direction, segment(1, 1), http);
        assert_ne!(notes & notable::DISMISSED, 0);
        assert!(!socket.connection.flow.snapshot.is_watched());

        socket.rx(segment(100, 1), REQUEST);
        let notes = socket.tx(segment(100, 1), RESPONSE);
        assert_ne!(notes & notable::OPENED, 0);
        assert_eq!(
            socket.connection.flow.snapshot.protocol,
            protocol::WEBSOCKET
        );
        assert_eq!(socket.stats.opened.get(), 1);
    }
}

#[test]
fn tls_is_opaque_and_its_bytes_are_not_examined() {
    let mut socket = Socket::established();
    let notes = socket.rx(segment(1, 1), &[0x16, 3, 1, 0, 200]);
    assert_ne!(notes & notable::OPENED, 0);
    let frames = Stream::new(b"", &[Frame::new(true, wire::PING, 0); 3], true).bytes;
    socket.rx(segment(6, 1), &frames);
    socket.tx(segment(1, 6), RESPONSE);
    let s = &socket.connection.flow.snapshot;
    assert_eq!(
        (s.protocol, s.rx.frames, s.rx.last_payload),
        (protocol::OPAQUE, 0, socket.now)
    );
    assert_eq!(socket.stats.unsynced_bytes.map(|n| n.get()), [0, 0]);
    assert_eq!(socket.connection.flow.rx_walk.mode, mode::HANDSHAKE);
}

#[test]
fn tls_is_recognised_by_the_servers_answer_if_the_client_was_not_seen() {
    for direction in Direction::ALL {
        let mut socket = Socket::established();
        let notes = socket.take(direction, segment(1, 1), &[0x16, 3, 3, 0, 90]);
        assert_ne!(notes & notable::OPENED, 0);
        assert_eq!(socket.connection.flow.snapshot.protocol, protocol::OPAQUE);
    }
    // After a request it is an answer like any other.
    let mut socket = Socket::established();
    socket.rx(segment(1, 1), b"GET /health HTTP/1.1\r\n\r\n");
    socket.tx(segment(1, 25), &[0x16, 3, 3, 0, 90]);
    assert!(!socket.connection.flow.snapshot.is_watched());
}

#[test]
fn data_in_a_syn_is_followed_by_the_next_segment() {
    let mut socket = Socket::established();
    let syn = Segment {
        flags: tcp_flags::SYN,
        ..segment(u32::MAX - 20, 0)
    };
    socket.rx(syn, REQUEST);
    assert_eq!(
        socket.connection.flow.snapshot.protocol,
        protocol::UPGRADING
    );
    let next = syn.payload_seq().wrapping_add(REQUEST.len() as u32);
    // A retransmission, without the SYN.
    socket.rx(segment(syn.payload_seq(), 1), REQUEST);
    assert_eq!(socket.stats.upgrade_requests.get(), 1);
    socket.tx(segment(1, next), RESPONSE);
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 3)], true).bytes;
    socket.rx(segment(next, 1), &ping);
    assert_eq!(socket.stats.frames[0][9].get(), 1);
    assert_eq!(socket.stats.unsynced_bytes[0].get(), 0);
}

/// The example of draft-ietf-hybi-thewebsocketprotocol-00 §1.2, and its frames (§4.2).
#[test]
fn the_draft_before_rfc_6455_is_ignored() {
    let request: &[u8] = b"GET /demo HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nOrigin: http://example.com\r\n\r\n^n:ds[4U";
    let response: &[u8] = b"HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Origin: http://example.com\r\n\
        Sec-WebSocket-Location: ws://example.com/demo\r\n\r\n8jKS'y:G*Co,Wxa-";
    let mut socket = Socket::established();
    let mut notes = socket.rx(segment(1, 1), request);
    let next = 1 + request.len() as u32;
    notes |= socket.tx(segment(1, next), response);
    for n in 0..20 {
        notes |= socket.rx(segment(next + 7 * n, 1), b"\0hello\xff");
    }
    assert_eq!(notes & notable::EVENTS, 0);
    assert!(!socket.connection.flow.snapshot.is_watched());
    assert_eq!(socket.stats, ListenerStats::EMPTY);

    // A server that speaks RFC 6455 and also sends the location does not follow that draft.
    let mut socket = Socket::established();
    socket.rx(segment(1, 1), REQUEST);
    let both = [
        &RESPONSE[..RESPONSE.len() - 2],
        b"WebSocket-Location: ws://a/\r\n\r\n",
    ]
    .concat();
    socket.tx(segment(1, 1 + REQUEST.len() as u32), &both);
    assert!(socket.connection.flow.snapshot.is_watched());
}

/// A request, followed by the client's bytes in these pieces, `early` of them before the 101.
fn impatient(request: &[&[u8]], pieces: &[&[u8]], early: usize) -> Socket {
    let mut socket = Socket::established();
    let mut next = u32::MAX - 100;
    let mut say = |socket: &mut Socket, bytes: &[u8]| {
        socket.rx(segment(next, 1), bytes);
        next = next.wrapping_add(bytes.len() as u32);
    };
    request.iter().for_each(|part| say(&mut socket, part));
    pieces[..early]
        .iter()
        .for_each(|part| say(&mut socket, part));
    socket.tx(segment(1, 1), RESPONSE);
    pieces[early..]
        .iter()
        .for_each(|part| say(&mut socket, part));
    socket
}

#[test]
fn frames_before_the_101_are_unsynced_bytes_and_hide_none_behind_it() {
    let frames = Stream::new(b"", &[Frame::new(true, wire::TEXT, 50); 4], true).bytes;
    let frame = frames.len() / 4;
    let in_two = REQUEST.split_at(REQUEST.len() - 20);
    for cut in 1..frames.len() {
        let (before, behind) = frames.split_at(cut);
        for request in [&[REQUEST][..], &[in_two.0, in_two.1]] {
            let socket = impatient(request, &[before, behind], 1);
            // A frame whose header is cut by the 101 is complete after it.
            let lost = cut / frame + usize::from(cut % frame >= frame - 50);
            let counted = socket.stats.frames[0][1].get();
            assert_eq!(counted, 4 - lost as u64, "{cut}");
            let unsynced = socket.stats.unsynced_bytes[0].get();
            assert_eq!(unsynced, (lost * frame) as u64, "{cut}");
            assert_eq!(socket.stats.protocol_errors.map(|n| n.get()), [0; 10]);
        }
    }
}

#[test]
fn a_refusal_discards_frames_sent_before_it() {
    let frames = Stream::new(b"", &[Frame::new(true, wire::TEXT, 50); 2], true).bytes;
    let mut socket = Socket::established();
    let mut next = 1;
    for status in ["401 Unauthorized", "429 Too Many Requests"] {
        socket.rx(segment(next, 1), REQUEST);
        socket.rx(segment(next + REQUEST.len() as u32, 1), &frames[..70]);
        next += REQUEST.len() as u32 + 70;
        let refusal = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        socket.tx(segment(1, next), refusal.as_bytes());
    }
    socket.rx(segment(next, 1), REQUEST);
    next += REQUEST.len() as u32;
    socket.tx(segment(1000, next), RESPONSE);
    socket.rx(segment(next, 1), &frames);
    assert_eq!(socket.stats.frames[0][1].get(), 2);
    assert_eq!(socket.stats.unsynced_bytes[0].get(), 0);
}

#[test]
fn the_101_acknowledges_the_request_even_if_unseen_or_repeated() {
    let frames = Stream::new(b"", &[Frame::new(true, wire::TEXT, 50); 2], true).bytes;
    let mut socket = Socket::established();
    socket.tx(segment(1, 1 + REQUEST.len() as u32), RESPONSE);
    socket.rx(segment(1, 1), REQUEST);
    socket.rx(segment(1 + REQUEST.len() as u32, 1), &frames);
    assert_eq!(
        socket.stats.frames[0].map(|n| n.get()).iter().sum::<u64>(),
        2
    );
    assert_eq!(socket.stats.unsynced_bytes[0].get(), 0);
}
