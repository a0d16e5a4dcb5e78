//! Figures of connections by listener and by peer.

use lab::{Manner, Message};
use serde_json::{Value, json};

use crate::{
    stage::{SOON, Stage, Watch},
    viewer::{query, reported},
};

fn groups(watch: &Watch, args: &[&str]) -> Vec<Value> {
    let text = reported(
        watch.daemon.control(),
        &[&["list", "--json", "--by"], args].concat(),
    );
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_are_counted_by_listener_and_by_peer_with_those_of_the_last_minute() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "2s"]);
    let control = watch.daemon.control().to_owned();
    assert_eq!(groups(&watch, &["peer"]), Vec::<Value>::new());
    assert_eq!(
        reported(&control, &["list", "--by", "peer"]),
        "no connections\n"
    );

    let _beating =
        [0, 0].map(|index| stage.client(index, "/heartbeat?every=1s", Manner::Responsive));
    let silent = stage.client(1, "/quiet", Manner::Responsive);
    let ended = stage.client(2, "/quiet", Manner::Responsive);
    ended.send(Message::Close(None)).unwrap();
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 1.0);
    watch.verdict(silent.local_addr(), "expired", SOON);

    let peers = groups(&watch, &["peer"]);
    let figures = |group: &Value| {
        json!([
            group["name"],
            group["open"],
            group["opened_in_minute"],
            group["closed_in_minute"],
            group["zombies"]
        ])
    };
    let addr = |index: u8| stage.lab.client_addr(index).to_string();
    let expected = [
        json!([addr(0), 2, 2, 0, 0]),
        json!([addr(1), 1, 1, 0, 1]),
        json!([addr(2), 0, 1, 1, 0]),
    ];
    assert_eq!(peers.iter().map(figures).collect::<Vec<_>>(), expected);
    let margin = |group: &Value| group["heartbeat_margin_seconds"].as_f64();
    assert!(margin(&peers[0]) <= Some(2.0), "{}", peers[0]);
    assert!(margin(&peers[1]) < Some(0.0), "{}", peers[1]);
    assert_eq!(margin(&peers[2]), None);
    assert!(peers[1]["oldest_seconds"].as_f64() >= Some(2.0));
    for group in &peers {
        assert_eq!(
            (&group["type"], &group["by"]),
            (&"group".into(), &"peer".into())
        );
        assert_eq!(group["is_minute_complete"], true);
        assert_eq!(group["is_rest"], false);
    }

    let listeners = groups(&watch, &["listener"]);
    assert_eq!(
        listeners.iter().map(figures).collect::<Vec<_>>(),
        [json!([stage.port(), 3, 4, 1, 1])]
    );
    assert!(margin(&listeners[0]) < Some(0.0), "{}", listeners[0]);

    assert_eq!(groups(&watch, &["peer", "--limit", "1"]).len(), 1);
    let one = groups(&watch, &["listener", "--peer", &addr(1)]);
    assert_eq!(figures(&one[0]), json!([stage.port(), 1, 1, 0, 1]));
    assert_eq!(
        groups(&watch, &["peer", "--listener", stage.port()]).len(),
        3
    );

    let table = reported(&control, &["list", "--by", "peer"]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows[0].ends_with(" PEER"), "{table}");
    for (row, index) in rows[1..].iter().zip(0..) {
        assert!(row.ends_with(&addr(index)) && row.len() <= 80, "{table}");
    }
    let invalid = query(&control, &["list", "--by", "colour"]);
    assert_eq!(invalid.status.code(), Some(2));
}
