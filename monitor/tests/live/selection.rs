//! Selecting connections: by verdict, by text and by address.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lab::{Client, Manner, Message, Process, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    control::get,
    stage::{SOON, Stage, WSMON},
    viewer::{Viewer, query, reported},
};

const ALIVE: Manner = Manner::Pinging {
    every: Duration::from_millis(200),
};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn connections_are_selected_by_verdict_and_text_and_paged() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "2s"]);
    let dead = stage.client(0, "/quiet", Manner::Responsive);
    let alive = stage.client(1, "/quiet", ALIVE);
    watch.verdict(dead.local_addr(), "expired", SOON);
    let control = watch.daemon.control();
    let listed = |args: &[&str]| peers(&reported(control, &[&["list", "--json"], args].concat()));
    let (dead, alive) = (addr(&dead), addr(&alive));
    for (args, expected) in [
        (&["--zombies"][..], &[&dead][..]),
        (&["--kind", "expired"], &[&dead]),
        (&["--kind", "stalled"], &[]),
        (&["--zombies", "--sort", "idle", "-n", "1"], &[&dead]),
        (&["--search", "EXPIR"], &[&dead]),
        (&["--search", &alive], &[&alive]),
        (&["--search", "nobody"], &[]),
    ] {
        assert_eq!(
            listed(args).iter().collect::<Vec<_>>(),
            expected,
            "{args:?}"
        );
    }
    let none = reported(control, &["list", "--search", "nobody"]);
    assert_eq!(none, "no connection matches\n");

    // This process is the server. It is known once a list has named it.
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    wait_until("the process to be known", SOON, || {
        listed(&[]);
        listed(&["--search", comm.trim()]).len() == 2
    })
    .unwrap();

    let all = peers(&get(control, "/v1/connections"));
    for query in [
        "offset=1",
        "offset=1&limit=1",
        "search=websocket&offset=1",
        "order=frames&offset=1&limit=5",
    ] {
        let paged = peers(&get(control, &format!("/v1/connections?{query}")));
        assert_eq!(paged.len(), 1, "{query}");
        if !query.contains("order") {
            assert_eq!(paged[0], all[1], "{query}");
        }
    }
    assert_eq!(get(control, "/v1/connections?offset=2"), "");
    let refused = get(control, "/v1/connections?ended=true&zombies=true");
    assert!(refused.contains("no standing verdict"), "{refused}");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_connection_is_found_by_its_address_and_several_are_listed() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let clients = [0, 1].map(|index| stage.client(index, "/quiet", Manner::Responsive));
    watch.wait_for_metric("wsmon_connections", &[], 2.0);
    let first = addr(&clients[0]);
    for name in [first.clone(), clients[0].local_addr().ip().to_string()] {
        let record = reported(control, &["inspect", &name, "--json"]);
        assert_eq!(peers(&record), [first.as_str()]);
    }
    let page = reported(control, &["inspect", &first]);
    assert!(page.starts_with("connection "), "{page}");
    assert!(
        page.contains(&format!("\n  peer       {first}\n")),
        "{page}"
    );

    let both = stage.server.addr().to_string();
    let several = query(control, &["inspect", &both]);
    assert_eq!(several.status.code(), Some(1));
    let table = String::from_utf8(several.stdout).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    for client in &clients {
        assert!(table.contains(&addr(client)), "{table}");
    }
    let said = String::from_utf8(several.stderr).unwrap();
    let expected = format!("2 connections have {both}: name one of them by its cookie\n");
    assert_eq!(said, expected);

    let none = query(control, &["inspect", "192.0.2.1:1"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8(none.stderr).unwrap();
    assert!(
        said.starts_with("wsmon: no connection with 192.0.2.1:1 is watched"),
        "{said}"
    );

    clients[0].send(Message::Close(None)).unwrap();
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    let ended = reported(control, &["inspect", &first]);
    assert!(ended.contains("\n  state      closed\n"), "{ended}");
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn frames_are_shown_of_a_connection_that_is_open_and_of_no_other() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let client = stage.client(0, "/quiet", ALIVE);
    let other = stage.client(1, "/quiet", ALIVE);
    watch.wait_for_metric("wsmon_connections", &[], 2.0);
    let mut viewer = Viewer::run(control, &["frames", "--json", &addr(&client)]);
    viewer.read();
    for _ in 0..4 {
        assert_eq!(
            viewer.next()["peer"],
            addr(&client),
            "the other is not shown"
        );
    }

    let record = reported(control, &["inspect", &addr(&other), "--json"]);
    let cookie = json(&record)["cookie"].as_str().unwrap().to_owned();
    let few = reported(control, &["frames", "--conn", &cookie, "-n", "1"]);
    let lines: Vec<_> = few.lines().collect();
    assert_eq!(lines.len(), 2, "{few}");
    assert!(lines[1].contains(&addr(&other)), "{few}");
    other.send(Message::Close(None)).unwrap();
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    for (cookie, why) in [
        (cookie.as_str(), "has ended; see wsmon inspect"),
        ("1", "no connection 1 is watched"),
    ] {
        let refused = query(control, &["frames", cookie]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_list_is_repeated_until_it_is_interrupted() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let mut command = Command::new(WSMON);
    command
        .args(["list", "--watch", "100ms", "--control"])
        .arg(watch.daemon.control())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut list = Process::spawn(&mut command).unwrap();
    let mut lines = BufReader::new(list.child_mut().stdout.take().unwrap()).lines();
    let mut next = || lines.next().expect("another line").unwrap();
    assert!(next().ends_with(" UTC, every 100ms"));
    assert_eq!(next(), "no connections");
    assert_eq!(next(), "", "between two blocks");
    let client = stage.client(0, "/quiet", Manner::Responsive);
    // Lines come every 100 ms, so this ends.
    let deadline = Instant::now() + SOON;
    let mut shown = false;
    while !shown && Instant::now() < deadline {
        shown = next().contains(&addr(&client));
    }
    assert!(shown, "the connection is in a later block");
    kill_process(Pid::from_child(list.child_mut()), Signal::INT).unwrap();
    let status = list.child_mut().wait().unwrap();
    assert!(status.success(), "{status}");
}

fn addr(client: &Client) -> String {
    client.local_addr().to_string()
}

/// The peers of records.
fn peers(lines: &str) -> Vec<String> {
    let peer = |line| json(line)["peer"].as_str().unwrap().to_owned();
    lines.lines().map(peer).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
