//! The packet logic gives back what was put into the stream, however the stream was cut.

mod ws;

use monitor_common::{
    Direction,
    snapshot::{protocol, role},
    stats::ListenerStats,
    stream::{MAX_STEPS, mode},
};
use proptest::{prelude::*, sample::select};
use tungstenite::protocol::frame::FrameHeader;

use ws::{Fate, Frame, Monitor, REQUEST, RESPONSE, Stream, cut, fates, frames, lengths, sizes};

/// The plainest model of what the frames of a connection add up to.
#[derive(Default)]
struct Model {
    frames: [[u64; 16]; 2],
    payload: [u64; 2],
    fragmented: [u64; 2],
    unanswered: [u64; 2],
    pinged_again: [u64; 2],
    round_trips: [u64; 2],
    close: Option<(Direction, u16)>,
}

impl Model {
    fn frame(&mut self, direction: Direction, frame: &Frame) {
        let (own, other) = (direction.index(), direction.opposite().index());
        self.frames[own][usize::from(frame.opcode)] += 1;
        self.payload[own] += frame.len as u64;
        self.fragmented[own] += u64::from(!frame.fin && frame.opcode != 0);
        match frame.opcode {
            ws::PING => {
                self.pinged_again[own] += u64::from(self.unanswered[own] > 0);
                self.unanswered[own] += 1;
            }
            ws::PONG => {
                self.round_trips[other] += u64::from(self.unanswered[other] > 0);
                self.unanswered[other] = 0;
            }
            ws::CLOSE => {
                self.close
                    .get_or_insert((direction, frame.code.unwrap_or(0)));
            }
            _ => {}
        }
    }

    fn check(&self, monitor: &Monitor) -> Result<(), TestCaseError> {
        let (stats, s) = (&monitor.stats, &monitor.flow.snapshot);
        let close = (s.close_initiator != 0).then(|| {
            let by = Direction::ALL[usize::from(s.close_initiator) - 1];
            (by, s.close_code)
        });
        prop_assert_eq!(close, self.close);
        for (d, facts) in [(Direction::Rx, s.rx), (Direction::Tx, s.tx)] {
            let i = d.index();
            prop_assert_eq!(stats.frames[i].map(|n| n.get()), self.frames[i]);
            prop_assert_eq!(stats.payload_bytes[i].get(), self.payload[i]);
            prop_assert_eq!(facts.payload_bytes, self.payload[i]);
            prop_assert_eq!(u64::from(facts.frames), self.frames[i].iter().sum::<u64>());
            prop_assert_eq!(stats.fragmented_messages[i].get(), self.fragmented[i]);
            prop_assert_eq!(stats.unsynced_bytes[i].get(), 0);
            prop_assert_eq!(u64::from(facts.pings_unanswered()), self.unanswered[i]);
            prop_assert_eq!(stats.pings_unanswered[i].get(), self.pinged_again[i]);
            let rtt = &stats.ping_rtt[i].buckets;
            prop_assert_eq!(
                rtt.iter().map(|n| n.get()).sum::<u64>(),
                self.round_trips[i]
            );
        }
        Ok(())
    }
}

/// One direction on its way: what is sent next and how far the other end has it.
struct Journey {
    direction: Direction,
    stream: Stream,
    ranges: std::vec::IntoIter<std::ops::Range<usize>>,
    isn: u32,
    counted: usize,
}

impl Journey {
    /// The first `opening` bytes come in one segment: HTTP is known by how a segment begins.
    fn new(
        direction: Direction,
        stream: Stream,
        opening: usize,
        sizes: &[usize],
        isn: u32,
    ) -> Self {
        let mut ranges = cut(opening, &[opening.max(1)]);
        let rest = cut(stream.bytes.len() - opening, sizes);
        ranges.extend(rest.into_iter().map(|r| r.start + opening..r.end + opening));
        Self {
            direction,
            stream,
            ranges: ranges.into_iter(),
            isn,
            counted: 0,
        }
    }

    /// Brings the next segment to the monitor; false when there is none.
    fn go(
        &mut self,
        fate: Fate,
        monitor: &mut Monitor,
        model: &mut Model,
    ) -> Result<bool, TestCaseError> {
        let Some(mut range) = self.ranges.next() else {
            return Ok(false);
        };
        let mut times = 1;
        match fate {
            Fate::Unseen
                if self.stream.is_payload(&range) && !self.ranges.as_slice().is_empty() =>
            {
                return Ok(true);
            }
            Fate::ArrivesTwice => times = 2,
            Fate::Overlaps(by) => range.start = range.start.saturating_sub(by),
            _ => {}
        }
        for _ in 0..times {
            let seq = self.isn.wrapping_add(range.start as u32);
            let account = monitor.take(self.direction, seq, &self.stream.bytes[range.clone()]);
            prop_assert!(account.taken.steps <= MAX_STEPS && !account.taken.too_long);
        }
        while let Some((_, frame)) = self
            .stream
            .frames
            .get(self.counted)
            .filter(|(header_end, _)| *header_end <= range.end)
        {
            model.frame(self.direction, frame);
            self.counted += 1;
        }
        Ok(true)
    }

    /// Whether the HTTP of this direction is on its way or through.
    fn http_passed(&self) -> bool {
        let next = self.ranges.as_slice().first();
        next.is_none_or(|next| next.start >= self.stream.http)
    }
}

proptest! {
    /// Nothing is lost that could hold a header: every figure is exact, in both roles, with and
    /// without the upgrade in view.
    #[test]
    fn a_connection_is_accounted_exactly_however_it_is_cut(
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
            // Frames of the server may come in the segment of the 101; those of the client wait
            // for it.
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
        prop_assert_eq!(monitor.flow.snapshot.protocol, protocol::WEBSOCKET);
        prop_assert_eq!(monitor.stats.opened.get(), u64::from(upgrade));
    }

    /// The law of conservation. In step, the bytes that a direction went forward are those of the
    /// frames begun in it, and a change in what waits for its rest. Where step is lost, at most the
    /// 13 bytes of an incomplete header go missing, and at most what was left of a frame was
    /// attributed without being seen.
    #[test]
    fn every_byte_is_framed_or_unsynced_whatever_the_segments_hold(
        server_side in any::<bool>(),
        start in 0..3_u8,
        segments in prop::collection::vec((any::<bool>(), place(), noise()), 1..40),
    ) {
        let role = if server_side { role::SERVER } else { role::CLIENT };
        let mut monitor = match start {
            0 => Monitor::new(role),
            1 => Monitor::upgraded(role),
            _ => Monitor::adopted(role),
        };
        for (rx, place, payload) in segments {
            let direction = if rx { Direction::Rx } else { Direction::Tx };
            let before = *monitor.flow.walk_mut(direction);
            let account = monitor.take(direction, before.next_seq.wrapping_add(place), &payload);
            prop_assert!(account.taken.steps <= MAX_STEPS && !account.taken.unreadable);

            let after = *monitor.flow.walk_mut(direction);
            let http = |mode| matches!(mode, mode::HANDSHAKE | mode::HEAD);
            if http(before.mode) || http(after.mode) || payload.starts_with(b"HTTP/1.") {
                continue;
            }
            let told = (account.framed + account.unsynced).cast_signed() + account.pending;
            let missing = account.advanced.cast_signed() - told;
            if account.in_step {
                prop_assert_eq!(missing, 0);
            } else {
                prop_assert!(missing <= 13, "{} bytes went missing", missing);
                prop_assert!(missing >= -before.skip.cast_signed(), "{} too many", -missing);
            }
        }
    }

    /// A hole that may hide headers costs frames, but never invents one, and a later segment that
    /// begins with a header brings the rest back.
    #[test]
    fn after_a_hole_only_true_frames_are_counted(
        server_side in any::<bool>(),
        sent in frames(plain_lengths()),
        sizes in prop::collection::vec(prop_oneof![20..200_usize, Just(1448)], 1..8),
        lost in prop::collection::vec(prop::bool::weighted(0.3), 1..12),
        tail in 1..100_usize,
    ) {
        let role = if server_side { role::SERVER } else { role::CLIENT };
        let mut monitor = Monitor::upgraded(role);
        let masked = server_side;
        // A frame without payload shows nothing behind its header by which to doubt it.
        let sent: Vec<_> = sent.into_iter().filter(|frame| frame.len > 0).collect();
        let stream = Stream::new(b"", &sent, masked);
        let total = tally(&sent);
        let mut lost = lost.iter().cycle();
        for range in cut(stream.bytes.len(), &sizes) {
            if !lost.next().expect("a cycle") {
                monitor.take(Direction::Rx, range.start as u32, &stream.bytes[range]);
            }
        }
        let counted = monitor.stats.frames[0].map(|n| n.get());
        for (opcode, (counted, sent)) in counted.iter().zip(total).enumerate() {
            prop_assert!(*counted <= sent, "{counted} of {sent} frames of opcode {opcode}");
        }

        // One segment that is one frame: in step again, whatever came before.
        let last = Stream::new(b"", &[Frame::new(true, ws::TEXT, tail)], masked);
        let hole = monitor.flow.rx_walk.skip as u32 + 1000;
        let at = (stream.bytes.len() as u32).wrapping_add(hole);
        monitor.take(Direction::Rx, at, &last.bytes);
        prop_assert_eq!(monitor.stats.frames[0][1].get(), counted[1] + 1);
        let next = at.wrapping_add(last.bytes.len() as u32);
        prop_assert!(monitor.take(Direction::Rx, next, &last.bytes).in_step);
    }
}

/// Every one of the 13 places inside the longest header, with and without the last bytes of a
/// frame in front of it, and a byte at a time.
#[test]
fn a_header_is_read_wherever_it_is_cut() {
    for (masked, frame) in [
        (true, Frame::new(true, ws::BINARY, 70_000)),
        (false, Frame::new(true, ws::BINARY, 70_000)),
        (true, Frame::new(false, ws::TEXT, 300)),
        (true, Frame::close(1001, 5)),
        (false, Frame::close(1001, 5)),
    ] {
        let stream = Stream::new(b"", &[Frame::new(true, ws::PING, 3), frame], masked);
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
                    tally(&[Frame::new(true, ws::PING, 3), frame]),
                    counts(&monitor.stats),
                    "cut at {cut}"
                );
                assert_eq!(monitor.flow.snapshot.close_code, frame.code.unwrap_or(0));
                assert_eq!(monitor.stats.unsynced_bytes[0].get(), 0);
            }
        }
    }
}

/// The smallest frames of a client are 6 bytes: 64 KiB of them stay below the cap. A server's are
/// 2 bytes, and there the rest is counted, not dropped in silence.
#[test]
fn the_cap_on_steps_is_reported_with_what_was_left() {
    let pings = |n, masked| Stream::new(b"", &vec![Frame::new(true, ws::PING, 0); n], masked).bytes;

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

/// As headers they would be empty continuation frames, one after the other.
#[test]
fn a_run_of_zeros_is_not_taken_for_frames() {
    for len in [2, 6, 100, 1448] {
        let mut monitor = Monitor::adopted(role::CLIENT);
        let account = monitor.take(Direction::Rx, 0, &vec![0; len]);
        assert_eq!(counts(&monitor.stats), [0; 16], "{len} zeros");
        assert_eq!(account.unsynced, len as u64);
    }
}

#[test]
fn an_adopted_flow_is_in_step_at_the_first_segment_that_is_whole_frames() {
    let mut monitor = Monitor::adopted(role::SERVER);
    let frames = [
        Frame::new(true, ws::TEXT, 300),
        Frame::new(true, ws::PING, 4),
    ];
    let stream = Stream::new(b"", &frames, true);
    // From within a payload: no header to believe.
    let middle = monitor.take(Direction::Rx, 1000, &stream.bytes[100..]);
    assert_eq!(middle.unsynced, stream.bytes.len() as u64 - 100);
    assert_eq!(monitor.flow.snapshot.protocol, protocol::ASSUMED);
    let whole = monitor.take(Direction::Rx, 1000 + middle.unsynced as u32, &stream.bytes);
    assert_eq!(whole.unsynced, 0);
    assert_eq!(counts(&monitor.stats), tally(&frames));
    assert_eq!(monitor.flow.snapshot.protocol, protocol::WEBSOCKET);
}

fn counts(stats: &ListenerStats) -> [u64; 16] {
    stats.frames[0].map(|n| n.get())
}

fn tally(frames: &[Frame]) -> [u64; 16] {
    let mut counts = [0; 16];
    for frame in frames {
        counts[usize::from(frame.opcode)] += 1;
    }
    counts
}

/// Lengths whose bytes do not look like a header themselves.
fn plain_lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![5 => 1..=125_usize, 2 => Just(0x0585), 1 => Just(0x4b7f)]
}

/// Where a segment lies: mostly next in line, some behind, some ahead, some anywhere.
fn place() -> impl Strategy<Value = u32> {
    prop_oneof![
        5 => Just(0),
        1 => (0..300_u32).prop_map(u32::wrapping_neg),
        1 => 0..300_u32,
        1 => any::<u32>(),
    ]
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 1..300),
        4 => (frames(lengths()), any::<bool>(), 0..40_usize).prop_map(|(frames, masked, cut)| {
            let mut bytes = Stream::new(b"", &frames, masked).bytes;
            bytes.truncate(bytes.len().saturating_sub(cut).max(1));
            if bytes.is_empty() { vec![0x81] } else { bytes }
        }),
        1 => (1..3000_usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => select(vec![REQUEST.to_vec(), RESPONSE.to_vec(), vec![0x16, 3, 1, 2, 0], b"HTTP/1.1 200 OK\r\n\r\n".to_vec()]),
    ]
}

/// The generator is no better than its reader: tungstenite has to find the same frames.
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
