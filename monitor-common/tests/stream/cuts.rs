//! Every figure is exact, however the stream is cut.

use monitor_common::{
    Direction,
    snapshot::{protocol, role},
    stream::MAX_STEPS,
};
use proptest::prelude::*;
use tungstenite::protocol::frame::FrameHeader;
use wire::{REQUEST, RESPONSE};

use crate::{
    counts,
    model::{Journey, Model},
    tally,
    ws::{Fate, Frame, Monitor, Stream, fates, frames, lengths, sizes},
};

proptest! {
    /// No lost segment could hold a header, so every figure is exact, in both roles, with and without the
    /// upgrade in view.
    #[test]
    fn accounting_is_exact_however_the_connection_is_cut(
        server_side in any::<bool>(),
        upgrade in any::<bool>(),
        from_client in frames(lengths()),
        from_server in frames(lengths()),
        cuts in [sizes(), sizes()],
        isns in any::<[u32; 2]>(),
        near_the_wrap in any::<bool>(),
        fates in fates(),
        turns in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let role = if server_side { role::SERVER } else { role::CLIENT };
        let mut monitor = if upgrade { Monitor::new(role) } else { Monitor::upgraded(role) };
        let isns = if near_the_wrap { isns.map(|isn| 0_u32.wrapping_sub(isn % 2000)) } else { isns };
        let (request, response) = if upgrade { (REQUEST, RESPONSE) } else { (&b""[..], &b""[..]) };
        let client = Stream::new(request, &from_client, true);
        let server = Stream::new(response, &from_server, false);
        assert_tungstenite_reads(&client);
        assert_tungstenite_reads(&server);

        let by = monitor.client();
        let status = server.http.min(b"HTTP/1.1 101".len());
        let mut client = Journey::new(by, client, request.len(), &cuts[0], isns[0]);
        let mut server = Journey::new(by.opposite(), server, status, &cuts[1], isns[1]);
        let mut model = Model::default();
        let mut fates = fates.iter().cycle().copied();
        let mut fate = || fates.next().expect("a cycle");
        if upgrade {
            // The server's frames may come in the segment of the 101; the client's frames wait for it.
            client.go(Fate::ArrivesTwice, &mut monitor, &mut model)?;
            while !server.http_passed() {
                server.go(fate(), &mut monitor, &mut model)?;
            }
        }
        let mut turns = turns.iter().cycle();
        loop {
            let (first, second) = if *turns.next().expect("a cycle") {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            if !first.go(fate(), &mut monitor, &mut model)?
                && !second.go(fate(), &mut monitor, &mut model)?
            {
                break;
            }
        }
        model.check(&monitor)?;
        prop_assert_eq!(monitor.flow().snapshot.protocol, protocol::WEBSOCKET);
        prop_assert_eq!(monitor.stats.opened.get(), u64::from(upgrade));
    }
}

/// All 13 cuts inside the longest header, with and without the last bytes of a frame in front of it, and
/// one byte at a time.
#[test]
fn a_header_is_read_wherever_it_is_cut() {
    for (masked, frame) in [
        (true, Frame::new(true, wire::BINARY, 70_000)),
        (false, Frame::new(true, wire::BINARY, 70_000)),
        (true, Frame::new(false, wire::TEXT, 300)),
        (true, Frame::close(1001, 5)),
        (false, Frame::close(1001, 5)),
    ] {
        let stream = Stream::new(b"", &[Frame::new(true, wire::PING, 3), frame], masked);
        let first = stream.frames[0].0 + 3;
        for cut in first..=(first + 14).min(stream.bytes.len() - 1) {
            for width in [1, usize::MAX] {
                let role = if masked { role::SERVER } else { role::CLIENT };
                let mut monitor = Monitor::upgraded(role);
                let (front, back) = stream.bytes.split_at(cut);
                let mut seq = 0;
                for piece in front.chunks(width.min(front.len())).chain([back]) {
                    monitor.take(Direction::Rx, seq, piece);
                    seq += piece.len() as u32;
                }
                assert_eq!(
                    tally(&[Frame::new(true, wire::PING, 3), frame]),
                    counts(&monitor.stats),
                    "cut at {cut}"
                );
                assert_eq!(monitor.flow().snapshot.close_code, frame.code.unwrap_or(0));
                assert_eq!(monitor.stats.unsynced_bytes[0].get(), 0);
            }
        }
    }
}

/// The smallest frames of a client are 6 bytes: 64 KiB of them stay below the limit. A server's are 2
/// bytes, so the rest is counted, not dropped silently.
#[test]
fn the_limit_on_steps_is_reported_with_the_remaining_bytes() {
    let pings =
        |n, masked| Stream::new(b"", &vec![Frame::new(true, wire::PING, 0); n], masked).bytes;

    let mut monitor = Monitor::upgraded(role::SERVER);
    let account = monitor.take(Direction::Rx, 0, &pings(65_536 / 6, true));
    assert!(!account.taken.too_long);
    assert_eq!(counts(&monitor.stats)[9], 65_536 / 6);

    let mut monitor = Monitor::upgraded(role::CLIENT);
    let account = monitor.take(Direction::Rx, 0, &pings(32_000, false));
    assert!(account.taken.too_long);
    assert_eq!(account.taken.steps, MAX_STEPS);
    assert_eq!(counts(&monitor.stats)[9], u64::from(MAX_STEPS));
    assert_eq!(account.unsynced, 64_000 - 2 * u64::from(MAX_STEPS));
}

/// Checks the generator: tungstenite must find the same frames.
fn assert_tungstenite_reads(stream: &Stream) {
    let mut at = stream.http;
    for (_, frame) in &stream.frames {
        let mut cursor = std::io::Cursor::new(&stream.bytes[at..]);
        let (header, len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!(
            (header.is_final, u8::from(header.opcode), len),
            (frame.fin, frame.opcode, frame.len as u64)
        );
        at += cursor.position() as usize + frame.len;
    }
    assert_eq!(at, stream.bytes.len());
}
