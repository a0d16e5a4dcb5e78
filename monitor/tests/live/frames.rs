//! Live frames: what a viewer sees and misses, and that no frame leaves the kernel without a
//! viewer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use aya::maps::{Array, Map, MapData, loaded_maps};
use lab::{Client, Daemon, Direction, Manner, Message, Opcode, wait_until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::{
    stage::{SOON, Stage, Watch},
    viewer::{Viewer, reported},
};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_viewer_sees_exactly_the_frames_that_pass_and_none_leaves_the_kernel_without_a_viewer() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let client = stage.client(0, "/echo", Manner::Responsive);
    client.send(Message::text("before")).unwrap();
    wait_for_frames(&client, Direction::Rx, Opcode::Text, 1);
    assert_eq!(one_in(&watch.daemon), 0, "no viewer");

    let mut viewer = Viewer::start(watch.daemon.control(), &[]);
    wait_for_viewers(&watch, 1);
    assert_eq!(one_in(&watch.daemon), 1);
    client.send(Message::text("hello")).unwrap();
    client.send(Message::binary(vec![7; 300])).unwrap();
    client.send(Message::binary(vec![7; 70_000])).unwrap();
    wait_for_frames(&client, Direction::Rx, Opcode::Binary, 2);
    client.send(Message::Ping("12".into())).unwrap();
    wait_for_frames(&client, Direction::Rx, Opcode::Pong, 1);
    stage
        .server
        .send(client.local_addr(), Message::Ping("1234".into()))
        .unwrap();
    wait_for_frames(&client, Direction::Rx, Opcode::Ping, 1);
    let close = CloseFrame {
        code: CloseCode::Library(4001),
        reason: "enough".into(),
    };
    client.send(Message::Close(Some(close))).unwrap();

    let mut seen = BTreeMap::<String, Vec<Value>>::new();
    for _ in 0..12 {
        let frame = viewer.next();
        assert_eq!(frame["type"], "frame", "{frame}");
        assert_eq!(frame["listener"], stage.port());
        assert_eq!(frame["local"], stage.server.addr().to_string());
        assert_eq!(frame["peer"], client.local_addr().to_string());
        let answers_a_ping = frame["ping_rtt_seconds"]
            .as_f64()
            .is_some_and(|rtt| rtt > 0.0);
        assert_eq!(answers_a_ping, frame["opcode"] == "pong", "{frame}");
        let direction = frame["direction"].as_str().unwrap().to_owned();
        let reported = json!([
            frame["opcode"],
            frame["length"],
            frame["fin"],
            frame["rsv"],
            frame["masked"],
            frame["close_code"]
        ]);
        seen.entry(direction).or_default().push(reported);
    }
    let plain = |opcode, length, masked| json!([opcode, length, true, 0, masked, null]);
    let received = [
        plain("text", 5, true),
        plain("binary", 300, true),
        plain("binary", 70_000, true),
        plain("ping", 2, true),
        plain("pong", 4, true),
        json!(["close", 8, true, 0, true, 4001]),
    ];
    let sent = [
        plain("text", 5, false),
        plain("binary", 300, false),
        plain("binary", 70_000, false),
        plain("pong", 2, false),
        plain("ping", 4, false),
        json!(["close", 8, true, 0, false, 4001]),
    ];
    assert_eq!(seen["rx"], received);
    assert_eq!(seen["tx"], sent);

    viewer.stop_listening();
    drop(viewer);
    wait_for_viewers(&watch, 0);
    wait_until("the kernel to send nothing", SOON, || {
        one_in(&watch.daemon) == 0
    })
    .unwrap();
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn each_viewer_has_separate_filters_and_samples() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let client = stage.client(0, "/echo", Manner::Responsive);
    let other = stage.client(1, "/echo", Manner::Responsive);
    let peer = client.local_addr().ip().to_string();
    let pings = Viewer::start(
        watch.daemon.control(),
        &["--peer", &peer, "--opcode", "ping", "--direction", "rx"],
    );
    wait_for_viewers(&watch, 1);
    let few = Viewer::start(watch.daemon.control(), &["--sample", "1/1000000"]);
    wait_for_viewers(&watch, 2);
    assert_eq!(one_in(&watch.daemon), 1, "the larger sample decides");
    for client in [&other, &client] {
        client.send(Message::text("hello")).unwrap();
        client.send(Message::Ping("12".into())).unwrap();
        wait_for_frames(client, Direction::Rx, Opcode::Pong, 1);
    }
    let ping = pings.next();
    assert_eq!(ping["peer"], client.local_addr().to_string(), "{ping}");
    assert_eq!(ping["opcode"], "ping");
    drop(pings);
    wait_for_viewers(&watch, 1);
    assert_eq!(one_in(&watch.daemon), 1_000_000);
    drop(few);
    wait_for_viewers(&watch, 0);

    let count = ["frames", "--control-only", "--count", "2"];
    let control = watch.daemon.control();
    let shown = std::thread::scope(|scope| {
        let shown = scope.spawn(|| reported(control, &count));
        wait_for_viewers(&watch, 1);
        client.send(Message::text("hello")).unwrap();
        client.send(Message::Ping("12".into())).unwrap();
        shown.join().unwrap()
    });
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert!(lines[0].starts_with("TIME "), "{shown}");
    for (line, direction, opcode) in [(lines[1], "rx", "ping"), (lines[2], "tx", "pong")] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[2], client.local_addr().to_string(), "{line}");
        assert_eq!((words[3], words[6]), (direction, opcode), "{line}");
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_viewer_that_does_not_read_loses_only_its_own_frames_and_learns_the_number() {
    const FRAMES: u64 = 30_000;
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "3s"]);
    let client = stage.client(0, "/quiet", Manner::Responsive);
    let idle = stage.client(1, "/quiet", Manner::Responsive);
    let mut stuck = Viewer::stuck(watch.daemon.control(), &[]);
    wait_for_viewers(&watch, 1);
    let attentive = Viewer::start(watch.daemon.control(), &[]);
    wait_for_viewers(&watch, 2);
    let memory = resident_bytes(&watch.daemon);
    let mut seen = Account::default();
    while seen.total() < FRAMES {
        // Only as fast as the reading viewer can follow, even on a slow machine.
        let batch = seen.total() + 1_000;
        (0..1_000).for_each(|_| client.send(Message::text("hello")).unwrap());
        seen.read(&attentive, batch);
    }
    assert_eq!(seen.viewer, 0, "it reads: {seen:?}");
    assert_eq!(seen.frames + seen.kernel, FRAMES);
    watch.verdict(idle.local_addr(), "expired", SOON);
    let growth = resident_bytes(&watch.daemon).saturating_sub(memory);
    assert!(growth < 32 << 20, "the daemon grew by {growth} bytes");

    stuck.read();
    let mut reported = Account::default();
    reported.read(&stuck, FRAMES);
    assert!(reported.viewer > 0, "{reported:?}");
    assert_eq!(
        reported.frames + reported.kernel + reported.viewer,
        FRAMES,
        "{reported:?}"
    );
    assert_eq!(reported.kernel, seen.kernel);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_viewer_ends_quietly_without_a_reader_and_reports_when_the_daemon_stops() {
    let stage = Stage::new();
    let mut watch = stage.watch(&[]);
    let client = stage.client(0, "/quiet", Manner::Responsive);
    let mut unread = Viewer::stuck(watch.daemon.control(), &[]);
    unread.stop_listening();
    let abandoned = Viewer::start(watch.daemon.control(), &[]);
    wait_for_viewers(&watch, 2);
    client.send(Message::text("hello")).unwrap();
    let (status, said) = unread.end();
    assert!(status.success(), "{said}");
    assert_eq!(said, "");

    assert_eq!(abandoned.next()["opcode"], "text");
    assert!(watch.daemon.terminate(SOON).unwrap().success());
    let (status, said) = abandoned.end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(said, "wsmon: the daemon stopped\n");
    assert!(!watch.daemon.control().exists(), "the socket is left");
}

/// Lines received by a viewer.
#[derive(Debug, Default)]
struct Account {
    frames: u64,
    kernel: u64,
    viewer: u64,
}

impl Account {
    fn total(&self) -> u64 {
        self.frames + self.kernel + self.viewer
    }

    /// Reads until `frames` are accounted for.
    fn read(&mut self, viewer: &Viewer, frames: u64) {
        while self.total() < frames {
            let line = viewer.next();
            match line["type"].as_str().unwrap() {
                "frame" => self.frames += 1,
                "lost" => {
                    self.kernel += line["kernel"].as_u64().unwrap();
                    self.viewer += line["viewer"].as_u64().unwrap();
                }
                other => panic!("a line of type {other}"),
            }
        }
    }
}

fn wait_for_viewers(watch: &Watch, viewers: usize) {
    watch.wait_for_metric("wsmon_frame_viewers", &[], viewers as f64);
}

fn wait_for_frames(client: &Client, direction: Direction, opcode: Opcode, frames: u64) {
    wait_until(&format!("{frames} {opcode:?}"), SOON, || {
        client.view().frames.get(direction, opcode) >= frames
    })
    .unwrap();
}

/// The kernel sends one frame in this many to the daemon; 0 = none.
fn one_in(daemon: &Daemon) -> u32 {
    let ids: BTreeSet<u32> = fs::read_dir(format!("/proc/{}/fdinfo", daemon.id()))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|info| {
            let id = info.lines().find_map(|line| line.strip_prefix("map_id:"));
            id.and_then(|id| id.trim().parse().ok())
        })
        .collect();
    let info = loaded_maps()
        .filter_map(Result::ok)
        .find(|info| ids.contains(&info.id()) && info.name_as_str() == Some("SAMPLE_EVERY"))
        .expect("the daemon's map");
    let map = Map::Array(MapData::from_id(info.id()).unwrap());
    let map: Array<_, u32> = map.try_into().unwrap();
    map.get(&0, 0).unwrap()
}

fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() * 1024
}
