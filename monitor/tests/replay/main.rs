//! Hand-made recordings, judged: formats and link layers, connections, verdicts, and the output of
//! the command.

#[path = "../../../monitor-common/tests/ws/mod.rs"]
mod ws;

mod command;
mod connections;
mod disorder;
mod files;
mod formats;
mod frames;
mod garbage;
mod link;
mod order;
mod outgoing;
mod packed;
mod skipped;
mod tls;
mod tls_recordings;
mod verdicts;

use std::{convert::Infallible, time::Duration};

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    records::{
        connection_summary::ConnectionSummary, frames::FrameRecord,
        recording_summary::RecordingSummary,
    },
    replay::{Capture, CaptureError, Replay, ReplayRecord, play},
};
use monitor_core::{Hop, ListenerRules, OnExpiry, State};
use wire::{Conversation, End, MILLI, Recording, START};

/// Result of a replay.
#[derive(Debug)]
struct Played {
    records: Vec<ReplayRecord>,
    summary: RecordingSummary,
    /// Where reading failed.
    end: Option<CaptureError>,
}

impl Played {
    fn frames(&self) -> Vec<&FrameRecord> {
        self.records
            .iter()
            .filter_map(|record| match record {
                ReplayRecord::Frame(frame) => Some(frame),
                _ => None,
            })
            .collect()
    }

    /// Number of recognised upgrade requests.
    fn connecting(&self) -> usize {
        let is_connecting = |record: &&ReplayRecord| matches!(record, ReplayRecord::State(transition) if transition.to == State::Connecting);
        self.records.iter().filter(is_connecting).count()
    }

    fn connections(&self) -> Vec<&ConnectionSummary> {
        self.records
            .iter()
            .filter_map(|record| match record {
                ReplayRecord::Connection(connection) => Some(&**connection),
                _ => None,
            })
            .collect()
    }
}

fn replay(file: &[u8], listeners: &[ListenerConfig]) -> Result<Played, CaptureError> {
    let mut capture = Capture::open(file)?;
    let mut replay = Replay::new(listeners.to_vec());
    let mut records = Vec::new();
    let played = play(&mut capture, &mut replay, |_, record| {
        records.push(record);
        Ok::<_, Infallible>(())
    });
    let Ok(end) = played;
    Ok(Played {
        records,
        summary: replay.summary().clone(),
        end,
    })
}

fn judge(recording: &Recording, listeners: &[ListenerConfig]) -> Played {
    let played = replay(&recording.pcap(), listeners).expect("a recording");
    assert!(played.end.is_none(), "{:?}", played.end);
    played
}

/// A listener for servers on this port, behind a hop with this limit.
fn server(port: u16, limit: Option<Duration>) -> ListenerConfig {
    let hop = limit.map(|idle_timeout| Hop::new("lb", idle_timeout, OnExpiry::Silent));
    ListenerConfig {
        rules: ListenerRules::new(port.to_string(), hop),
        ports: vec![PortRange(port..=port)],
        remote: false,
    }
}

/// The upgrade and its answer, starting 5 ms after `at`.
fn upgrade(conversation: &mut Conversation, to: &mut Recording, at: u64) {
    conversation.says(to, at + 5 * MILLI, End::Client, wire::REQUEST);
    conversation.says(to, at + 6 * MILLI, End::Server, wire::RESPONSE);
    conversation.ack(to, at + 7 * MILLI, End::Client);
}

/// A connection opened at [`START`] after which only the handshake was exchanged.
fn opened(conversation: &mut Conversation) -> Recording {
    let mut recording = Recording::default();
    conversation.open(&mut recording, START);
    upgrade(conversation, &mut recording, START);
    recording
}

/// The bytes of one frame.
fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    wire::frame(opcode, payload, masked.then_some([0; 4]))
}
