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
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use lab::{Client, Lab, Manner, Message, Namespace, Process, Proxy, wait_for};
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};
use serde_json::{Value, json};

use crate::{
    stage::{SOON, Stage, WSMON, fresh_port},
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
    assert_eq!(sockets.len(), 2);
    for socket in &sockets {
        assert_eq!(socket["comm"], "ev\x1b[2J\u{fffd}\nil", "{socket}");
        assert_eq!(socket["netns"], netns_of(namespace), "{socket}");
        assert_eq!(socket["local"], format!("0.0.0.0:{port}"), "{socket}");
    }

    let table = String::from_utf8(ports(&[]).stdout).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    let head = rows[0];
    assert!(head.trim().starts_with("PORT"), "{head}");
    let of_workers = rows
        .iter()
        .filter(|row| row.trim().starts_with(&port.to_string()));
    assert_eq!(of_workers.count(), 2, "{table}");
    for row in rows {
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
    assert_eq!(
        watch.daemon.get("/readyz").unwrap(),
        format!("ready\n{notice}\n")
    );
    let log = wait_for("the notice", SOON, || {
        Some(watch.daemon.log()).filter(|log| log.contains(&notice))
    })
    .unwrap();
    assert_eq!(log.matches("nobody listens on ").count(), 1, "{log}");
    assert!(log.contains(&format!("  {notice}; ")), "{log}");
    let place = |text: &str| log.find(text).unwrap();
    let start = place("  control socket ");
    assert!(start < place(&notice), "it delays the start: {log}");

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
    assert_eq!(watch.daemon.get("/readyz").unwrap(), "ready\n");
    drop(both);
    watch.wait_for_metric("wsmon_listener_sockets", &listener, 0.0);
    assert_eq!(
        watch.daemon.get("/readyz").unwrap(),
        format!("ready\n{notice}\n")
    );
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_forwarded_port_leads_to_the_server_behind_it_beside_a_running_daemon() {
    let stage = Stage::new();
    let published = fresh_port();
    let (port, to) = (stage.port(), stage.server.addr());
    let mut nft = stage.lab.lb_ns().command("nft");
    nft.arg(format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority dstnat; \
         tcp dport {{ {published}, 1 }} dnat to {to}; }}; }}"
    ));
    assert!(nft.status().unwrap().success());

    let [socket] = <[Value; 1]>::try_from(sockets_on(to.port())).unwrap();
    let me = u64::from(std::process::id());
    assert_eq!(socket["pid"], me, "{socket}");
    let rule = |ports: String| {
        json!({
            "ports": ports, "address": null, "to_address": to.ip(), "by": "nftables",
            "netns": netns_of(stage.lab.lb_ns())
        })
    };
    let rules = [rule(published.to_string()), rule("1".to_owned())];
    let found = socket["published"].as_array().unwrap();
    assert_eq!(found.len(), 2, "{socket}");
    assert!(rules.iter().all(|rule| found.contains(rule)), "{socket}");
    assert_eq!(socket["protocol"], Value::Null);
    assert_eq!(socket["watched_seconds"], Value::Null);

    let watch = stage.watch(&["--port", &published.to_string()]);
    let comm = socket["comm"].as_str().unwrap();
    let notice = format!(
        "  nobody listens on {published}; nftables forwards {published} to {to}, on which {comm} (pid {me}) \
         listens in network namespace {}",
        socket["netns"]
    );
    wait_for("the notice", SOON, || {
        watch.daemon.log().contains(&notice).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {notice}\n{}", watch.daemon.log()));

    let url = format!("ws://{}/quiet", stage.lab.lb_addr(published));
    let (seen, clients) = watched(&[to.port()], || connect(&stage.lab, &url));
    assert_eq!(seen[0]["protocol"], "websocket", "{seen:?}");
    assert!(seen[0]["watched_seconds"].as_f64() >= Some(1.0), "{seen:?}");
    let server = [("listener", port)];
    watch.wait_for_metric("wsmon_connections_opened_total", &server, clients as f64);
    let table = String::from_utf8(ports(&[]).stdout).unwrap();
    let rows = table.lines().filter(|row| row.trim().starts_with(port));
    let published = format!("  1,{published}  ");
    assert!(
        rows.clone().count() == 1 && rows.clone().all(|row| row.contains(&published)),
        "{table}"
    );
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_ruleset_that_is_too_large_to_follow_is_reported_and_leaves_the_rest_unknown() {
    let stage = Stage::new();
    let port = stage.server.addr().port();
    let published = || sockets_on(port)[0]["published"].clone();
    wait_for("all rules", SOON, || {
        (published() == json!([])).then_some(())
    })
    .unwrap();
    let ports_to: Vec<_> = (1..=500).map(|port| port.to_string()).collect();
    let set = ports_to.join(", ");
    let mut nft = stage.lab.lb_ns().command("nft");
    nft.arg(format!(
        "table ip nat {{ chain next {{ tcp dport {{ {set} }} redirect to 7; }}; \
         chain pre {{ type nat hook prerouting priority dstnat; tcp dport {{ {set} }} jump next; }}; }}"
    ));
    assert!(nft.status().unwrap().success());
    assert_eq!(published(), Value::Null);
    let said = String::from_utf8(ports(&[]).stderr).unwrap();
    assert!(
        said.contains("; the rules lead to one another too often"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn proxies_and_their_backend_are_each_seen_with_their_process() {
    const IDLE: Duration = Duration::from_secs(60);
    let stage = Stage::new();
    let namespace = stage.lab.server_ns();
    let at = || stage.lab.server_addr(fresh_port());
    let (by_nginx, by_haproxy, unused) = (at(), at(), at());
    let backend = stage.server.addr();
    let nginx = Proxy::nginx(namespace, by_nginx, backend, IDLE).unwrap();
    let haproxy = Proxy::haproxy(namespace, by_haproxy, backend, IDLE).unwrap();
    let _unused = shared(namespace, unused.port());
    let ports = [by_nginx, by_haproxy, backend, unused].map(|at| at.port());
    let (seen, _) = watched(&ports, || {
        connect(&stage.lab, &nginx.url("/quiet")) + connect(&stage.lab, &haproxy.url("/quiet"))
    });
    let found: Vec<_> = seen
        .iter()
        .map(|socket| (socket["comm"].as_str().unwrap(), &socket["protocol"]))
        .collect();
    let me = fs::read_to_string("/proc/self/comm").unwrap();
    let websocket = &Value::from("websocket");
    assert_eq!(
        found,
        [
            ("nginx", websocket),
            ("haproxy", websocket),
            (me.trim_end(), websocket),
            (me.trim_end(), &Value::Null),
        ]
    );
}

/// Connects and leaves again. Returns the number of connections.
fn connect(lab: &Lab, url: &str) -> usize {
    let client = Client::connect(lab.client_ns(), lab.client_addr(0), url, Manner::Responsive);
    client.unwrap().send(Message::Close(None)).unwrap();
    1
}

/// The sockets on these ports, in this order, after `wsmon ports --watch` during which `traffic` was repeated, and
/// the sum of what it returned.
fn watched(ports: &[u16], mut traffic: impl FnMut() -> usize) -> (Vec<Value>, usize) {
    let mut command = Command::new(WSMON);
    command
        .args(["ports", "--json", "--watch", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = Process::spawn(&mut command).unwrap();
    let stdout = process.child_mut().stdout.take().unwrap();
    let output = thread::spawn(|| std::io::read_to_string(stdout).unwrap());
    let mut sum = 0;
    while process.try_wait().unwrap().is_none() {
        sum += traffic();
    }
    let output = output.join().unwrap();
    let sockets: Vec<Value> = parsed(&output).collect();
    let on = |port: &u16| sockets.iter().find(|socket| socket["port"] == *port);
    let found = ports.iter().map(|port| on(port).unwrap().clone());
    (found.collect(), sum)
}

/// The inode of a namespace.
fn netns_of(namespace: &Namespace) -> u64 {
    let file = Path::new("/run/netns").join(namespace.name());
    fs::metadata(file).unwrap().ino()
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
    let on_port = |socket: &Value| socket["port"] == port;
    parsed(&lines).filter(on_port).collect()
}

fn parsed(lines: &str) -> impl Iterator<Item = Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
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
