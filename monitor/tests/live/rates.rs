//! Frames and bytes per second of single connections.

use std::time::Duration;

use lab::{Manner, Message};
use serde_json::Value;

use crate::{
    stage::Stage,
    viewer::{Viewer, reported},
};

const SIZE: usize = 500;

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_busiest_connection_comes_first_whatever_others_have_carried_before() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let silent = stage.client(0, "/quiet", Manner::Responsive);
    silent.send(Message::text("x".repeat(1_000_000))).unwrap();
    let all = [("direction", "rx")];
    watch.wait_for_metric("wsmon_frame_payload_bytes_total", &all, 1_000_000.0);
    let every = Duration::from_millis(20);
    let talkative = Manner::Talkative { every, size: SIZE };
    let busy = stage.client(1, "/quiet", talkative);
    let sender = stage.client(2, "/stream?every=20ms&size=100", Manner::Responsive);
    watch.wait_for_metric("wsmon_connections", &[], 3.0);

    let listed = |order: &str| -> Vec<Value> {
        let text = reported(control, &["list", "--json", "--sort", order]);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let [silent, busy, sender] =
        [&silent, &busy, &sender].map(|client| client.local_addr().to_string());
    let by_received = listed("rx-rate");
    assert_eq!(by_received.len(), 3);
    assert_eq!(by_received[0]["peer"], busy);
    assert_size(&by_received[0]["rates"]["rx"], SIZE);
    let quiet = by_received.iter().find(|record| record["peer"] == silent);
    assert_eq!(quiet.unwrap()["rates"]["rx"]["frames_per_second"], 0.0);
    let by_sent = listed("tx-rate");
    assert_eq!(by_sent[0]["peer"], sender);
    assert_size(&by_sent[0]["rates"]["tx"], 100);
    assert_eq!(listed("bytes")[0]["rates"], Value::Null, "read once");
    let table = reported(control, &["list", "--sort", "rx-rate", "--limit", "1"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].contains("  BYTES/S RX/TX  "), "{table}");
    assert!(rows.len() == 2 && rows[1].contains(&busy), "{table}");

    let cookie = by_received[0]["cookie"].as_str().unwrap();
    let viewer = {
        let mut viewer = Viewer::run(control, &["inspect", cookie, "--json"]);
        viewer.read();
        viewer
    };
    let inspected = viewer.next();
    assert_size(&inspected["rates"]["rx"], SIZE);
    assert_eq!(inspected["rates"]["tx"]["frames_per_second"], 0.0);
    let page = reported(control, &["inspect", cookie]);
    assert!(page.contains("  rates      received "), "{page}");
}

/// Both figures rest on the same two readings, so their quotient is the size of each message.
fn assert_size(rates: &Value, size: usize) {
    let figure = |name: &str| rates[name].as_f64().unwrap();
    let frames = figure("frames_per_second");
    let bytes = figure("payload_bytes_per_second");
    assert!(frames > 1.0, "{rates}");
    assert!((bytes / frames - size as f64).abs() < 1.0, "{rates}");
}
