//! `wsmon status` and `wsmon alerts` while a connection dies and is gone.

use std::{process, time::Duration};

use lab::{Manner, Message};
use serde_json::Value;

use crate::{
    control::get,
    stage::{SOON, Stage},
    viewer::{Viewer, query, reported},
};

const EXPIRED: [(&str, &str); 1] = [("kind", "expired")];

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_zombie_is_trouble_from_its_confirmation_to_its_end() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "1s"]);
    let control = watch.daemon.control().to_owned();
    assert_eq!(reported(&control, &["alerts"]), "no alerts\n");
    assert_eq!(reported(&control, &["alerts", "--history"]), "no alerts\n");
    let mut follower = Viewer::run(&control, &["alerts", "--follow", "--json"]);
    follower.read();

    let client = stage.client(0, "/quiet", Manner::Responsive);
    let peer = client.local_addr();
    // An alert that the follower shows proves that it is connected. Until then, the connection recovers
    // and expires again.
    let mut shown = None;
    let mut expired = 0.0;
    while shown.is_none() {
        client.send(Message::text("hello")).unwrap();
        expired += 1.0;
        assert!(expired < 10.0, "the follower shows nothing");
        watch.wait_for_metric("wsmon_zombies_detected_total", &EXPIRED, expired);
        shown = follower.next_within(Duration::from_secs(1));
    }

    // A suspicion is an alert, but no trouble.
    let page = reported(&control, &["status"]);
    assert!(page.contains("1 listener, 1 open, 1 zombie"), "{page}");
    assert!(page.ends_with("no problems\n"), "{page}");
    let alerts = reported(&control, &["alerts"]);
    let lines: Vec<&str> = alerts.lines().collect();
    assert!(
        lines[0].starts_with("suspected zombie/expired, since "),
        "{alerts}"
    );
    let owner = format!("pid {})", process::id());
    assert!(lines[1].starts_with(&format!("  {peer} ")), "{alerts}");
    assert!(lines[1].contains(&owner), "{alerts}");
    assert!(
        lines[2].contains("on a path that forgets after 1 s"),
        "{alerts}"
    );
    for (filter, is_shown) in [
        (["--kind", "zombie"], true),
        (["--kind", "expired"], true),
        (["--kind", "stalled"], false),
        (["--listener", stage.port()], true),
    ] {
        let filtered = reported(&control, &[&["alerts"], &filter[..]].concat());
        assert_eq!(filtered.contains(&peer.to_string()), is_shown, "{filtered}");
    }

    stage.lab.black_hole(stage.lab.client_addr(0)).unwrap();
    stage.server.send(peer, Message::text("hello?")).unwrap();
    watch.alert("the confirmation", SOON, |alert| {
        alert.peer() == Some(peer) && alert.text("/certainty") == "confirmed"
    });
    let page = query(&control, &["status"]);
    assert_eq!(page.status.code(), Some(1));
    let page = String::from_utf8(page.stdout).unwrap();
    let problem = format!(
        "listener {} has 1 confirmed zombie: see wsmon alerts",
        stage.port()
    );
    assert!(page.ends_with(&format!("problem: {problem}\n")), "{page}");
    let quiet = query(&control, &["status", "--quiet"]);
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(1), 0));
    let status = query(&control, &["status", "--json", "--listener", stage.port()]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["problems"], serde_json::json!([problem]));
    assert_eq!(status["zombies"]["confirmed"], 1);
    let listener = &status["listeners"][0];
    assert_eq!(
        (
            &listener["idle_limit_seconds"],
            &listener["listening_sockets"]
        ),
        (&1.0.into(), &1.into())
    );
    assert_eq!(listener["opened_total"], 1);

    // The peer is back only to reset the connection.
    stage.lab.heal(stage.lab.client_addr(0)).unwrap();
    client.reset().unwrap();
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    while follower.next()["status"] != "resolved" {}
    assert!(reported(&control, &["status"]).ends_with("no problems\n"));
    assert_eq!(reported(&control, &["alerts"]), "no alerts\n");
    let history = reported(&control, &["alerts", "--history"]);
    let about = format!(" zombie/expired {peer} ");
    assert!(
        history.lines().all(|line| line.contains(about.trim_end())),
        "{history}"
    );
    let (last, before) = history
        .lines()
        .collect::<Vec<_>>()
        .split_last()
        .map(|(last, before)| (last.to_string(), before.join("\n")))
        .unwrap();
    assert!(last.contains(" resolved zombie/expired "), "{history}");
    assert!(before.contains(&format!(" suspected{about}")), "{history}");
    assert!(before.contains(&format!(" confirmed{about}")), "{history}");
    let latest = reported(&control, &["alerts", "--history", "--limit", "1"]);
    assert_eq!(latest, format!("{last}\n"));
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_unknown_listener_and_an_invalid_parameter_are_refused_with_what_is_expected() {
    let stage = Stage::new();
    let watch = stage.watch(&[]);
    let control = watch.daemon.control();
    let unknown = format!(
        "wsmon: no listener \"elsewhere\", expected {}\n",
        stage.port()
    );
    for command in [
        &["list"][..],
        &["list", "--ended"],
        &["list", "--by", "peer"],
        &["list", "--by", "client"],
        &["status"],
        &["alerts"],
        &["alerts", "--history"],
        &["alerts", "--follow"],
    ] {
        let refused = query(control, &[command, &["--listener", "elsewhere"]].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said), (Some(2), unknown.clone()));
    }
    for (target, expected) in [
        (
            "/v1/connections?limit=x",
            "invalid limit \"x\", expected a number up to ",
        ),
        (
            "/v1/frames?port=70000",
            "invalid port \"70000\", expected a number up to 65535",
        ),
        (
            "/v1/alerts?history=yes",
            "invalid history \"yes\", expected true or false",
        ),
        (
            "/v1/alerts?history=true&follow=true",
            "history and follow exclude each other",
        ),
        (
            "/v1/alerts?kind=dead",
            "invalid kind \"dead\", expected zombie, ",
        ),
        (
            "/v1/connections/x",
            "invalid cookie \"x\", expected a number",
        ),
        (
            "/v1/status?colour=red",
            "unknown parameter \"colour\", expected listener",
        ),
    ] {
        let said = get(control, target);
        assert!(said.starts_with(expected), "{target}: {said}");
    }
    let clients = reported(control, &["list", "--by", "client"]);
    assert!(
        clients.starts_with("no clients; their attempts are counted since"),
        "{clients}"
    );
}
