//! Recordings, as `wsmon replay` reads and judges them.

use std::io::{self, Read};

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    replay::{self, Capture, CaptureError, Replay},
};
use monitor_core::{Hop, ListenerRules, OnExpiry};

/// Reads `data` as a recording: at once, and a few bytes at a time.
///
/// # Panics
/// If a packet is neither processed nor skipped for a reason, or if the output depends on how the
/// file was read.
pub fn check(data: &[u8]) {
    let whole = play(data);
    let trickle = play(Trickle(data));
    assert_eq!(whole, trickle, "a few bytes at a time");
    if let Ok(mut capture) = Capture::open(data) {
        replay::websocket_ports(&mut capture);
    }
}

/// Everything reported about a recording, including how it ended.
fn play(source: impl Read) -> Vec<String> {
    let opened = replay::unpacked(source).map_err(CaptureError::from);
    let mut capture = match opened.and_then(Capture::open) {
        Ok(capture) => capture,
        Err(error) => return vec![format!("{error:?}")],
    };
    let mut replay = Replay::new(listeners());
    let mut reported = Vec::new();
    let end = replay::play(&mut capture, &mut replay, |_, record| {
        reported.push(format!("{record:?}"));
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(end) = end;
    assert!(
        !matches!(
            end,
            Some(CaptureError::Io(_) | CaptureError::Unrecognised(_))
        ),
        "{end:?}"
    );
    reported.push(format!("{end:?}"));
    let summary = replay.summary();
    let skipped: u64 = summary.skipped.iter().map(|(_, packets)| packets).sum();
    assert_eq!(summary.packets, summary.segments + skipped);
    assert!(summary.open <= summary.connections && summary.connections <= summary.segments);
    reported.push(format!("{summary:?}"));
    reported
}

fn listeners() -> Vec<ListenerConfig> {
    let hop = Hop::new("lb", std::time::Duration::from_secs(60), OnExpiry::Silent);
    let listener = |port: u16, remote| ListenerConfig {
        rules: ListenerRules::new(port.to_string(), Some(hop.clone())),
        ports: vec![PortRange(port..=port)],
        remote,
    };
    vec![listener(8080, false), listener(443, true)]
}

/// Yields a few bytes per read.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(7);
        self.0.read(&mut buffer[..len])
    }
}
