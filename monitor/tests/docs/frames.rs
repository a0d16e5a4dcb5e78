//! What is shown of frames, connections and clients.

use monitor::{
    clients::ClientRecord,
    connections::{ConnectionRecord, State, TransitionRecord},
    core::{Reason, facts::Direction},
    frames::{FrameRecord, Line},
};
use serde_json::Value;

use crate::pages::read;

#[test]
fn examples_of_connections_and_frames_are_what_the_daemon_writes() {
    let page = read("docs/frames.md");
    let examples: Vec<&str> = page.lines().filter(|line| line.starts_with('{')).collect();
    let [frame, lost, connection, client, change] = examples.as_slice() else {
        panic!("a frame, a loss, a connection, a client and a change: {examples:?}");
    };
    let shown: ClientRecord = serde_json::from_str(client).expect("a client");
    assert_eq!(serde_json::to_string(&shown).expect("JSON"), **client);
    let shown: FrameRecord = serde_json::from_str(frame).expect("a frame");
    assert_eq!(serde_json::to_string(&shown).expect("JSON"), **frame);
    let record: ConnectionRecord = serde_json::from_str(connection).expect("a connection");
    assert_eq!(serde_json::to_string(&record).expect("JSON"), **connection);
    let lost: Value = serde_json::from_str(lost).expect("JSON");
    assert_eq!(lost["type"], "lost");

    let shown_change = TransitionRecord {
        ts: shown.ts,
        conn: shown.conn,
        listener: &shown.listener,
        local: Some(shown.local),
        peer: Some(shown.peer),
        from: Some(State::Open),
        to: State::Closing,
        reason: CLOSE_FRAME,
        text: CLOSE_FRAME.to_string(),
    };
    assert_eq!(
        serde_json::to_string(&shown_change).expect("JSON"),
        **change
    );

    let table: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("TIME "))
        .take_while(|line| *line != "```")
        .collect();
    assert_eq!(table[0], Line::HEAD);
    let line = Line(&shown).to_string();
    assert!(table.contains(&line.as_str()), "{line}");
}

const CLOSE_FRAME: Reason = Reason::CloseFrame {
    by: Direction::Rx,
    code: Some(1001),
};
