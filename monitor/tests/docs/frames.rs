//! The examples of frames, connections and clients.

use monitor::records::{
    clients::ClientRecord,
    connections::{ConnectionRecord, State, TransitionRecord},
    frames::{FrameLine, FrameRecord},
};
use monitor_core::{Reason, facts::Direction};
use serde_json::json;

use crate::pages::{examples, read};

#[test]
fn examples_of_connections_and_frames_have_the_fields_that_the_daemon_writes() {
    let page = read("docs/frames.md");
    let examples = examples("docs/frames.md");
    let [frame, lost, connection, client, change] = examples.as_slice() else {
        panic!("a frame, a loss, a connection, a client and a change: {examples:?}");
    };
    let shown: ClientRecord = serde_json::from_str(&client.to_string()).expect("a client");
    assert_eq!(json!(shown), *client);
    // `tx` has the same fields as `rx`, and is omitted in the example.
    assert_eq!(connection["tx"], json!({}));
    let mut connection = connection.clone();
    connection["tx"] = connection["rx"].clone();
    let record: ConnectionRecord =
        serde_json::from_str(&connection.to_string()).expect("a connection");
    assert_eq!(json!(record), connection);
    assert_eq!(lost["type"], "lost");
    let shown: FrameRecord = serde_json::from_str(&frame.to_string()).expect("a frame");
    assert_eq!(json!(shown), *frame);

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
    assert_eq!(json!(shown_change), *change);

    let table: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("TIME "))
        .take_while(|line| *line != "```")
        .collect();
    assert_eq!(table[0], FrameLine::HEAD);
    let line = FrameLine(&shown).to_string();
    assert!(table.contains(&line.as_str()), "{line}");
}

const CLOSE_FRAME: Reason = Reason::CloseFrame {
    by: Direction::Rx,
    code: Some(1001),
};
