//! Labels of workloads: servers in cgroups that are named as the kubelet and systemd name them.

use std::{fs, time::Duration};

use lab::{Daemon, wait_until};
use tempfile::TempDir;

use crate::{group::Group, peer::Peer, wsmon};

const LIMIT: Duration = Duration::from_secs(20);
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CONNECTIONS: &str = "wsmon_connections";
const OPENED: &str = "wsmon_connections_opened_total";
const CLOSED: &str = "wsmon_connections_closed_total";

/// An open connection to a server in each of some cgroups. Fields are dropped in this order.
struct Host {
    peers: Vec<Peer>,
    daemon: Daemon,
    /// A cgroup after those below it.
    groups: Vec<Group>,
    files: TempDir,
}

impl Host {
    /// `paths` are those of the cgroups. wsmon starts before the first client connects.
    fn start(paths: &[String], flags: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let outer = Group::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut servers = Vec::new();
        for path in paths {
            let mut parents: Vec<Group> = Vec::new();
            for name in path.split('/') {
                let parent = parents.last().unwrap_or(&outer);
                parents.push(parent.child(name));
            }
            servers.push(groups.len());
            groups.extend(parents.into_iter().rev());
        }
        let servers: Vec<_> = servers.into_iter().map(|index| &groups[index]).collect();
        let mut daemon = None;
        let peers = connect(&servers, &mut Vec::new(), &mut |ports| {
            configure(&files, ports);
            let flags = [&["--cgroup", outer.as_str()], flags].concat();
            daemon = Some(run(&files, &flags));
        });
        groups.push(outer);
        Self {
            peers,
            daemon: daemon.unwrap(),
            groups,
            files,
        }
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.daemon.metrics().unwrap().sum(name, labels)
    }

    /// Waits until the workload has this many open connections.
    #[track_caller]
    fn wait_for_open(&self, namespace: &str, workload: &str, expected: f64) {
        let labels = [
            ("namespace", namespace),
            ("workload", workload),
            ("state", "open"),
        ];
        let mut last = 0.0;
        let reached = wait_until("the workload's connections", LIMIT, || {
            last = self.metric(CONNECTIONS, &labels);
            last == expected
        });
        if reached.is_err() {
            panic!(
                "{last} of {workload}, not {expected}:\n{}",
                self.daemon.log()
            );
        }
    }
}

/// Connects to a server in each cgroup, once `ready` has got the ports of all.
fn connect(groups: &[&Group], ports: &mut Vec<u16>, ready: &mut dyn FnMut(&[u16])) -> Vec<Peer> {
    let Some((group, others)) = groups.split_first() else {
        ready(ports);
        return Vec::new();
    };
    let mut peers = Vec::new();
    let peer = Peer::connect(group, |port| {
        ports.push(port);
        peers = connect(others, ports, ready);
    });
    peers.insert(0, peer);
    peers
}

/// One listener with all ports, and a directory of logs for the pods.
fn configure(files: &TempDir, ports: &[u16]) {
    let config = format!(
        "[[listener]]\nname = \"ws\"\nports = {:?}\n[daemon]\nworkload_labels = true\npod_logs = {:?}\n",
        ports.iter().map(u16::to_string).collect::<Vec<_>>(),
        files.path(),
    );
    fs::write(files.path().join("wsmon.toml"), config).unwrap();
    for (number, pod) in [
        (1, "shop_chat-6d4cf56db6-x7k2p"),
        (2, "shop_chat-6d4cf56db6-m4n5q"),
        (3, "shop_chat-75f8c9d7b-zz9xk"),
        (4, "game_chat-0"),
    ] {
        fs::create_dir(files.path().join(format!("{pod}_{}", uid(number, '-')))).unwrap();
    }
}

fn run(files: &TempDir, flags: &[&str]) -> Daemon {
    let config = files.path().join("wsmon.toml");
    let flags = [&["--config", config.to_str().unwrap()], flags].concat();
    Daemon::start(wsmon(), flags).unwrap()
}

fn uid(number: u32, separator: char) -> String {
    format!("2c48913c-b29f-11e7-9350-{number:012x}").replace('-', &separator.to_string())
}

/// Pods as both drivers and both runtimes name them.
fn pods() -> [String; 4] {
    [
        format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{ID}.scope",
            uid(1, '_')
        ),
        format!("kubepods/burstable/pod{}/{ID}", uid(2, '-')),
        format!(
            "kubelet.slice/kubelet-kubepods-pod{}.slice/crio-{ID}.scope",
            uid(3, '_')
        ),
        format!(
            "kubepods2.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope",
            uid(4, '_')
        ),
    ]
}

#[test]
#[ignore = "needs root: makes cgroups and attaches programs"]
fn connections_have_the_workload_of_their_pod_container_or_unit() {
    let others = [
        "system.slice/ch\\x20at.service".to_owned(),
        format!("docker/{ID}"),
        "plain".to_owned(),
        format!("kubepods3.slice/kubepods-pod{}.slice", uid(9, '_')),
    ];
    let paths = [&pods()[..], &others].concat();
    let mut host = Host::start(&paths, &[]);
    let workloads = [
        ("shop", "chat", 3.0),
        ("game", "chat", 1.0),
        ("", "ch at.service", 1.0),
        ("", &ID[..12], 1.0),
        // No names in the path, and a pod without a directory of logs.
        ("", "unknown", 2.0),
        ("", "other", 0.0),
    ];
    for (namespace, workload, expected) in workloads {
        host.wait_for_open(namespace, workload, expected);
    }
    // A counter appears when the lookup has ended, even if it found nothing.
    let opened = wait_until("all openings", LIMIT, || host.metric(OPENED, &[]) == 8.0);
    opened.unwrap_or_else(|error| panic!("{error}\n{}", host.daemon.log()));
    for (namespace, workload, expected) in workloads {
        let labels = [("namespace", namespace), ("workload", workload)];
        assert_eq!(host.metric(OPENED, &labels), expected, "{workload}");
    }

    // The old pods end, and their counts remain.
    let last = host.peers.split_off(2);
    host.peers = last;
    host.wait_for_open("shop", "chat", 1.0);
    let chat = [("namespace", "shop"), ("workload", "chat")];
    assert_eq!(host.metric(OPENED, &chat), 3.0);
    assert_eq!(host.metric(CLOSED, &chat), 2.0);
    let ended = host.metric("wsmon_connection_duration_seconds_count", &chat);
    assert_eq!((ended, host.metric(CLOSED, &[])), (2.0, 2.0));
    assert_eq!(host.metric("wsmon_workloads_over_limit_total", &[]), 0.0);
}

#[test]
#[ignore = "needs root: makes cgroups and attaches programs"]
fn workloads_beyond_the_limit_are_other_and_counted() {
    let host = Host::start(&pods(), &["--max-workloads", "1"]);
    let opened = wait_until("all openings", LIMIT, || host.metric(OPENED, &[]) == 4.0);
    opened.unwrap_or_else(|error| panic!("{error}\n{}", host.daemon.log()));
    let other = host.metric(CONNECTIONS, &[("workload", "other")]);
    let named = host.metric(CONNECTIONS, &[("workload", "chat")]);
    // Whichever came first has the only place.
    assert!(
        [(1.0, 3.0), (3.0, 1.0)].contains(&(named, other)),
        "{named} and {other}"
    );
    assert_eq!(host.metric("wsmon_workloads_over_limit_total", &[]), other);
}

#[test]
#[ignore = "needs root: makes cgroups and attaches programs"]
fn after_a_restart_older_connections_have_their_workload() {
    let mut host = Host::start(&pods(), &[]);
    // Below the root, sock_diag is not used: a connection is known from its next packet on.
    let outer = host.groups.last().unwrap().as_str().to_owned();
    host.daemon = run(&host.files, &["--cgroup", &outer]);
    assert_eq!(host.metric(CONNECTIONS, &[]), 0.0);
    for peer in &mut host.peers {
        peer.exchange();
    }
    host.wait_for_open("shop", "chat", 3.0);
    host.wait_for_open("game", "chat", 1.0);
    // At the root, sock_diag finds them, silent as they are.
    host.daemon = run(&host.files, &[]);
    host.wait_for_open("shop", "chat", 3.0);
    host.wait_for_open("game", "chat", 1.0);
    assert_eq!(host.metric(CONNECTIONS, &[]), 4.0);
    assert_eq!(host.metric(OPENED, &[]), 0.0, "they are older");
}
