//! Frames, messages, pings, and the idle gaps between them.

use super::families::{BYTES, NANOSECONDS, kernel_histogram, scale_histogram};
use super::{DIRECTIONS, Family, FamilyBuilder, Scrape, count};
use monitor_common::{
    frame::opcode,
    stats::{IDLE_GAP_BOUNDS, PongKind, ProtocolError, RESPONSE_BOUNDS, RTT_BOUNDS, SIZE_BOUNDS},
};

pub(super) fn families(scrape: &Scrape<'_>, out: &mut Vec<Family>) {
    const KNOWN: [u8; 6] = [
        opcode::CONTINUATION,
        opcode::TEXT,
        opcode::BINARY,
        opcode::CLOSE,
        opcode::PING,
        opcode::PONG,
    ];
    let mut frames = FamilyBuilder::counter("frames_total", "WebSocket frames, by opcode.");
    let mut bytes =
        FamilyBuilder::counter("frame_payload_bytes_total", "Payload of WebSocket frames.");
    let mut fragmented = FamilyBuilder::counter(
        "fragmented_messages_total",
        "Messages of more than one frame.",
    );
    let mut unfinished = FamilyBuilder::counter(
        "unfinished_messages_total",
        "Messages that were unfinished when their connection ended.",
    );
    let mut compressed = FamilyBuilder::counter(
        "compressed_messages_total",
        "Messages with RSV1: compressed by permessage-deflate.",
    );
    let mut sizes = FamilyBuilder::histogram(
        "message_size_bytes",
        "Size of finished data messages on the wire.",
    );
    let mut errors = FamilyBuilder::counter("protocol_errors_total", "Violations of RFC 6455.");
    let mut unsynced = FamilyBuilder::counter(
        "unsynced_bytes_total",
        "Stream bytes that could not be attributed to frames.",
    );
    let mut responses = FamilyBuilder::histogram(
        "response_seconds",
        "Time from a client's last data frame to the server's first data frame after it.",
    );
    let mut pings = FamilyBuilder::counter("pings_total", "Ping frames.");
    let mut unanswered = FamilyBuilder::counter(
        "pings_unanswered_total",
        "Pings without a pong before the next ping.",
    );
    let mut pongs =
        FamilyBuilder::counter("pongs_total", "Pong frames, by whether they match a ping.");
    let mut rtt = FamilyBuilder::histogram(
        "ping_rtt_seconds",
        "Time from a ping to its pong, by the side that sent the ping.",
    );
    let mut heartbeats = FamilyBuilder::histogram(
        "heartbeat_interval_seconds",
        "Time between consecutive pings of one connection, by the side that sends them.",
    );
    let mut idle_gaps = FamilyBuilder::histogram(
        "idle_gap_seconds",
        "Silences of at least one second that ended.",
    );
    for (name, stats, _) in scrape.each() {
        for (side, direction) in DIRECTIONS {
            let i = side.index();
            for op in KNOWN {
                frames.add(
                    &[
                        ("listener", name),
                        ("direction", direction),
                        ("opcode", opcode::name(op)),
                    ],
                    count(&stats.frames[i][usize::from(op)]),
                );
            }
            let labels = [("listener", name), ("direction", direction)];
            bytes.add(&labels, count(&stats.payload_bytes[i]));
            fragmented.add(&labels, count(&stats.fragmented_messages[i]));
            unfinished.add(&labels, count(&stats.unfinished_messages[i]));
            compressed.add(&labels, count(&stats.compressed_messages[i]));
            let size = kernel_histogram(&stats.message_sizes[i], &SIZE_BOUNDS, BYTES);
            sizes.add_histogram(&labels, size);
            unsynced.add(&labels, count(&stats.unsynced_bytes[i]));
            pings.add(&labels, count(&stats.frames[i][usize::from(opcode::PING)]));
            unanswered.add(&labels, count(&stats.pings_unanswered[i]));
            for &kind in PongKind::ALL {
                let labels = [
                    ("listener", name),
                    ("direction", direction),
                    ("kind", kind.as_str()),
                ];
                pongs.add(&labels, count(&stats.pongs[i][kind as usize]));
            }
            let time = kernel_histogram(&stats.ping_rtt[i], &RTT_BOUNDS, NANOSECONDS);
            rtt.add_histogram(&labels, time);
            let intervals = scale_histogram(&stats.ping_intervals[i], &IDLE_GAP_BOUNDS);
            heartbeats.add_histogram(&labels, intervals);
        }
        for &kind in ProtocolError::ALL {
            let labels = [("listener", name), ("kind", kind.as_str())];
            errors.add(&labels, count(&stats.protocol_errors[kind as usize]));
        }
        let time = kernel_histogram(&stats.response_time, &RESPONSE_BOUNDS, NANOSECONDS);
        responses.add_histogram(&[("listener", name)], time);
        let gap = kernel_histogram(&stats.idle_gaps, &IDLE_GAP_BOUNDS, NANOSECONDS);
        idle_gaps.add_histogram(&[("listener", name)], gap);
    }
    out.extend(
        [
            frames, bytes, fragmented, unfinished, compressed, sizes, errors, unsynced, responses,
            pings, unanswered, pongs, rtt, heartbeats, idle_gaps,
        ]
        .map(FamilyBuilder::finish),
    );
}
