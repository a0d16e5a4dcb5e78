//! Scripts taken from the life of a connection.

use monitor_common::Direction::{self, Rx, Tx};

use crate::segment::script::{Act, Action, Script, Start};

const REQUEST: Action = Action::Http(0);
const SWITCHING: Action = Action::Http(1);
const PLAIN_REQUEST: Action = Action::Http(2);
const REFUSAL: Action = Action::Http(3);
const TLS: Action = Action::Http(4);
/// Any length that runs to the end of the stream.
const REST: u8 = 255;
const FIN_ACK: u8 = 0x11;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

pub(super) fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("chat", chat()),
        ("lost_and_late", lost_and_late()),
        ("doubled_and_overlapping", doubled_and_overlapping()),
        ("byte_by_byte", byte_by_byte()),
        ("heartbeat_after_silence", heartbeat_after_silence()),
        ("met_in_mid_stream", met_in_mid_stream()),
        ("large_frames", large_frames()),
        ("refused", refused()),
        ("tls", tls()),
        ("forged", forged()),
        ("not_frames", not_frames()),
        ("many_small_frames", many_small_frames()),
    ]
    .map(|(name, script)| (name, script.write()))
    .into()
}

fn script(start: Start, acts: impl IntoIterator<Item = (Direction, Action)>) -> Script {
    Script {
        is_client: false,
        start,
        idle_limit: true,
        below_wrap: [1000, 20],
        acts: acts
            .into_iter()
            .map(|(direction, action)| Act {
                direction,
                wait: 6,
                action,
            })
            .collect(),
    }
}

fn frame(first: u8, len: u8) -> Action {
    Action::Frame {
        first,
        len,
        fill: 0xff,
    }
}

fn control(flags: u8, window: u8) -> Action {
    Action::Control {
        flags,
        ack: 0,
        window,
    }
}

fn chat() -> Script {
    script(
        Start::Established,
        [
            (Rx, REQUEST),
            (Rx, Action::Deliver(REST)),
            (Tx, SWITCHING),
            // Frames in the same segment as the 101.
            (Tx, frame(0x81, 30)),
            (Tx, Action::Deliver(REST)),
            (Rx, control(ACK, 200)),
            (Rx, frame(0x01, 20)),
            (Rx, frame(0x80, 10)),
            (Rx, Action::Deliver(30)),
            (Rx, Action::Deliver(REST)),
            (Tx, frame(0x89, 4)),
            (Tx, Action::Deliver(REST)),
            (Rx, frame(0x8a, 4)),
            (Rx, Action::Deliver(REST)),
            (Rx, frame(0x88, 9)),
            (Rx, Action::Deliver(REST)),
            (Tx, frame(0x88, 2)),
            (Tx, Action::Deliver(REST)),
            (Tx, control(FIN_ACK, 200)),
            (Rx, control(FIN_ACK, 200)),
        ],
    )
}

fn lost_and_late() -> Script {
    script(
        Start::Upgraded,
        [
            (Rx, frame(0x82, 200)),
            (Rx, frame(0x81, 50)),
            (Rx, frame(0x81, 60)),
            (Rx, Action::Deliver(100)),
            // Inside a payload, then across a header.
            (Rx, Action::Lose(50)),
            (Rx, Action::Deliver(10)),
            (Rx, Action::Lose(199)),
            (Rx, Action::Deliver(40)),
            (
                Rx,
                Action::Again {
                    back: 239,
                    len: 199,
                },
            ),
            (Rx, Action::Deliver(REST)),
            (Rx, frame(0x89, 0)),
            (Rx, Action::Deliver(REST)),
        ],
    )
}

fn doubled_and_overlapping() -> Script {
    script(
        Start::Upgraded,
        [
            (Tx, frame(0x81, 125)),
            (Tx, frame(0x81, 126)),
            (Tx, Action::Deliver(90)),
            (Tx, Action::Again { back: 90, len: 90 }),
            (Tx, Action::Again { back: 30, len: 60 }),
            (Tx, Action::Deliver(REST)),
            (
                Tx,
                Action::Again {
                    back: 300,
                    len: REST,
                },
            ),
        ],
    )
}

fn byte_by_byte() -> Script {
    let frames = [frame(0x81, 0), frame(0x82, 126), frame(0x88, 2)];
    let deliveries = std::iter::repeat_n(Action::Deliver(1), 200);
    script(
        Start::Upgraded,
        frames
            .into_iter()
            .chain(deliveries)
            .map(|action| (Rx, action)),
    )
}

fn heartbeat_after_silence() -> Script {
    let mut script = script(
        Start::Upgraded,
        [
            (Tx, frame(0x89, 4)),
            (Tx, Action::Deliver(REST)),
            (Tx, frame(0x89, 4)),
            (Tx, Action::Deliver(REST)),
            (Tx, Action::Again { back: 6, len: 6 }),
            (Tx, control(ACK | 0x40, 200)),
            (Rx, frame(0x8a, 4)),
            (Rx, Action::Deliver(REST)),
            (Rx, control(ACK, 0)),
            (Tx, control(ACK, 0)),
            (Tx, control(RST, 0)),
        ],
    );
    for act in &mut script.acts {
        act.wait = 14;
    }
    script
}

fn met_in_mid_stream() -> Script {
    script(
        Start::Adopted,
        [
            (Rx, Action::Bytes(vec![0x55; 40])),
            (Rx, Action::Deliver(REST)),
            (Rx, frame(0x81, 10)),
            (Rx, frame(0x81, 20)),
            (Rx, frame(0x89, 0)),
            (Rx, frame(0x82, 30)),
            (Rx, Action::Deliver(REST)),
            (Rx, frame(0x82, 30)),
            (Rx, Action::Deliver(REST)),
            (Tx, frame(0x81, 20)),
            (Tx, Action::Deliver(REST)),
        ],
    )
}

fn large_frames() -> Script {
    script(
        Start::Upgraded,
        [
            (Tx, frame(0x82, 255)),
            (Tx, frame(0x02, 253)),
            (Tx, frame(0x80, 252)),
            (Tx, Action::Deliver(201)),
            (Tx, Action::Deliver(REST)),
            (Tx, Action::Lose(210)),
            (Tx, Action::Deliver(REST)),
            (Tx, Action::Deliver(REST)),
        ],
    )
}

fn refused() -> Script {
    script(
        Start::Adopted,
        [
            (Rx, PLAIN_REQUEST),
            (Rx, Action::Deliver(REST)),
            (Tx, REFUSAL),
            (Tx, Action::Deliver(REST)),
            (Rx, REQUEST),
            (Rx, Action::Deliver(REST)),
            (Tx, SWITCHING),
            (Tx, Action::Deliver(40)),
            (Tx, Action::Deliver(REST)),
            (Rx, frame(0x81, 5)),
            (Rx, Action::Deliver(REST)),
        ],
    )
}

fn tls() -> Script {
    script(
        Start::Established,
        [
            (Rx, TLS),
            (Rx, Action::Deliver(REST)),
            (Tx, Action::Bytes(vec![0x16, 0x03, 0x03, 0, 40])),
            (Tx, Action::Deliver(REST)),
        ],
    )
}

fn forged() -> Script {
    let payload = vec![0x81, 0x80, 1, 2, 3, 4];
    let stray = |ahead| Action::Stray {
        ahead,
        payload: payload.clone(),
    };
    script(
        Start::Upgraded,
        [
            (Rx, frame(0x81, 100)),
            (Rx, Action::Deliver(50)),
            (Rx, stray(1 << 29)),
            (Rx, stray(-70_000)),
            (Rx, stray(i32::MIN)),
            (Rx, Action::Deliver(REST)),
            (Rx, control(0x02, 200)),
        ],
    )
}

fn not_frames() -> Script {
    script(
        Start::Upgraded,
        [
            (Rx, Action::Bytes(vec![0; 100])),
            (Rx, Action::Deliver(REST)),
            (Rx, Action::Bytes(vec![0xff; 30])),
            (Rx, Action::Deliver(REST)),
            (Rx, frame(0x81, 8)),
            (Rx, Action::Deliver(REST)),
            (Tx, Action::Bytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
            (Tx, Action::Deliver(REST)),
            (Tx, frame(0x81, 8)),
            (Tx, Action::Deliver(REST)),
        ],
    )
}

fn many_small_frames() -> Script {
    let mut script = script(
        Start::Upgraded,
        std::iter::repeat_n((Rx, frame(0x8a, 0)), 60).chain([(Rx, Action::Deliver(REST))]),
    );
    script.is_client = true;
    script
}
