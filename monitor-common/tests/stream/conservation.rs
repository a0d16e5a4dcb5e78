//! Every byte is accounted for, whatever the segments contain.

use monitor_common::{
    Direction,
    snapshot::role,
    stream::{MAX_STEPS, mode},
};
use proptest::{prelude::*, sample::select};

use wire::{REQUEST, RESPONSE};

use crate::ws::{Monitor, Stream, frames, lengths};

proptest! {
    /// The law of conservation: the bytes by which a direction advanced equal those of the frames begun in
    /// it, those that belong to no known frame, and the change in bytes pending.
    #[test]
    fn every_byte_of_any_segment_is_framed_or_unsynced(
        server_side in any::<bool>(),
        start in 0..3_u8,
        segments in prop::collection::vec((any::<bool>(), position(), noise()), 1..40),
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
            let http = |mode| matches!(mode, mode::HANDSHAKE | mode::HEAD | mode::EARLY);
            if http(before.mode) || http(after.mode) || payload.starts_with(b"HTTP/1.") {
                continue;
            }
            prop_assert_eq!(account.missing(), 0, "{:?}", account);
        }
    }
}

/// Where a segment lies: often next in line, sometimes behind, ahead or anywhere.
fn position() -> impl Strategy<Value = u32> {
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
