//! In a cgroup namespace, as in a container.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::{PREREQUISITE, RUN, group::Group, only_line, peer::Peer, wsmon};
use lab::{Daemon, LabError};
use monitor::kernel::host::cgroup::find_cgroup2;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// A cgroup namespace and a mount namespace, entered anew by each command.
struct Container {
    /// Contains the mount points and the script.
    folder: TempDir,
    /// The root of the cgroup namespace.
    group: Group,
}

/// How much of the host's hierarchy a container sees in addition to its own part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Hidden,
    /// Bind-mounted read-only, as with `-v /sys/fs/cgroup:/host/cgroup:ro`.
    Mounted,
}

/// Writes an executable file. By another process: a file that this one holds open for writing is open in
/// each program that another test starts meanwhile, until its exec, and cannot be executed as long.
fn install(script: &str, path: &Path) {
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = install.stdin.take().unwrap();
    pipe.write_all(script.as_bytes()).unwrap();
    drop(pipe);
    assert!(install.wait().unwrap().success());
}

impl Container {
    fn new(host: Host) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let container = Self {
            folder,
            group: Group::new(),
        };
        for place in [container.own(), container.host()] {
            fs::create_dir(place).unwrap();
        }
        let root = find_cgroup2().unwrap();
        let bind = match host {
            Host::Hidden => String::new(),
            Host::Mounted => format!(
                "mount --bind '{root}' '{host}' && mount -o remount,bind,ro '{host}' && ",
                root = root.display(),
                host = container.host().display(),
            ),
        };
        let inside = format!(
            "{bind}umount -l '{root}' && mount -t cgroup2 none '{own}' && exec '{wsmon}' \"$@\"",
            root = root.display(),
            own = container.own().display(),
            wsmon = wsmon().display(),
        );
        let script = format!(
            "#!/bin/sh\n{enter} && exec unshare --cgroup --mount sh -c '{inside}' wsmon \"$@\"\n",
            enter = container.group.enter(),
            inside = inside.replace('\'', "'\\''"),
        );
        install(&script, &container.wsmon());
        container
    }

    /// Path of `wsmon` inside.
    fn wsmon(&self) -> PathBuf {
        self.folder.path().join("wsmon")
    }

    /// Where the container sees its own part of the hierarchy.
    fn own(&self) -> PathBuf {
        self.folder.path().join("own")
    }

    /// Where it may see the host's hierarchy.
    fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(self.wsmon()).args(arguments).output().unwrap()
    }

    fn daemon(&self, port: u16, cgroup: Option<&Path>) -> Result<Daemon, LabError> {
        let port = port.to_string();
        let mut flags = vec!["--port", &port];
        if let Some(cgroup) = cgroup {
            flags.extend(["--cgroup", cgroup.to_str().unwrap()]);
        }
        Daemon::start(&self.wsmon(), flags)
    }
}

#[test]
#[ignore = "needs root: makes namespaces and cgroups"]
fn without_the_hosts_hierarchy_it_is_refused_with_every_remedy() {
    let container = Container::new(Host::Hidden);
    let line = only_line(&container.output(&RUN), PREREQUISITE);
    let own = container.own();
    let only_it = format!("--cgroup {}", own.display());
    for part in [
        "cgroup namespace",
        "--cgroup /host/cgroup",
        "--cgroupns=host",
        &only_it,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }

    let check = container.output(&["check"]);
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(PREREQUISITE), "{table}");
    assert!(table.contains("no   cgroup v2"), "{table}");
    assert!(
        table.contains("remedy: start the container with"),
        "{table}"
    );
}

#[test]
#[ignore = "needs root: makes namespaces and cgroups, attaches programs"]
fn a_read_only_mount_of_the_hosts_hierarchy_shows_all_sockets() {
    let container = Container::new(Host::Mounted);
    let check = container.output(&["check"]);
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{table}");
    let row = format!(
        "{}, the root: all sockets of this host",
        container.host().display()
    );
    assert!(table.contains(&row), "{table}");

    // Found automatically and by the flag.
    for cgroup in [None, Some(container.host())] {
        let elsewhere = Group::new();
        let mut daemon = None;
        let mut peer = Peer::connect(&elsewhere, |port| {
            daemon = Some(container.daemon(port, cgroup.as_deref()).unwrap());
        });
        peer.exchange();
        let daemon = daemon.unwrap();
        lab::wait_until("the connection of another cgroup", LIMIT, || {
            opened(&daemon) == 1.0
        })
        .unwrap();
        assert!(
            !daemon.log().contains("only sockets of"),
            "{}",
            daemon.log()
        );
    }
}

#[test]
#[ignore = "needs root: makes namespaces and cgroups, attaches programs"]
fn only_its_own_part_is_watched_and_reported_if_it_is_named() {
    let container = Container::new(Host::Hidden);
    let own = container.own();
    let check = container.output(&["check", "--cgroup", own.to_str().unwrap()]);
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{table}");
    let row = format!("{}: only sockets of this cgroup and below", own.display());
    assert!(table.contains(&row), "{table}");

    let (inside, elsewhere) = (container.group.child("app"), Group::new());
    let seen = [&elsewhere, &inside].map(|group| {
        let mut daemon = None;
        let mut peer = Peer::connect(group, |port| {
            daemon = Some(container.daemon(port, Some(&own)).unwrap());
        });
        peer.exchange();
        (daemon.unwrap(), peer)
    });
    let line = format!("only sockets of cgroup {} and below", own.display());
    for (daemon, _) in &seen {
        assert!(daemon.log().contains(&line), "{}", daemon.log());
    }
    let [(elsewhere, _), (inside, _)] = &seen;
    lab::wait_until("the connection inside", LIMIT, || opened(inside) == 1.0).unwrap();
    // Its packets passed earlier.
    assert_eq!(opened(elsewhere), 0.0);
}

fn opened(daemon: &Daemon) -> f64 {
    daemon
        .metrics()
        .unwrap()
        .sum("wsmon_connections_opened_total", &[])
}
