//! The packet logic recovers what was put into the stream, however the stream was cut.

mod conservation;
mod cuts;
mod holes;
mod joining;
mod model;
#[path = "../ws/mod.rs"]
mod ws;

use monitor_common::stats::ListenerStats;
use ws::Frame;

fn counts(stats: &ListenerStats) -> [u64; 16] {
    stats.frames[0].map(|n| n.get())
}

fn tally(frames: &[Frame]) -> [u64; 16] {
    let mut counts = [0; 16];
    for frame in frames {
        counts[usize::from(frame.opcode)] += 1;
    }
    counts
}
