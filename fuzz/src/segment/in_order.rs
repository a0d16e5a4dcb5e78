//! A stream of legal frames gives the same frames in one segment and in many.

use monitor_common::{Direction, stats::ListenerStats};

use super::{
    network::Network,
    script::{Action, Script, segment_len},
    sender::Frame,
};

/// Maximum number of segments, roughly: more only make runs slow.
const MOST_SEGMENTS: usize = 200;

/// Replays both of the script's streams, whole and cut, if they consist of frames only.
pub(super) fn check(script: &Script, network: &Network) {
    for direction in Direction::ALL {
        let sender = &network.senders[direction.index()];
        let stream = &sender.bytes[sender.first_frame..];
        if sender.only_frames && !stream.is_empty() {
            let (frames, whole) = walk(script, direction, stream, &[stream.len()]);
            assert_same(&frames, &sender.frames, &[stream.len()]);
            assert_eq!(whole.unsynced_bytes[direction.index()].get(), 0);
            let sizes = sizes(script, direction, stream.len());
            let (frames, cut) = walk(script, direction, stream, &sizes);
            assert_same(&frames, &sender.frames, &sizes);
            assert_eq!(whole, cut, "in segments of {sizes:?}");
        }
    }
}

fn assert_same(seen: &[Frame], written: &[Frame], sizes: &[usize]) {
    let agreed = seen.iter().zip(written).take_while(|(a, b)| a == b).count();
    assert!(
        seen == written,
        "in segments of {sizes:?}, frame {agreed}: wrote {:?}, saw {:?}",
        written.get(agreed),
        seen.get(agreed)
    );
}

/// How the script cuts a stream of `len` bytes.
fn sizes(script: &Script, direction: Direction, len: usize) -> Vec<usize> {
    let least = 1 + len / MOST_SEGMENTS;
    let deliveries = script.acts.iter().filter_map(|act| match act.action {
        Action::Deliver(len) if act.direction == direction => Some(segment_len(len).max(least)),
        _ => None,
    });
    let sizes: Vec<_> = deliveries.collect();
    if sizes.is_empty() { vec![least] } else { sizes }
}

fn walk(
    script: &Script,
    direction: Direction,
    stream: &[u8],
    sizes: &[usize],
) -> (Vec<Frame>, ListenerStats) {
    let isn = script.isn();
    let mut network = Network::upgraded(script.is_client, script.idle_limit, isn);
    network.senders[direction.index()].write_bytes(stream);
    let mut left = stream.len();
    for size in sizes.iter().cycle() {
        if left == 0 {
            break;
        }
        network.deliver(direction, *size);
        left = left.saturating_sub(*size);
    }
    let [rx, tx] = network.seen;
    let seen = if direction == Direction::Rx { rx } else { tx };
    (seen, network.stats)
}
