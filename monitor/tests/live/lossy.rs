//! A path that loses one packet in a hundred, and traffic as WebSocket applications make it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lab::Lab;

use crate::{
    dice::Sizes,
    stage::{Watch, fresh_port},
    talk::{Conversation, Pace, Talk, Tally, Told, converse},
    viewer::Viewer,
};

const CONNECTIONS: u64 = 160;

/// Mostly short, now and then a document or a picture.
const SIZES: &Sizes = &[
    (60, 2..=125),
    (30, 126..=1_400),
    (8, 1_400..=8_000),
    (2, 8_000..=50_000),
];

/// In each direction 24,000 frames: what 40 users and their server say in 10 minutes if each says
/// something every second. Here each of four times as many talks for a quarter of that, and ten times
/// as fast. Denser than that, TCP would put waiting messages together, so that segments begin
/// anywhere in them.
const TALK: Talk = Talk {
    frames: 24_000 / CONNECTIONS as usize,
    sizes: SIZES,
    pace: Pace::Chat(Duration::from_millis(200)),
};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn with_one_packet_in_a_hundred_lost_ten_minutes_of_messages_of_forty_users_are_followed() {
    let lab = Lab::new().unwrap();
    let server = lab.server_addr(fresh_port());
    let watch = Watch::start(&["--port", &server.port().to_string()]);
    let viewer = Viewer::start(watch.daemon.control(), &[]);
    watch.wait_for_metric("wsmon_frame_viewers", &[], 1.0);
    lab.lose_one_in(100).unwrap();
    let began = Instant::now();
    let conversations = converse(&lab, server, CONNECTIONS, TALK);
    let took = began.elapsed();
    let closed = [("how", "close_frame")];
    watch.wait_for_metric(
        "wsmon_connections_closed_total",
        &closed,
        CONNECTIONS as f64,
    );

    let metrics = watch.metrics();
    let lost = lab.dropped_packets().unwrap().lost;
    println!(
        "{took:?}: {lost} packets lost, {} retransmitted by the server",
        metrics.sum("wsmon_tcp_retransmits_total", &[])
    );
    // About 1 % of 100,000 packets; fewer would be another path than was asked for.
    assert!(lost > 300, "{lost} packets lost");
    for name in [
        "wsmon_protocol_errors_total",
        "wsmon_events_lost_total",
        "wsmon_abnormal_closures_total",
    ] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    let counted = metrics.sum("wsmon_frames_total", &[]);
    let missed = missed(&viewer, counted as usize, &conversations);
    let said = [
        Tally::of(conversations.iter().flat_map(|c| &c.rx)),
        Tally::of(conversations.iter().flat_map(|c| &c.tx)),
    ];
    for (direction, (said, missed)) in ["rx", "tx"].into_iter().zip(said.iter().zip(missed)) {
        let missed = Tally::of(&missed);
        println!(
            "{direction}: {} frames, {} bytes; missed {missed:?}",
            said.all_frames(),
            said.bytes
        );
        for (opcode, frames) in &said.frames {
            let labels = [("direction", direction), ("opcode", opcode.as_str())];
            let seen = metrics.sum("wsmon_frames_total", &labels);
            let missed = missed.frames.get(opcode).copied().unwrap_or(0);
            assert_eq!(seen, (frames - missed) as f64, "{direction} {opcode}");
        }
        let labels = [("direction", direction)];
        let payload = metrics.sum("wsmon_frame_payload_bytes_total", &labels);
        let expected = said.payload_bytes - missed.payload_bytes;
        assert_eq!(payload, expected as f64, "{direction}");
        // Every byte is in a frame or among these.
        let unsynced = metrics.sum("wsmon_unsynced_bytes_total", &labels);
        assert_eq!(unsynced, missed.bytes as f64, "{direction}");
    }
    let unsynced = metrics.sum("wsmon_unsynced_bytes_total", &[]);
    let share = unsynced / said.iter().map(|said| said.bytes).sum::<u64>() as f64;
    println!("{unsynced} bytes unsynced, {:.4} %", 100.0 * share);
    // Mostly none. Payload behind a hole that looks like a header by chance costs the frames that wait
    // there, now and then a large one among them; a walk that does not find its way back costs more.
    assert!(share < 2e-3, "{unsynced} bytes unsynced");
}

/// By direction, the sent frames that a viewer of `counted` frames did not see. Those it saw were
/// really sent on their connection, in this order, so that wherever step was lost, it was found again
/// at the border of a frame.
fn missed(viewer: &Viewer, counted: usize, conversations: &[Conversation]) -> [Vec<Told>; 2] {
    let mut ahead: BTreeMap<(String, &str), &[Told]> = conversations
        .iter()
        .flat_map(|conversation| {
            let peer = conversation.client.to_string();
            let rx = ((peer.clone(), "rx"), conversation.rx.as_slice());
            [rx, ((peer, "tx"), conversation.tx.as_slice())]
        })
        .collect();
    let mut missed = [Vec::new(), Vec::new()];
    let index = |direction: &str| usize::from(direction == "tx");
    for _ in 0..counted {
        let line = viewer.next();
        assert_eq!(line["type"], "frame", "the viewer keeps up");
        let text = |name: &str| line[name].as_str().unwrap();
        let direction = ["rx", "tx"][index(text("direction"))];
        let place_of = (text("peer").to_owned(), direction);
        let frames = ahead.get_mut(&place_of).unwrap();
        let is_it = |reported: &Told| {
            line["opcode"] == reported.opcode
                && line["length"] == reported.length
                && line["fin"] == reported.fin
        };
        let place = frames.iter().position(is_it);
        let place = place.unwrap_or_else(|| panic!("nobody sent this then: {line}"));
        missed[index(direction)].extend_from_slice(&frames[..place]);
        *frames = &frames[place + 1..];
    }
    for ((_, direction), frames) in ahead {
        missed[index(direction)].extend_from_slice(frames);
    }
    missed
}
