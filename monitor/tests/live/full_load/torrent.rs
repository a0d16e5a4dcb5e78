//! Two peers at full speed, compared with tshark's analysis of the same packets.

use std::time::Instant;

use lab::Lab;

use crate::{
    capture::{Capture, Counted, Recording},
    dice::Sizes,
    stage::{Watch, fresh_port},
    talk::{Conversation, Pace, Talk, Tally, converse},
};

const CONNECTIONS: u64 = 8;

/// Empty payloads, the edges of every length encoding, and frames larger than any packet.
const SIZES: &Sizes = &[
    (20, 0..=0),
    (1_000, 1..=125),
    (100, 124..=128),
    (700, 126..=1_500),
    (160, 1_400..=8_000),
    (6, 8_000..=65_535),
    (4, 65_530..=65_540),
    (2, 65_536..=70_000),
];

const TALK: Talk = Talk {
    frames: 100_000 / (2 * CONNECTIONS as usize),
    sizes: SIZES,
    pace: Pace::Torrent(48 << 10),
};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_hundred_thousand_frames_at_full_speed_are_counted_as_tshark_counts_them() {
    const TRIES: usize = 3;
    let complete = (0..TRIES).find_map(|_| {
        let attempt = Attempt::new();
        let (conversations, recording) = attempt.talk();
        Some((attempt, conversations, recording?))
    });
    let (attempt, conversations, recording) =
        complete.unwrap_or_else(|| panic!("dumpcap dropped packets {TRIES} times"));
    let said = Counted {
        rx: Tally::of(conversations.iter().flat_map(|c| &c.rx)),
        tx: Tally::of(conversations.iter().flat_map(|c| &c.tx)),
    };
    assert!(said.rx.all_frames() + said.tx.all_frames() >= 100_000);
    let began = Instant::now();
    let tshark = recording.frames();
    println!("tshark took {:?}", began.elapsed());
    assert_eq!(tshark.rx, said.rx, "tshark against the clients' frames");
    assert_eq!(tshark.tx, said.tx, "tshark against the server's frames");

    let metrics = attempt.watch.metrics();
    for name in [
        "wsmon_unsynced_bytes_total",
        "wsmon_protocol_errors_total",
        "wsmon_events_lost_total",
        "wsmon_abnormal_closures_total",
    ] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    for (direction, tshark) in [("rx", tshark.rx), ("tx", tshark.tx)] {
        assert_eq!(tshark.frames.len(), 6, "{tshark:?}");
        for (opcode, frames) in &tshark.frames {
            let labels = [("direction", direction), ("opcode", opcode.as_str())];
            let seen = metrics.sum("wsmon_frames_total", &labels);
            assert_eq!(seen, *frames as f64, "{direction} {opcode}");
        }
        let labels = [("direction", direction)];
        let frames = metrics.sum("wsmon_frames_total", &labels);
        assert_eq!(frames, tshark.all_frames() as f64, "{direction}");
        let payload = metrics.sum("wsmon_frame_payload_bytes_total", &labels);
        assert_eq!(payload, tshark.payload_bytes as f64, "{direction}");
        println!("{direction}: {frames} frames, {payload} bytes of payload");
    }
}

struct Attempt {
    watch: Watch,
    port: u16,
    lab: Lab,
}

impl Attempt {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        // A packet that overtakes another can hide a header like a lost one: see
        // docs/limitations.md.
        lab.keep_each_connection_on_one_cpu().unwrap();
        let port = fresh_port();
        let watch = Watch::start(&["--port", &port.to_string()]);
        Self { watch, port, lab }
    }

    /// `None` as the recording if packets are missing.
    fn talk(&self) -> (Vec<Conversation>, Option<Recording>) {
        let server = self.lab.server_addr(self.port);
        let capture = Capture::start(self.lab.server_ns(), server, self.lab.client_ns());
        let began = Instant::now();
        let conversations = converse(&self.lab, server, CONNECTIONS, TALK);
        println!("they talked for {:?}", began.elapsed());
        let how = [("how", "close_frame")];
        let closed = CONNECTIONS as f64;
        self.watch
            .wait_for_metric("wsmon_connections_closed_total", &how, closed);
        (conversations, capture.finish())
    }
}
