//! The access log: one line for each connection that ended, with what its peers counted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lab::{Client, Direction, Lab, Manner, Message, Opcode, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    capture::{Capture, Recording},
    dice::Sizes,
    killable::Killable,
    stage::{SOON, Stage, WSMON, Watch, fresh_port},
    talk::{Conversation, Pace, Talk, Tally, converse},
};

const CLOSED: &str = "wsmon_connections_closed_total";

/// A file for an access log, in a folder of its own.
pub(crate) struct LogFile {
    folder: TempDir,
}

impl LogFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("access.jsonl")
    }

    /// The flags that make a daemon write it.
    pub(crate) fn flags(&self) -> [String; 2] {
        [
            "--access-log".to_owned(),
            self.path().to_str().unwrap().to_owned(),
        ]
    }

    /// Waits until every counted end has its line, and returns the lines.
    pub(crate) fn lines_of_all(&self, watch: &Watch, ended: usize) -> Vec<Value> {
        watch.wait_for_metric(CLOSED, &[], ended as f64);
        let complete = || lines(&self.path()).len() >= ended;
        wait_until("the lines of the access log", SOON, complete).unwrap();
        let lines: Vec<Value> = lines(&self.path())
            .iter()
            .map(|line| parsed(line))
            .collect();
        let mut by_how = BTreeMap::<&str, f64>::new();
        for line in &lines {
            *by_how.entry(line["how"].as_str().unwrap()).or_default() += 1.0;
        }
        for (how, count) in by_how {
            assert_eq!(watch.metric(CLOSED, &[("how", how)]), count, "{how}");
        }
        assert_eq!(lines.len(), ended);
        assert_eq!(watch.metric(CLOSED, &[]), ended as f64);
        assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
        lines
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be half-written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The sum of a number over all lines.
pub(crate) fn sum(lines: &[Value], pointer: &str) -> u64 {
    let number = |line: &Value| line.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    lines.iter().map(number).sum()
}

fn of_peer<'a>(lines: &'a [Value], client: &Client) -> &'a Value {
    let peer = client.local_addr().to_string();
    let mut found = lines.iter().filter(|line| line["peer"] == peer.as_str());
    let line = found.next().unwrap_or_else(|| panic!("no line of {peer}"));
    assert!(found.next().is_none(), "two lines of {peer}");
    line
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn every_end_has_one_line_with_what_its_peers_counted() {
    let stage = Stage::new();
    let file = LogFile::new();
    let mut killable = Killable::start(stage.lab.server_ns(), stage.lab.server_addr(fresh_port()));
    let port = killable.addr.port().to_string();
    let older = stage.client(9, "/echo", Manner::Responsive);
    let flags = file.flags();
    let watch = stage.watch(&["--port", &port, &flags[0], &flags[1]]);

    let polite = stage.client(0, "/echo", Manner::Responsive);
    let dismissed = stage.client(1, "/quiet", Manner::Responsive);
    let leaving = stage.client(2, "/quiet", Manner::Responsive);
    let resetting = stage.client(3, "/quiet", Manner::Responsive);
    let doomed = |index, path| {
        let from = stage.lab.client_addr(index);
        let url = killable.url(path);
        Client::connect(stage.lab.client_ns(), from, &url, Manner::Responsive).unwrap()
    };
    let (unplugged, orphan, unread) = (doomed(4, "/stream"), doomed(5, "/"), doomed(6, "/deaf"));

    for _ in 0..3 {
        polite.send(Message::text("hello")).unwrap();
        older.send(Message::text("hello")).unwrap();
        orphan.send(Message::text("hello")).unwrap();
    }
    unread.send(Message::text("hello")).unwrap();
    let echoes = |client: &Client| client.view().frames.get(Direction::Rx, Opcode::Text);
    wait_until("the echoes", SOON, || {
        [&polite, &older].iter().all(|client| echoes(client) == 3) && echoes(&unplugged) > 0
    })
    .unwrap();
    let received = [("listener", port.as_str()), ("direction", "rx")];
    watch.wait_for_metric("wsmon_frames_total", &received, 4.0);

    stage.lab.black_hole(stage.lab.client_addr(4)).unwrap();
    watch.wait_for_metric(CLOSED, &[("how", "timeout")], 1.0);
    killable.kill();
    for client in [&polite, &older] {
        client.send(Message::Close(None)).unwrap();
    }
    stage
        .server
        .send(dismissed.local_addr(), Message::Close(None))
        .unwrap();
    leaving.hang_up().unwrap();
    resetting.reset().unwrap();

    let lines = file.lines_of_all(&watch, 8);
    for (client, how, initiator) in [
        (&polite, "close_frame", Some("peer")),
        (&dismissed, "close_frame", Some("local")),
        (&leaving, "fin", None),
        (&resetting, "rst_received", None),
        (&unplugged, "timeout", None),
        (&orphan, "fin", None),
        (&unread, "rst_sent", None),
        (&older, "close_frame", Some("peer")),
    ] {
        let line = of_peer(&lines, client);
        assert_eq!(line["type"], "connection_summary", "{line}");
        assert_eq!(line["how"], how, "{line}");
        assert_eq!(line["close"]["initiator"].as_str(), initiator, "{line}");
        assert_eq!(
            line["established_at"].is_null(),
            std::ptr::eq(client, &older),
            "{line}"
        );
        assert!(line["closed_at"].is_string(), "{line}");
        assert_eq!(line["verdicts"], serde_json::json!([]), "{line}");
        for absent in ["handshake", "client"] {
            assert!(line.get(absent).is_none(), "{line}");
        }
    }
    let line = of_peer(&lines, &polite);
    for direction in ["rx", "tx"] {
        assert_eq!(line[direction]["messages"], 3, "{line}");
        assert_eq!(line[direction]["payload_bytes"], 15, "{line}");
    }
    assert_eq!(of_peer(&lines, &orphan)["rx"]["messages"], 3);
    assert_eq!(of_peer(&lines, &unread)["rx"]["payload_bytes"], 5);

    // Of the older connection, the first frames only prove that it is a WebSocket.
    for client in [&polite, &dismissed, &leaving, &resetting] {
        let line = of_peer(&lines, client);
        let counted = stage.server.connection(client.local_addr()).unwrap().frames;
        for (direction, name) in [(Direction::Rx, "rx"), (Direction::Tx, "tx")] {
            for (opcode, text) in [(Opcode::Text, "text"), (Opcode::Close, "close")] {
                let logged = line[name]["frames_by_opcode"][text].as_u64();
                let counted = counted.get(direction, opcode);
                assert_eq!(logged.unwrap_or(0), counted, "{name} {text}: {line}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_line_has_the_handshake_and_the_verdicts_of_its_connection() {
    let stage = Stage::new();
    let file = LogFile::new();
    let flags = file.flags();
    let mut watch = stage.watch(&[
        &flags[0],
        &flags[1],
        "--access-log-handshake",
        "--lb-timeout",
        "1s",
    ]);
    let client = stage.client(0, "/quiet?secret", Manner::Responsive);
    watch.verdict(client.local_addr(), "expired", SOON);
    client.send(Message::text("I am alive")).unwrap();
    watch.resolution(client.local_addr(), SOON);
    drop(client);
    let lines = file.lines_of_all(&watch, 1);
    let line = &lines[0];
    assert_eq!(line["handshake"]["path"], "/quiet", "{line}");
    let verdict = &line["verdicts"][0];
    assert_eq!(verdict["kind"], "expired", "{line}");
    assert_eq!(verdict["resolution"], "recovered", "{line}");
    assert!(
        line["longest_idle_gap_seconds"].as_f64() >= Some(1.0),
        "{line}"
    );
}

/// Mostly short messages, with fragments and pings among them.
const SIZES: &Sizes = &[(80, 0..=125), (15, 126..=2_000), (5, 60_000..=70_000)];
const TALK: Talk = Talk {
    frames: 60,
    sizes: SIZES,
    pace: Pace::Chat(std::time::Duration::from_millis(20)),
};
const CONNECTIONS: u64 = 20;

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_recording_of_the_same_traffic_gives_the_same_objects() {
    const TRIES: usize = 3;
    let complete = (0..TRIES).find_map(|_| {
        let (logged, conversations, recording) = talk_and_log();
        Some((logged, conversations, recording?))
    });
    let (logged, conversations, recording) =
        complete.unwrap_or_else(|| panic!("dumpcap dropped packets {TRIES} times"));
    for (direction, said) in [
        ("rx", Tally::of(conversations.iter().flat_map(|c| &c.rx))),
        ("tx", Tally::of(conversations.iter().flat_map(|c| &c.tx))),
    ] {
        for (opcode, frames) in &said.frames {
            let pointer = format!("/{direction}/frames_by_opcode/{opcode}");
            assert_eq!(sum(&logged, &pointer), *frames, "{pointer}");
        }
        let payload = sum(&logged, &format!("/{direction}/payload_bytes"));
        assert_eq!(payload, said.payload_bytes, "{direction}");
    }
    let [logged, replayed] = [logged, replayed(&recording)].map(|lines| {
        let comparable = lines.into_iter().map(comparable);
        comparable.collect::<BTreeMap<String, Value>>()
    });
    assert_eq!(logged.len(), CONNECTIONS as usize);
    assert_eq!(logged, replayed);
}

fn talk_and_log() -> (Vec<Value>, Vec<Conversation>, Option<Recording>) {
    let lab = Lab::new().unwrap();
    lab.keep_each_connection_on_one_cpu().unwrap();
    let server = lab.server_addr(fresh_port());
    let file = LogFile::new();
    let flags = file.flags();
    let watch = Watch::start(&["--port", &server.port().to_string(), &flags[0], &flags[1]]);
    let capture = Capture::start(lab.server_ns(), server, lab.client_ns());
    let conversations = converse(&lab, server, CONNECTIONS, TALK);
    let lines = file.lines_of_all(&watch, CONNECTIONS as usize);
    (lines, conversations, capture.finish())
}

/// The summaries in the output of `wsmon replay`.
fn replayed(recording: &Recording) -> Vec<Value> {
    let output = Command::new(WSMON)
        .args(["replay", "--json", "--port", &recording.port().to_string()])
        .arg(recording.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines.lines().map(parsed);
    records
        .filter(|record| record["type"] == "connection_summary")
        .collect()
}

/// A summary by its peer, without what differs between a connection and its recording: the cookie, the
/// owner, and times, which are a matter of clocks. Known times stay as `true`.
fn comparable(mut summary: Value) -> (String, Value) {
    let peer = summary["peer"].as_str().unwrap().to_owned();
    for field in ["cookie", "owner"] {
        summary.as_object_mut().unwrap().remove(field).unwrap();
    }
    blur_times(&mut summary);
    (peer, summary)
}

fn blur_times(value: &mut Value) {
    for (key, value) in value.as_object_mut().unwrap() {
        let is_time = key == "ts" || key.ends_with("_at") || key.ends_with("_seconds");
        if is_time && !value.is_null() {
            *value = true.into();
        } else if value.is_object() {
            blur_times(value);
        }
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_rotated_access_log_loses_no_line() {
    const CLIENTS: usize = 60;
    let stage = Stage::new();
    let file = LogFile::new();
    let flags = file.flags();
    let mut watch = stage.watch(&[&flags[0], &flags[1]]);
    let old = file.folder.path().join("access.1");
    for index in 0..CLIENTS {
        drop(stage.client((index % 32) as u8, "/quiet", Manner::Responsive));
        if index == CLIENTS / 2 {
            wait_until("a line", SOON, || !lines(&file.path()).is_empty()).unwrap();
            fs::rename(file.path(), &old).unwrap();
            watch.daemon.rotate().unwrap();
        }
    }
    watch.wait_for_metric(CLOSED, &[], CLIENTS as f64);
    let both = || [lines(&old), lines(&file.path())];
    wait_until("every line", SOON, || both().concat().len() == CLIENTS).unwrap();
    for lines in both() {
        assert!(!lines.is_empty());
        lines.iter().for_each(|line| drop(parsed(line)));
    }
    assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_line_that_a_full_disk_refuses_is_counted() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--access-log", "/dev/full"]);
    watch.allow("cannot write to the access log");
    drop(stage.client(0, "/quiet", Manner::Responsive));
    let unwritten = [("ring", "access_log"), ("reason", "unwritten")];
    watch.wait_for_metric("wsmon_events_lost_total", &unwritten, 1.0);
    assert_eq!(watch.metric("wsmon_degraded", &[]), 1.0);
}
