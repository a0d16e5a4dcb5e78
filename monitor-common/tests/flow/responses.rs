//! The time that a server takes to respond.

use monitor_common::{snapshot::role, stats::RESPONSE_BOUNDS};

use super::{
    ws::{Frame, Stream},
    *,
};

const MILLI: u64 = 1_000_000;

/// Passes a frame of four bytes.
fn pass(socket: &mut Socket, direction: Direction, opcode: u8) {
    let flow = &mut socket.connection.flow;
    let masked = flow.snapshot.from_client(direction) != 0;
    let seq = flow.walk_mut(direction).next_seq;
    let bytes = Stream::new(b"", &[Frame::new(true, opcode, 4)], masked).bytes;
    socket.take(direction, segment(seq, 0), &bytes);
}

/// The number of responses, and the sum of their times in milliseconds.
fn responses(socket: &Socket) -> (u64, u64) {
    let time = &socket.stats.response_time;
    let count = time.buckets.iter().map(Counter::get).sum();
    (count, time.sum.get() / MILLI)
}

#[test]
fn only_the_first_data_frame_after_the_clients_last_one_is_a_response() {
    use Direction::{Rx, Tx};
    let mut socket = Socket::upgraded();
    let mut passes = |after: u64, direction, opcode| {
        pass(socket.wait(after * MILLI), direction, opcode);
        responses(&socket)
    };
    assert_eq!(passes(1, Tx, wire::TEXT), (0, 0), "nothing to respond to");
    passes(1, Rx, wire::TEXT);
    passes(30, Rx, wire::BINARY);
    passes(5, Tx, wire::PING);
    passes(5, Rx, wire::PONG);
    assert_eq!(passes(40, Tx, wire::TEXT), (1, 50), "since the last one");
    assert_eq!(passes(40, Tx, wire::TEXT), (1, 50), "a second frame");
    passes(5, Rx, wire::PING);
    assert_eq!(passes(5, Tx, wire::TEXT), (1, 50), "a ping asks for a pong");
    passes(1, Rx, wire::TEXT);
    assert_eq!(passes(7, Tx, wire::BINARY), (2, 57));
    let slots = filled(&socket.stats.response_time.buckets);
    let slot_of = |nanos| RESPONSE_BOUNDS.partition_point(|bound| *bound < nanos);
    assert_eq!(slots, [(slot_of(7 * MILLI), 1), (slot_of(50 * MILLI), 1)]);
}

/// A client's socket sees how long the remote server takes, with the path.
#[test]
fn a_client_measures_the_other_direction() {
    let mut socket = Socket::upgraded();
    socket.connection.flow.snapshot.role = role::CLIENT;
    pass(&mut socket, Direction::Rx, wire::TEXT);
    pass(socket.wait(MILLI), Direction::Tx, wire::TEXT);
    assert_eq!(responses(&socket), (0, 0));
    pass(socket.wait(9 * MILLI), Direction::Rx, wire::TEXT);
    assert_eq!(responses(&socket), (1, 9));
}

#[test]
fn the_order_of_frames_counts_if_they_have_the_time_of_one_tick() {
    let mut socket = Socket::upgraded();
    for count in 1..4 {
        pass(&mut socket, Direction::Rx, wire::TEXT);
        for _ in 0..3 {
            pass(&mut socket, Direction::Tx, wire::TEXT);
            assert_eq!(responses(&socket), (count, 0));
        }
    }
    pass(&mut socket, Direction::Rx, wire::TEXT);
    pass(socket.wait(20 * MILLI), Direction::Tx, wire::TEXT);
    assert_eq!(responses(&socket).0, 4);
    assert!((19..=20).contains(&responses(&socket).1));
}
