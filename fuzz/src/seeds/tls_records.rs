//! Connections with heartbeats, and some that only look like it.

use crate::tls_records::{
    act::{IS_CUT, IS_GARBAGE, IS_LOST, IS_REPEATED, IS_SENT},
    setup::{IS_1_2, IS_CBC, IS_CLIENT, IS_OLDER, OFFERS_H2},
};

/// The records of a ping without payload in TLS 1.3, and of its pong.
const PING: u8 = 19;
const PONG: u8 = 23;
/// 5 s.
const INTERVAL: u8 = 204;
/// 40 ms.
const ROUND_TRIP: u8 = 2;

pub(super) fn connections() -> Vec<(&'static str, Vec<u8>)> {
    let heartbeat = |setup: u8| [vec![setup], answered(8)].concat();
    vec![
        ("heartbeat", heartbeat(0)),
        ("heartbeat_of_client", {
            let pings = (0..8).flat_map(|_| [[0, PONG, INTERVAL], [IS_SENT, PING, ROUND_TRIP]]);
            [vec![0], pings.flatten().collect()].concat()
        }),
        ("as_client", heartbeat(IS_CLIENT)),
        ("older", heartbeat(IS_OLDER)),
        ("h2", heartbeat(OFFERS_H2)),
        ("block_cipher", heartbeat(IS_1_2 | IS_CBC)),
        ("stops", [vec![0], answered(7), unanswered(6)].concat()),
        (
            "recovers",
            [vec![0], answered(7), unanswered(3), answered(2)].concat(),
        ),
        (
            "lost_and_cut",
            vec![
                0,
                IS_SENT,
                PING,
                INTERVAL,
                IS_LOST,
                PONG,
                ROUND_TRIP,
                IS_SENT,
                PING,
                INTERVAL,
                IS_CUT,
                PONG,
                ROUND_TRIP,
                IS_REPEATED,
                0,
                1,
                IS_GARBAGE,
                40,
                1,
                0,
                PONG,
                1,
            ],
        ),
    ]
}

fn answered(times: usize) -> Vec<u8> {
    [[IS_SENT, PING, INTERVAL], [0, PONG, ROUND_TRIP]]
        .concat()
        .repeat(times)
}

fn unanswered(times: usize) -> Vec<u8> {
    [IS_SENT, PING, INTERVAL].repeat(times)
}
