//! The daemon starts, stops, and is killed; connections are not affected.

use std::{
    collections::BTreeSet,
    fs, io,
    time::{Duration, Instant},
};

use aya::programs::{loaded_links, loaded_programs};
use lab::{Client, Direction, Manner, Message, Opcode, wait_until};

use crate::stage::{SOON, Stage, assert_between};

/// The kernel objects of one process.
#[derive(Debug)]
struct Footprint {
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Footprint {
    /// From the file descriptors of process `pid`, so other daemons on this host do not matter.
    fn of(pid: u32) -> Self {
        let infos: Vec<String> = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .unwrap()
            .filter_map(|entry| match fs::read_to_string(entry.unwrap().path()) {
                // Closed since the folder was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                info => Some(info.unwrap()),
            })
            .collect();
        let ids = |key: &str| {
            infos
                .iter()
                .flat_map(|info| info.lines())
                .filter_map(|line| line.strip_prefix(key)?.trim().parse().ok())
                .collect()
        };
        Self {
            programs: ids("prog_id:"),
            links: ids("link_id:"),
        }
    }

    fn is_gone(&self) -> bool {
        let programs = loaded_programs().filter_map(|info| Some(info.ok()?.id()));
        let links = loaded_links().filter_map(|info| Some(info.ok()?.id()));
        !programs.into_iter().any(|id| self.programs.contains(&id))
            && !links.into_iter().any(|id| self.links.contains(&id))
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_killed_daemon_leaves_nothing_attached_and_its_successor_finds_the_connections() {
    const LIMIT: Duration = Duration::from_secs(8);
    let stage = Stage::new();
    let flags = ["--lb-timeout", "8s"];
    let mut killed = stage.watch(&flags);
    let echo = stage.client(0, "/echo", Manner::Responsive);
    assert_echo(&echo, 1);
    let before = Instant::now();
    let idle = stage.client(1, "/quiet", Manner::Responsive);
    let open = [("state", "open")];
    killed.wait_for_metric("wsmon_connections", &open, 2.0);

    let footprint = Footprint::of(killed.daemon.id());
    assert_eq!(footprint.programs.len(), 7, "{footprint:?}");
    assert_eq!(footprint.links.len(), 7, "{footprint:?}");
    assert!(!footprint.is_gone());
    killed.daemon.kill().unwrap();
    wait_until("the programs to go", SOON, || footprint.is_gone()).unwrap();
    assert_echo(&echo, 2);

    let mut successor = stage.watch(&flags);
    assert_eq!(successor.metric("wsmon_connections", &open), 2.0);
    assert_echo(&echo, 3);
    let alert = successor.verdict(idle.local_addr(), "expired", LIMIT + SOON);
    assert_between(
        before + LIMIT,
        alert.at,
        idle.connected_at() + LIMIT + Duration::from_secs(1),
    );
    assert!(killed.alerts().is_empty());
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn sigterm_ends_the_daemon_with_success_and_detaches_everything() {
    let stage = Stage::new();
    let mut watch = stage.watch(&[]);
    let echo = stage.client(0, "/echo", Manner::Responsive);
    let footprint = Footprint::of(watch.daemon.id());
    assert!(!footprint.is_gone());
    assert_eq!(watch.daemon.terminate(SOON).unwrap().code(), Some(0));
    wait_until("the programs to go", SOON, || footprint.is_gone()).unwrap();
    assert_echo(&echo, 1);
    wait_until("the final log line", SOON, || {
        watch.daemon.log().contains("nothing is attached any more")
    })
    .unwrap();
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn every_kind_of_close_leaves_nothing_behind() {
    const ROUNDS: u64 = 100;
    let stage = Stage::new();
    // Room for only a few at a time: a slot that is not freed is soon missing.
    let mut watch = stage.watch(&["--max-connections", "16", "--lb-timeout", "60s"]);
    for round in 1..=ROUNDS {
        let polite = stage.client(0, "/echo", Manner::Responsive);
        let resetting = stage.client(1, "/quiet", Manner::Responsive);
        let vanishing = stage.client(2, "/heartbeat?every=1ms", Manner::Deaf);
        polite.send(Message::text("echo")).unwrap();
        polite.send(Message::Close(None)).unwrap();
        resetting.reset().unwrap();
        drop(vanishing);
        wait_until("the server to see all three leave", SOON, || {
            stage.server.counts().closed == 3 * round
        })
        .unwrap();
    }
    watch.wait_for_metric("wsmon_connections", &[], 0.0);
    let ended = 3.0 * ROUNDS as f64;
    assert_eq!(watch.metric("wsmon_connections_opened_total", &[]), ended);
    assert_eq!(watch.metric("wsmon_connections_closed_total", &[]), ended);
    let close_codes = watch.metric("wsmon_close_codes_total", &[]);
    let abnormal = watch.metric("wsmon_abnormal_closures_total", &[]);
    assert_eq!((close_codes, abnormal), (ended / 3.0, ended / 3.0 * 2.0));
    assert_eq!(watch.metric("wsmon_untracked_connections_total", &[]), 0.0);
    assert_eq!(watch.metric("wsmon_events_lost_total", &[]), 0.0);
    // A client that reconnects like this thrashes; nothing else is wrong.
    let reported: Vec<_> = watch
        .alerts()
        .iter()
        .map(|alert| alert.text("/alert").to_owned())
        .collect();
    assert!(
        reported.iter().all(|alert| alert == "thrash"),
        "{reported:?}"
    );
}

/// Sends a message and waits for its echo, the `nth` of this client.
fn assert_echo(client: &Client, nth: u64) {
    client.send(Message::text("echo")).unwrap();
    wait_until("the echo", SOON, || {
        client.view().frames.get(Direction::Rx, Opcode::Text) == nth
    })
    .unwrap();
}
