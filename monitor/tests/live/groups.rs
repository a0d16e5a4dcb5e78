//! Figures of connections by listener and by peer.

use jiff::{SignedDuration, Timestamp, ToSpan};
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
    parsed(&text)
}

fn parsed(lines: &str) -> Vec<Value> {
    let records = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

/// How many connections opened and closed within the minute before `now`, from their own records. A slow
/// machine may take longer than a minute between an event and a query.
fn in_minute<'a>(connections: impl Iterator<Item = &'a Value>, now: Timestamp) -> [usize; 2] {
    let mut counts = [0, 0];
    for record in connections {
        let ts: Timestamp = record["ts"].as_str().unwrap().parse().unwrap();
        let age = SignedDuration::from_secs_f64(record["age_seconds"].as_f64().unwrap());
        let since = now - 1.minute();
        counts[0] += usize::from(ts - age > since);
        counts[1] += usize::from(record["state"] == "closed" && ts > since);
    }
    counts
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
    let connections: Vec<Value> = [&["list", "--json"][..], &["list", "--json", "--ended"]]
        .iter()
        .flat_map(|args| parsed(&reported(&control, args)))
        .collect();
    assert_eq!(connections.len(), 4);
    // An empty peer is any.
    let of = |peer: &str, group: &Value| {
        let now = group["ts"].as_str().unwrap().parse().unwrap();
        let is_of = |record: &&Value| record["peer"].as_str().unwrap().starts_with(peer);
        in_minute(connections.iter().filter(is_of), now)
    };
    let row = |index: u8, open: u64, zombies: u64| {
        let [opened, closed] = of(&addr(index), &peers[0]);
        json!([addr(index), open, opened, closed, zombies])
    };
    let mut expected = vec![row(0, 2, 0), row(1, 1, 1), row(2, 0, 0)];
    expected.retain(|row| row[1] != 0 || row[3] != 0);
    assert_eq!(peers.iter().map(figures).collect::<Vec<_>>(), expected);
    let margin = |group: &Value| group["heartbeat_margin_seconds"].as_f64();
    assert!(margin(&peers[0]) <= Some(2.0), "{}", peers[0]);
    assert!(margin(&peers[1]) < Some(0.0), "{}", peers[1]);
    assert_eq!(peers.get(2).and_then(margin), None);
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
    let [opened, closed] = of("", &listeners[0]);
    assert_eq!(
        listeners.iter().map(figures).collect::<Vec<_>>(),
        [json!([stage.port(), 3, opened, closed, 1])]
    );
    assert!(margin(&listeners[0]) < Some(0.0), "{}", listeners[0]);

    assert_eq!(groups(&watch, &["peer", "--limit", "1"]).len(), 1);
    let one = groups(&watch, &["listener", "--peer", &addr(1)]);
    let [opened, closed] = of(&addr(1), &one[0]);
    assert_eq!(
        figures(&one[0]),
        json!([stage.port(), 1, opened, closed, 1])
    );
    let of_listener = groups(&watch, &["peer", "--listener", stage.port()]);
    assert!((2..=3).contains(&of_listener.len()), "{of_listener:?}");

    let table = reported(&control, &["list", "--by", "peer"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!((3..=4).contains(&rows.len()), "{table}");
    assert!(rows[0].ends_with(" PEER"), "{table}");
    for (row, index) in rows[1..].iter().zip(0..) {
        assert!(row.ends_with(&addr(index)) && row.len() <= 80, "{table}");
    }
    let invalid = query(&control, &["list", "--by", "colour"]);
    assert_eq!(invalid.status.code(), Some(2));
}
