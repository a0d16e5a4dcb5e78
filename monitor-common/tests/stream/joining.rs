//! A stream is joined in mid-stream as soon as there is evidence, and never at a wrong offset.

use monitor_common::{
    Direction,
    snapshot::{protocol, role},
    stream::mode,
};
use proptest::prelude::{
    prop::test_runner::{RngAlgorithm, TestRng},
    *,
};

use crate::{
    counts,
    ws::{Frame, Monitor, Stream},
};

/// As headers they would be a series of empty continuation frames.
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
fn an_adopted_flow_is_in_step_only_with_enough_evidence() {
    let mut monitor = Monitor::adopted(role::SERVER);
    let ping = Stream::new(b"", &[Frame::new(true, wire::PING, 4)], true).bytes;
    let text = Stream::new(b"", &[Frame::new(true, wire::TEXT, 300)], true).bytes;
    let mut at = 1000;
    let mut take = |monitor: &mut Monitor, bytes: &[u8]| {
        let account = monitor.take(Direction::Rx, at, bytes);
        at += bytes.len() as u32;
        (account.unsynced, account.frames.len())
    };
    // From within a payload: no header to accept.
    assert_eq!(take(&mut monitor, &text[100..]), (208, 0));
    assert_eq!(take(&mut monitor, &ping), (10, 0));
    assert_eq!(take(&mut monitor, &text), (308, 0));
    assert_eq!(monitor.flow().snapshot.protocol, protocol::ASSUMED);
    // The third segment in a row that begins and ends with a frame.
    assert_eq!(take(&mut monitor, &ping), (0, 1));
    assert_eq!(monitor.flow().snapshot.protocol, protocol::WEBSOCKET);

    // Many frames in one segment are also evidence; those before the last may have been found by mistake.
    let mut monitor = Monitor::adopted(role::SERVER);
    assert_eq!(take(&mut monitor, &ping.repeat(5)), (50, 0));
    let mut monitor = Monitor::adopted(role::SERVER);
    assert_eq!(take(&mut monitor, &ping.repeat(8)), (60, 2));
}

/// One repeated letter is a chain of headers, but not of messages.
#[test]
fn a_run_of_one_byte_is_not_taken_for_frames() {
    for byte in 0..=255 {
        for role in [role::SERVER, role::CLIENT] {
            let mut monitor = Monitor::adopted(role);
            for i in 0..20 {
                monitor.take(Direction::Rx, i * 1448, &[byte; 1448]);
            }
            let frames = counts(&monitor.stats).iter().sum::<u64>();
            // Identical whole messages or control frames look like real frames.
            let frame = [byte; 2];
            let like_frames = frame[0] & 0x80 != 0 && frames > 0;
            assert!(frames == 0 || like_frames, "{frames} of byte {byte:#x}");
        }
    }
}

/// In mid-stream, random masked payload is never taken for a header: in a million streams, the first
/// reported frame begins where a true one does.
#[test]
fn no_stream_of_random_payload_is_joined_at_a_wrong_offset() {
    const STREAMS: u32 = 1_000_000;
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::XorShift);
    let mut joined = 0;
    let mut monitor = Monitor::adopted(role::SERVER);
    let adopted = monitor.connection.clone();
    for stream in 0..STREAMS {
        let (bytes, begins) = random_stream(&mut rng, 3, 3000);
        monitor.connection.clone_from(&adopted);
        let mut at = rng.random_range(0..bytes.len());
        // The application sometimes waits, so some segments begin with a frame.
        let mut found = 0;
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
            found += account.frames.len();
            at = end;
        }
        assert!(found <= begins.len(), "stream {stream}");
    }
    println!("{joined} of {STREAMS} streams joined");
    assert!(joined > STREAMS / 10, "only {joined} were joined");
}

/// The bytes of a client's frames with random payload and keys, and where each begins.
pub(crate) fn random_stream(
    rng: &mut TestRng,
    least: usize,
    longest: u16,
) -> (Vec<u8>, Vec<usize>) {
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
