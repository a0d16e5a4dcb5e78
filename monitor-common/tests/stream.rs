//! The packet logic gives back what was put into the stream, however the stream was cut.

mod ws;

use std::{cell::Cell, collections::VecDeque, ops::Range};

use monitor_common::{
    Direction,
    holes::ISLANDS,
    segment::Segment,
    snapshot::{protocol, role},
    stats::{ListenerStats, PongKind},
    stream::{MAX_STEPS, mode},
};
use proptest::{
    prelude::prop::test_runner::{RngAlgorithm, TestRng},
    prelude::*,
    sample::select,
};
use tungstenite::protocol::frame::FrameHeader;

use ws::{
    Fate, Frame, Monitor, REQUEST, RESPONSE, Stream, cut, data_segment, fates, frames, lengths,
    sizes,
};

/// The plainest model of what the frames of a connection add up to.
#[derive(Default)]
struct Model {
    frames: [[u64; 16]; 2],
    payload: [u64; 2],
    fragmented: [u64; 2],
    /// The lengths of the outstanding pings; they have nothing else to tell them apart.
    outstanding: [Vec<usize>; 2],
    pinged_again: [u64; 2],
    round_trips: [u64; 2],
    /// By `PongKind`.
    pongs: [[u64; 3]; 2],
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
                self.pinged_again[own] += u64::from(!self.outstanding[own].is_empty());
                self.outstanding[own].push(frame.len);
            }
            ws::PONG => {
                let kind = answer(&mut self.outstanding[other], frame.len);
                self.pongs[own][kind as usize] += 1;
                self.round_trips[other] += u64::from(kind == PongKind::Matched);
            }
            ws::CLOSE => {
                self.close
                    .get_or_insert((direction, frame.code.unwrap_or(0)));
            }
            _ => {}
        }
    }

    fn check(&self, monitor: &Monitor) -> Result<(), TestCaseError> {
        let (stats, s) = (&monitor.stats, &monitor.flow().snapshot);
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
            let outstanding = self.outstanding[i].len() as u32;
            prop_assert_eq!(facts.pings_unanswered(), outstanding);
            prop_assert_eq!(stats.pongs[i].map(|n| n.get()), self.pongs[i]);
            prop_assert_eq!(stats.pings_unanswered[i].get(), self.pinged_again[i]);
            let rtt = &stats.ping_rtt[i].buckets;
            // A pong that matches a ping between the first and the last measures nothing.
            let measured = rtt.iter().map(|n| n.get()).sum::<u64>();
            prop_assert!(measured <= self.round_trips[i]);
        }
        Ok(())
    }
}

/// What a pong with `len` bytes answers.
fn answer(outstanding: &mut Vec<usize>, len: usize) -> PongKind {
    let (Some(first), Some(last)) = (outstanding.first(), outstanding.last()) else {
        return PongKind::Unsolicited;
    };
    if len == *last {
        outstanding.clear();
        PongKind::Matched
    } else if len == *first {
        outstanding.remove(0);
        // Of those in the middle nothing is remembered.
        let last = outstanding.last().copied();
        outstanding
            .iter_mut()
            .for_each(|len| *len = last.unwrap_or(*len));
        PongKind::Matched
    } else {
        let middle = outstanding.len() > 2;
        outstanding.clear();
        if middle {
            PongKind::Matched
        } else {
            PongKind::Mismatched
        }
    }
}

/// One direction on its way: what is sent next and how far the other end has it.
struct Journey {
    direction: Direction,
    stream: Stream,
    ranges: std::vec::IntoIter<Range<usize>>,
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
        prop_assert_eq!(monitor.flow().snapshot.protocol, protocol::WEBSOCKET);
        prop_assert_eq!(monitor.stats.opened.get(), u64::from(upgrade));
    }

    /// The law of conservation. The bytes that a direction went forward are those of the frames
    /// begun in it, those that belong to no known frame, and a change in what waits for its rest.
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
            let before = *monitor.walk(direction);
            let account = monitor.take(direction, before.next_seq.wrapping_add(place), &payload);
            prop_assert!(account.taken.steps <= MAX_STEPS && !account.taken.unreadable);

            let after = *monitor.walk(direction);
            let http = |mode| matches!(mode, mode::HANDSHAKE | mode::HEAD);
            if http(before.mode) || http(after.mode) || payload.starts_with(b"HTTP/1.") {
                continue;
            }
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
        }
    }

    /// What comes before the hole in front of it is filled is accounted when it is, exactly, if
    /// segments begin with frames; otherwise some of it may be lost, and nothing is invented.
    #[test]
    fn a_hole_that_is_filled_hides_no_frame(
        server_side in any::<bool>(),
        sent in prop::collection::vec(frames(short_lengths()), 1..5),
        near_the_wrap in any::<bool>(),
        aligned in any::<bool>(),
        sizes in prop::collection::vec(20..1448_usize, 1..8),
        late in prop::collection::vec(prop::bool::weighted(0.3), 1..12),
        by in 1..12_usize,
    ) {
        let role = if server_side { role::SERVER } else { role::CLIENT };
        let sent: Vec<_> = sent.into_iter().flatten().collect();
        let stream = Stream::new(b"", &sent, server_side);
        let isn = if near_the_wrap { 0_u32.wrapping_sub(500) } else { 7 };
        let mut monitor = Monitor::upgraded_at(role, isn);
        let ranges = if aligned { whole_frames(&stream) } else { cut(stream.bytes.len(), &sizes) };
        let (mut told, mut unsynced) = (Vec::new(), 0);
        for range in delayed(ranges, &late, by) {
            let seq = isn.wrapping_add(range.start as u32);
            let account = monitor.take(Direction::Rx, seq, &stream.bytes[range]);
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
            told.extend(account.frames.iter().map(|f| (f.opcode(), f.payload_len)));
            unsynced += account.unsynced;
        }
        prop_assert_eq!(monitor.connection.waiting_bytes(Direction::Rx), 0);
        prop_assert!(!monitor.flow().rx_walk.has_holes());
        let truth: Vec<_> = sent.iter().map(|f| (f.opcode, f.len as u64)).collect();
        if aligned {
            prop_assert_eq!(unsynced, 0);
            prop_assert_eq!(told, truth);
        } else {
            let mut rest = truth.iter();
            prop_assert!(told.iter().all(|frame| rest.any(|true_one| true_one == frame)));
        }
    }

    /// Segments need not begin with frames: where a frame begins is found on the island, and proven.
    #[test]
    fn a_hole_between_unaligned_segments_hides_few_frames_and_invents_none(
        seed in any::<[u8; 16]>(),
        size in 300..1449_usize,
        lost in 3..8_usize,
    ) {
        let mut rng = TestRng::from_seed(RngAlgorithm::XorShift, &seed);
        let (bytes, begins) = random_stream(&mut rng, 20, 1200);
        let mut monitor = Monitor::upgraded_at(role::SERVER, 0);
        let mut ranges = cut(bytes.len(), &[size]);
        if ranges.len() > lost + 2 {
            let late = ranges.remove(lost);
            ranges.push(late);
        }
        let (mut told, mut unsynced) = (0, 0);
        for range in ranges {
            let account = monitor.take(Direction::Rx, range.start as u32, &bytes[range]);
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
            told += account.frames.len();
            unsynced += account.unsynced;
        }
        prop_assert!(told <= begins.len());
        prop_assert_eq!(monitor.stats.protocol_errors.map(|n| n.get()).iter().sum::<u64>(), 0);
        let all = told == begins.len() && unsynced == 0;
        BRIDGED.with(|(bridged, tried)| {
            bridged.set(bridged.get() + u32::from(all));
            tried.set(tried.get() + 1);
            // Random payload may look like a frame that is longer than the island.
            if tried.get() == 256 {
                assert!(bridged.get() > 205, "{} of 256", bridged.get());
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    /// A hole that is never filled costs what is in it, and what follows until there is evidence.
    #[test]
    fn after_a_hole_that_is_never_filled_only_true_frames_are_counted(
        server_side in any::<bool>(),
        sent in frames(plain_lengths()),
        sizes in prop::collection::vec(prop_oneof![20..200_usize, Just(1448)], 1..8),
        lost in prop::collection::vec(prop::bool::weighted(0.3), 1..12),
        tail in 1..100_usize,
    ) {
        let role = if server_side { role::SERVER } else { role::CLIENT };
        let mut monitor = Monitor::upgraded_at(role, 0);
        let stream = Stream::new(b"", &sent, server_side);
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

        // The receiver acknowledges all of it, seen or not; then come segments that are one frame
        // each. With the third there is evidence enough.
        let mut at = stream.bytes.len() as u32 + 1000;
        let last = Stream::new(b"", &[Frame::new(true, ws::TEXT, tail)], server_side);
        for _ in 0..6 {
            monitor.take(Direction::Rx, at, &last.bytes);
            at += last.bytes.len() as u32;
            let acked = Segment { ack: at, ..data_segment(RESPONSE.len() as u32, 0) };
            monitor.take_segment(Direction::Tx, &acked, b"");
        }
        let texts = monitor.stats.frames[0][1].get();
        prop_assert!(texts >= counted[1] + 2, "{texts} after {}", counted[1]);
        let account = monitor.take(Direction::Rx, at, &last.bytes);
        prop_assert_eq!((account.frames.len(), account.missing()), (1, 0));
        prop_assert!(!monitor.flow().rx_walk.has_holes());
    }
}

std::thread_local! {
    static BRIDGED: (Cell<u32>, Cell<u32>) = const { (Cell::new(0), Cell::new(0)) };
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
                assert_eq!(monitor.flow().snapshot.close_code, frame.code.unwrap_or(0));
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
fn an_adopted_flow_is_in_step_once_there_is_evidence_and_no_sooner() {
    let mut monitor = Monitor::adopted(role::SERVER);
    let ping = Stream::new(b"", &[Frame::new(true, ws::PING, 4)], true).bytes;
    let text = Stream::new(b"", &[Frame::new(true, ws::TEXT, 300)], true).bytes;
    let mut at = 1000;
    let mut take = |monitor: &mut Monitor, bytes: &[u8]| {
        let account = monitor.take(Direction::Rx, at, bytes);
        at += bytes.len() as u32;
        (account.unsynced, account.frames.len())
    };
    // From within a payload: no header to believe.
    assert_eq!(take(&mut monitor, &text[100..]), (208, 0));
    assert_eq!(take(&mut monitor, &ping), (10, 0));
    assert_eq!(take(&mut monitor, &text), (308, 0));
    assert_eq!(monitor.flow().snapshot.protocol, protocol::ASSUMED);
    // The third segment in a row that begins and ends with a frame.
    assert_eq!(take(&mut monitor, &ping), (0, 1));
    assert_eq!(monitor.flow().snapshot.protocol, protocol::WEBSOCKET);

    // Many frames in one segment are evidence too; those before the last may have been found by
    // mistake.
    let mut monitor = Monitor::adopted(role::SERVER);
    assert_eq!(take(&mut monitor, &ping.repeat(5)), (50, 0));
    let mut monitor = Monitor::adopted(role::SERVER);
    assert_eq!(take(&mut monitor, &ping.repeat(8)), (60, 2));
}

/// The same letter over and over is a chain of headers, but not one of messages.
#[test]
fn a_run_of_one_byte_is_not_taken_for_frames() {
    for byte in 0..=255 {
        for role in [role::SERVER, role::CLIENT] {
            let mut monitor = Monitor::adopted(role);
            for i in 0..20 {
                monitor.take(Direction::Rx, i * 1448, &[byte; 1448]);
            }
            let frames = counts(&monitor.stats).iter().sum::<u64>();
            // Whole messages or control frames, one like the other: this is what frames look like.
            let frame = [byte; 2];
            let like_frames = frame[0] & 0x80 != 0 && frames > 0;
            assert!(frames == 0 || like_frames, "{frames} of byte {byte:#x}");
        }
    }
}

/// Met in mid-stream, random masked payload is never taken for a header, and the first frame that
/// is told begins where a true one does.
#[test]
fn of_a_million_streams_of_random_payload_none_is_joined_at_a_wrong_place() {
    const STREAMS: u32 = 1_000_000;
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut joined = 0;
    let mut monitor = Monitor::adopted(role::SERVER);
    let adopted = monitor.connection.clone();
    for stream in 0..STREAMS {
        let (bytes, begins) = random_stream(&mut rng, 3, 3000);
        monitor.connection.clone_from(&adopted);
        let mut at = rng.random_range(0..bytes.len());
        // As sent by an application that waits now and then: some segments begin with a frame.
        let mut told = 0;
        while at < bytes.len() {
            let next_frame = begins.iter().find(|begin| **begin > at);
            let mut end = (at + rng.random_range(1..800)).min(bytes.len());
            if let Some(begin) = next_frame.filter(|begin| **begin < end && rng.random_bool(0.8)) {
                end = *begin;
            }
            let seq = at as u32;
            let before = monitor.walk(Direction::Rx).mode;
            let account = monitor.take(Direction::Rx, seq, &bytes[at..end]);
            if before != mode::FRAMES && !account.frames.is_empty() {
                let begin = at + account.unsynced as usize;
                assert!(
                    begins.contains(&begin),
                    "stream {stream}: joined at {begin}"
                );
                joined += 1;
            }
            assert_eq!(account.missing(), 0, "stream {stream}");
            told += account.frames.len();
            at = end;
        }
        assert!(told <= begins.len(), "stream {stream}");
    }
    println!("{joined} of {STREAMS} streams joined");
    assert!(joined > STREAMS / 10, "only {joined} were joined at all");
}

/// The bytes of a client's frames with random payload and keys, and where each begins.
fn random_stream(rng: &mut TestRng, least: usize, longest: u16) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut begins = Vec::new();
    for _ in 0..rng.random_range(least..least + 9) {
        let len: u16 = match rng.random_range(0..10) {
            0..7 => rng.random_range(0..126),
            7..9 => rng.random_range(126..600),
            _ => rng.random_range(600..longest),
        };
        begins.push(bytes.len());
        match len {
            0..126 => bytes.extend([0x82, 0x80 | len as u8]),
            _ => bytes.extend([0x82, 0x80 | 126, (len >> 8) as u8, len as u8]),
        }
        let random = bytes.len();
        bytes.resize(random + 4 + usize::from(len), 0);
        rng.fill_bytes(&mut bytes[random..]);
    }
    (bytes, begins)
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

/// Lengths up to a few segments.
fn short_lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![4 => 1..=125_usize, 2 => 126..=1400_usize, 1 => 1400..=5000_usize]
}

/// Segments as an application makes that waits between its messages: each begins with a frame.
fn whole_frames(stream: &Stream) -> Vec<Range<usize>> {
    let mut begin = 0;
    let mut ranges = Vec::new();
    for (header_end, frame) in &stream.frames {
        let end = header_end - frame.looked_at() + frame.len;
        ranges.extend(
            cut(end - begin, &[1448])
                .into_iter()
                .map(|r| r.start + begin..r.end + begin),
        );
        begin = end;
    }
    ranges
}

/// Holds some segments back until `by` others have passed; at most four at a time, and the first
/// comes first, as retransmissions do.
fn delayed(ranges: Vec<Range<usize>>, late: &[bool], by: usize) -> Vec<Range<usize>> {
    let mut held = VecDeque::new();
    let mut out = Vec::new();
    let mut late = late.iter().cycle();
    for (i, range) in ranges.into_iter().enumerate() {
        if *late.next().expect("a cycle") && held.len() < ISLANDS {
            held.push_back((i + by, range));
        } else {
            out.push(range);
        }
        while let Some((_, range)) = held.pop_front_if(|(until, _)| *until <= i) {
            out.push(range);
        }
    }
    out.extend(held.into_iter().map(|(_, range)| range));
    out
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
