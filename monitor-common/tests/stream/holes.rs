//! Segments that arrive late or never.

use std::{cell::Cell, collections::VecDeque, ops::Range};

use monitor_common::{Direction, holes::PENDING_RUNS, segment::Segment, snapshot::role};
use proptest::prelude::{
    prop::test_runner::{RngAlgorithm, TestRng},
    *,
};
use wire::RESPONSE;

use crate::{
    joining::random_stream,
    tally,
    ws::{Frame, Monitor, Stream, cut, data_segment, frames},
};

proptest! {
    /// Segments that arrive before the hole in front of them is filled are accounted for exactly when it is
    /// filled, if segments begin with frames. Otherwise some frames may be lost, but none is invented.
    #[test]
    fn a_filled_hole_hides_no_frame(
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
        let (mut found, mut unsynced) = (Vec::new(), 0);
        for range in delayed(ranges, &late, by) {
            let seq = isn.wrapping_add(range.start as u32);
            let account = monitor.take(Direction::Rx, seq, &stream.bytes[range]);
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
            found.extend(account.frames.iter().map(|f| (f.opcode(), f.payload_len)));
            unsynced += account.unsynced;
        }
        prop_assert_eq!(monitor.connection.waiting_bytes(Direction::Rx), 0);
        prop_assert!(!monitor.flow().rx_walk.has_holes());
        let truth: Vec<_> = sent.iter().map(|f| (f.opcode, f.len as u64)).collect();
        if aligned {
            prop_assert_eq!(unsynced, 0);
            prop_assert_eq!(found, truth);
        } else {
            let mut rest = truth.iter();
            prop_assert!(found.iter().all(|frame| rest.any(|true_one| true_one == frame)));
        }
    }

    /// Segments need not begin with frames: the beginning of a frame is found on the pending run, and
    /// proven.
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
        let (mut found, mut unsynced) = (0, 0);
        for range in ranges {
            let account = monitor.take(Direction::Rx, range.start as u32, &bytes[range]);
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
            found += account.frames.len();
            unsynced += account.unsynced;
        }
        prop_assert!(found <= begins.len());
        prop_assert_eq!(monitor.stats.protocol_errors.map(|n| n.get()).iter().sum::<u64>(), 0);
        let all = found == begins.len() && unsynced == 0;
        BRIDGED.with(|(bridged, tried)| {
            bridged.set(bridged.get() + u32::from(all));
            tried.set(tried.get() + 1);
            // Random payload may look like a frame that is longer than the pending run.
            if tried.get() == 256 {
                assert!(bridged.get() > 205, "{} of 256", bridged.get());
            }
            Ok::<(), TestCaseError>(())
        })?;
    }

    /// A hole that is never filled loses its own bytes, and those after it until there is evidence.
    #[test]
    fn only_true_frames_are_counted_after_a_hole_that_is_never_filled(
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

        // The receiver acknowledges everything, seen or not. Then come segments of one frame each; the
        // third gives enough evidence.
        let mut at = stream.bytes.len() as u32 + 1000;
        let last = Stream::new(b"", &[Frame::new(true, wire::TEXT, tail)], server_side);
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

/// Lengths up to a few segments.
fn short_lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![4 => 1..=125_usize, 2 => 126..=1400_usize, 1 => 1400..=5000_usize]
}

/// Segments of an application that waits between its messages: each begins with a frame.
fn whole_frames(stream: &Stream) -> Vec<Range<usize>> {
    let mut begin = 0;
    let mut ranges = Vec::new();
    for (header_end, frame) in &stream.frames {
        let end = header_end - frame.loaded() + frame.len;
        ranges.extend(
            cut(end - begin, &[1448])
                .into_iter()
                .map(|r| r.start + begin..r.end + begin),
        );
        begin = end;
    }
    ranges
}

/// Delays some segments until `by` others have passed. At most four wait at a time, and they leave in
/// order, as retransmissions do.
fn delayed(ranges: Vec<Range<usize>>, late: &[bool], by: usize) -> Vec<Range<usize>> {
    let mut held = VecDeque::new();
    let mut out = Vec::new();
    let mut late = late.iter().cycle();
    for (i, range) in ranges.into_iter().enumerate() {
        if *late.next().expect("a cycle") && held.len() < PENDING_RUNS {
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

/// Lengths whose bytes do not look like a header.
fn plain_lengths() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![5 => 1..=125_usize, 2 => Just(0x0585), 1 => Just(0x4b7f)]
}
