//! `wsmon ports`, and what is reported if nobody listens on a watched port.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, symlink},
        },
    },
    path::Path,
    process::{Command, Output},
};

use lab::{Manner, Namespace, Process, wait_for};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use serde_json::Value;

use crate::{
    stage::{SOON, Stage, WSMON, Watch, fresh_port},
    viewer::{Viewer, reported},
};

#[test]
#[ignore = "needs root: network namespaces"]
fn each_worker_on_a_shared_port_is_listed_with_its_process_and_namespace() {
    let stage = Stage::new();
    let namespace = stage.lab.server_ns();
    let port = fresh_port();
    let folder = tempfile::tempdir().unwrap();
    let hostile = folder.path().join(OsStr::from_bytes(b"ev\x1b[2J\xff\nil"));
    symlink("/bin/sleep", &hostile).unwrap();
    let workers = [0, 1].map(|_| {
        let mut command = Command::new(&hostile);
        command.arg("120").stdin(shared(namespace, port));
        Process::spawn(&mut command).unwrap()
    });
    let pids: BTreeSet<u64> = workers.iter().map(|worker| worker.id().into()).collect();

    // Another process may hold a socket for a moment, between fork and exec.
    let sockets = wait_for("the workers", SOON, || {
        let sockets = sockets_on(port);
        let found = sockets.iter().filter_map(|socket| socket["pid"].as_u64());
        (found.collect::<BTreeSet<_>>() == pids).then_some(sockets)
    })
    .unwrap();
    let inode = fs::metadata(Path::new("/run/netns").join(namespace.name())).unwrap();
    assert_eq!(sockets.len(), 2);
    for socket in &sockets {
        assert_eq!(socket["comm"], "ev\x1b[2J\u{fffd}\nil", "{socket}");
        assert_eq!(socket["netns"], inode.ino(), "{socket}");
        assert_eq!(socket["local"], format!("0.0.0.0:{port}"), "{socket}");
    }

    let table = String::from_utf8(ports(&[]).stdout).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    let head = rows[0];
    assert!(head.starts_with("PORT"), "{head}");
    let of_workers = rows.iter().filter(|row| row.starts_with(&port.to_string()));
    assert_eq!(of_workers.count(), 2, "{table}");
    for row in rows {
        assert!(row.chars().count() <= 80, "{row}");
        assert!(!row.chars().any(char::is_control), "{row:?}");
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_port_on_which_nobody_listens_is_reported_until_somebody_does() {
    let stage = Stage::new();
    let wrong = fresh_port();
    let watch = stage.watch(&["--port", &wrong.to_string()]);
    let sockets = |port: &str| watch.metric("wsmon_listener_sockets", &[("listener", port)]);
    assert_eq!(
        (sockets(stage.port()), sockets(&wrong.to_string())),
        (1.0, 0.0)
    );
    let notice = format!("nobody listens on {wrong}");
    assert_eq!(readiness(&watch), format!("ready\n{notice}\n"));
    let log = wait_for("the notice", SOON, || {
        Some(watch.daemon.log()).filter(|log| log.contains(&notice))
    })
    .unwrap();
    assert_eq!(log.matches("nobody listens on ").count(), 1, "{log}");
    assert!(log.contains(&format!("  {notice}; ")), "{log}");

    let control = watch.daemon.control();
    let empty = format!("no connections; {notice}, see wsmon ports\n");
    assert_eq!(reported(control, &["list"]), empty);
    let frames = Viewer::start(control, &["--count", "1"]);
    let client = stage.client(0, "/heartbeat?every=1s", Manner::Responsive);
    frames.next();
    let (status, said) = frames.end();
    assert!(status.success(), "{said}");
    assert_eq!(said, format!("{notice}, see wsmon ports\n"));
    drop(client);

    let both = [0, 1].map(|_| shared(stage.lab.server_ns(), wrong));
    let listener = [("listener", &*wrong.to_string())];
    watch.wait_for_metric("wsmon_listener_sockets", &listener, 2.0);
    assert_eq!(readiness(&watch), "ready\n");
    drop(both);
    watch.wait_for_metric("wsmon_listener_sockets", &listener, 0.0);
    assert_eq!(readiness(&watch), format!("ready\n{notice}\n"));
}

/// The response of `/readyz`.
fn readiness(watch: &Watch) -> String {
    let url = format!("http://{}/readyz", watch.daemon.metrics_addr());
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let mut response = agent.get(url).call().unwrap();
    response.body_mut().read_to_string().unwrap()
}

/// A socket that listens on a port in a namespace, which others may share.
fn shared(namespace: &Namespace, port: u16) -> OwnedFd {
    let listening = namespace.run(|| {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        listen(&socket, 1)?;
        rustix::io::Result::Ok(socket)
    });
    listening.unwrap().unwrap()
}

fn sockets_on(port: u16) -> Vec<Value> {
    let lines = String::from_utf8(ports(&["--json"]).stdout).unwrap();
    let sockets = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let on_port = |socket: &Value| socket["port"] == port;
    sockets.filter(on_port).collect()
}

/// The status is 3 if a process is hidden even from root, as on a hardened host.
fn ports(args: &[&str]) -> Output {
    let output = Command::new(WSMON)
        .arg("ports")
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    output
}
