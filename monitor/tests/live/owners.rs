//! The owner of a connection in every output: cgroups named as the kubelet names them, pods by the
//! directories of their logs, hostile names.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
};

use lab::{Lab, Namespace, wait_for, wait_until};
use serde_json::{Value, json};

use crate::{
    access_log::LogFile,
    backend::Backend,
    cgroup_tree::CgroupTree,
    control::get,
    stage::{SOON, Watch, fresh_port},
    viewer::reported,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The cgroup of a pod's container below the root of a driver, with `UID` for the pod's uid and `U_I_D`
/// for the same with underscores; the name of the pod; its workload.
const PODS: [(&str, &str, &str); 4] = [
    // containerd with the systemd driver.
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
        "chat-6d4cf56db6-x7k2p",
        "chat",
    ),
    // CRI-O with the systemd driver.
    (
        "kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope",
        "chat-db-0",
        "chat-db",
    ),
    // The cgroupfs driver, with names as in cgroup v1.
    ("kubepods/burstable/podUID/ID", "feed-x7k2p", "feed"),
    // The runtime and the kubelet with different drivers.
    (
        "system.slice/containerd.service/kubepods-podU_I_D.slice:cri-containerd:ID",
        "gateway",
        "gateway",
    ),
];

/// The server of a pod, in the pod's cgroup, and a client of it.
/// Fields are dropped in this order.
struct Pod {
    backend: Backend,
    client: TcpStream,
    /// Empty once the server is gone.
    cgroup: CgroupTree,
    port: u16,
    uid: String,
}

impl Pod {
    fn start(lab: &Lab, number: usize, port: u16) -> Self {
        let uid = format!("2c48913c-b29f-11e7-9350-0209681477{number:02}");
        let path = PODS[number].0.replace("U_I_D", &uid.replace('-', "_"));
        let path = path.replace("UID", &uid).replace("ID", ID);
        let cgroup = CgroupTree::new(&path);
        let addr = lab.server_addr(port);
        let backend = Backend::start_in(&cgroup.leaf(), lab.server_ns(), addr);
        let client = connect(lab, addr);
        Self {
            cgroup,
            backend,
            client,
            port,
            uid,
        }
    }
}

#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn the_pod_of_a_connection_is_in_every_output_with_every_driver() {
    let lab = Lab::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path().to_str().unwrap();
    let ports = PODS.map(|_| fresh_port());
    let each = ports.map(|port| port.to_string());
    let mut flags = vec!["--lb-timeout", "3s", "--pod-logs", folder];
    flags.extend(each.iter().flat_map(|port| ["--port", port]));
    let access_log = LogFile::new();
    let access_flags = access_log.flags();
    flags.extend(access_flags.each_ref().map(String::as_str));
    let mut watch = Watch::start(&flags);
    let control = watch.daemon.control().to_owned();
    let pods: Vec<_> = (0..PODS.len())
        .map(|number| {
            let pod = Pod::start(&lab, number, ports[number]);
            let name = format!("shop_{}_{}", PODS[number].1, pod.uid);
            fs::create_dir(logs.path().join(name)).unwrap();
            pod
        })
        .collect();

    let netns = netns_of(lab.server_ns());
    let expected: Vec<_> = pods
        .iter()
        .zip(PODS)
        .map(|(pod, (_, name, workload))| {
            json!({
                "cgroup": pod.cgroup.path(), "container": ID, "pod": pod.uid, "pod_namespace": "shop",
                "pod_name": name, "workload": workload, "pid": pod.backend.id(), "netns": netns,
            })
        })
        .collect();

    // A walk through the processes may be put off for a second.
    let listed = wait_for("all owners", SOON, || {
        let listed = pods.iter().map(|pod| record_on(&control, pod.port));
        let listed: Vec<Value> = listed.collect();
        let complete = |(record, expected): (&Value, &Value)| has(&record["owner"], expected);
        listed.iter().zip(&expected).all(complete).then_some(listed)
    })
    .unwrap_or_else(|error| panic!("{error}: {}", reported(&control, &["list", "--json"])));
    let table = reported(&control, &["list"]);
    for (record, (_, name, workload)) in listed.iter().zip(PODS) {
        assert!(table.contains(&format!("  shop/{name} ")), "{table}");
        let cookie = record["cookie"].as_str().unwrap();
        let page = reported(&control, &["inspect", cookie]);
        let line = format!("  pod        shop/{name}, workload {workload}, uid ");
        assert!(page.contains(&line), "{page}");
        let object = reported(&control, &["inspect", cookie, "--json"]);
        let object: Value = serde_json::from_str(&object).unwrap();
        assert_eq!(object["owner"], record["owner"]);
    }

    let alerts: Vec<_> = pods
        .iter()
        .map(|pod| watch.verdict(pod.client.local_addr().unwrap(), "expired", SOON))
        .collect();
    for (alert, expected) in alerts.iter().zip(&expected) {
        assert!(has(&alert.json["conn"], expected), "{}", alert.json);
    }
    let standing = get(&control, "/v1/alerts");
    let standing: Vec<Value> = standing
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for alert in &alerts {
        let conn = &alert.json["conn"];
        let same = standing
            .iter()
            .find(|it| it["conn"]["cookie"] == conn["cookie"]);
        assert_eq!(&same.unwrap()["conn"], conn);
    }

    let (cgroups, backends): (Vec<_>, Vec<_>) = pods
        .into_iter()
        .map(|pod| ((pod.cgroup, pod.client), pod.backend))
        .unzip();
    for backend in backends {
        backend.kill();
    }
    watch.wait_for_metric("wsmon_connections_closed_total", &[], PODS.len() as f64);
    drop(cgroups);
    let ended = reported(&control, &["list", "--ended", "--json"]);
    for (record, expected) in listed.iter().zip(&expected) {
        let is_it = |it: &Value| it["cookie"] == record["cookie"];
        let mut ended = ended
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let owner = &ended.find(is_it).unwrap()["owner"];
        assert!(has(owner, expected), "{owner}");
    }
    for line in access_log.lines_of_all(&watch, PODS.len()) {
        let number = listed.iter().position(|it| it["cookie"] == line["cookie"]);
        assert!(has(&line["owner"], &expected[number.unwrap()]), "{line}");
    }
}

/// Its cgroup is not looked up before it ends.
#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn the_access_log_names_the_pod_of_a_connection_that_nobody_looked_at() {
    let lab = Lab::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let (port, log) = (fresh_port(), LogFile::new());
    let flags = log.flags();
    let watch = Watch::start(&[
        "--port",
        &port.to_string(),
        "--pod-logs",
        logs.path().to_str().unwrap(),
        &flags[0],
        &flags[1],
    ]);
    let pod = Pod::start(&lab, 0, port);
    fs::create_dir(logs.path().join(format!("shop_{}_{}", PODS[0].1, pod.uid))).unwrap();
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    drop(pod.client);
    let line = log.lines_of_all(&watch, 1).remove(0);
    let expected = json!({"pod_namespace": "shop", "pod_name": PODS[0].1, "workload": PODS[0].2});
    assert!(has(&line["owner"], &expected), "{line}");
    pod.backend.kill();
}

#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn without_the_logs_of_pods_their_names_are_null_and_counted() {
    let lab = Lab::new().unwrap();
    let port = fresh_port();
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path().to_str().unwrap().to_owned();
    let mut watch = Watch::start(&["--port", &port.to_string(), "--pod-logs", &folder]);
    watch.allow("cannot read the names of pods from ");
    // A missing directory is refused at the start.
    logs.close().unwrap();
    let control = watch.daemon.control().to_owned();
    let pod = Pod::start(&lab, 0, port);
    let unnamed = json!({
        "container": ID, "pod": pod.uid, "pod_namespace": null, "pod_name": null, "workload": null,
    });
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    for _ in 0..2 {
        let owner = &record_on(&control, port)["owner"];
        assert!(has(owner, &unnamed), "{owner}");
    }
    let unknown = watch.metric("wsmon_owner_gaps_total", &[("reason", "pod_unknown")]);
    assert!(unknown >= 2.0, "{unknown}");
    let said = watch
        .daemon
        .log()
        .matches("cannot read the names of pods")
        .count();
    assert_eq!(said, 1);
    let table = reported(&control, &["list"]);
    assert!(table.contains(&format!("  {} ", &ID[..12])), "{table}");
    pod.backend.kill();
}

#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn connections_are_counted_by_pod_unit_and_process_also_when_they_have_ended() {
    let lab = Lab::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let ports = [0, 1].map(|_| fresh_port());
    let each = ports.map(|port| port.to_string());
    let mut flags = vec!["--pod-logs", logs.path().to_str().unwrap()];
    flags.extend(each.iter().flat_map(|port| ["--port", port]));
    let watch = Watch::start(&flags);
    let control = watch.daemon.control().to_owned();
    let pods = [0, 1].map(|number| {
        let pod = Pod::start(&lab, number, ports[number]);
        let name = format!("shop_{}_{}", PODS[number].1, pod.uid);
        fs::create_dir(logs.path().join(name)).unwrap();
        pod
    });
    let second = connect(&lab, lab.server_addr(ports[0]));
    let [scope, crio] = [
        format!("cri-containerd-{ID}.scope"),
        format!("crio-{ID}.scope"),
    ];
    let [first, other] = pods.each_ref().map(|pod| {
        let pid = pod.backend.id();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        format!("{} (pid {pid})", comm.trim_end())
    });
    // Nothing has named these pods yet.
    wait_until("a search to find the pod", SOON, || {
        let found = reported(&control, &["list", "--json", "--search", "SHOP/chat-db"]);
        found.lines().count() == 1
    })
    .unwrap();
    for (by, names) in [
        ("pod", ["shop/chat-6d4cf56db6-x7k2p", "shop/chat-db-0"]),
        ("unit", [&scope, &crio]),
        ("process", [&first, &other]),
    ] {
        let expected = [json!([names[0], 2, 0]), json!([names[1], 1, 0])];
        wait_for_groups(&control, by, &expected);
    }
    let table = reported(&control, &["list", "--by", "pod"]);
    assert!(table.lines().next().unwrap().ends_with(" POD"), "{table}");

    drop(second);
    watch.wait_for_metric("wsmon_connections_closed_total", &[], 1.0);
    let expected = [
        json!(["shop/chat-6d4cf56db6-x7k2p", 1, 1]),
        json!(["shop/chat-db-0", 1, 0]),
    ];
    wait_for_groups(&control, "pod", &expected);
    for pod in pods {
        pod.backend.kill();
    }
}

/// Waits for these names, numbers of open connections, and of those that ended. A walk through the processes may be
/// put off for a second.
fn wait_for_groups(control: &Path, by: &str, expected: &[Value]) {
    let mut last = Vec::new();
    let found = wait_for("the groups", SOON, || {
        let text = reported(control, &["list", "--json", "--by", by]);
        let groups = text.lines().map(|line| {
            let group: Value = serde_json::from_str(line).unwrap();
            json!([group["name"], group["open"], group["closed_in_minute"]])
        });
        last = groups.collect();
        (last == expected).then_some(())
    });
    found.unwrap_or_else(|error| panic!("{error}: by {by}: {last:?}"));
}

#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn a_hostile_cgroup_breaks_neither_a_line_nor_a_terminal() {
    let lab = Lab::new().unwrap();
    let port = fresh_port();
    let watch = Watch::start(&["--port", &port.to_string()]);
    let control = watch.daemon.control().to_owned();
    // A name is at most 255 bytes, a path 4 KiB.
    let hostile = "\x1b[2J\u{9b}\u{2028}\u{202e}a\"b.service";
    let cgroup = CgroupTree::new(&[hostile, &"x".repeat(255)].join("/"));
    let addr = lab.server_addr(port);
    let backend = Backend::start_in(&cgroup.leaf(), lab.server_ns(), addr);
    let _client = connect(&lab, addr);
    watch.wait_for_metric("wsmon_connections", &[], 1.0);
    let record = record_on(&control, port);
    assert_eq!(record["owner"]["unit"], hostile, "{record}");
    let cookie = record["cookie"].as_str().unwrap();
    let lines = |text: String, expected: usize| {
        assert_eq!(text.lines().count(), expected, "{text:?}");
        let is_safe =
            |c: char| c == '\n' || !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
        assert!(text.chars().all(is_safe), "{text:?}");
    };
    lines(reported(&control, &["list"]), 2);
    lines(reported(&control, &["list", "--json"]), 1);
    lines(reported(&control, &["inspect", cookie, "--json"]), 1);
    let page = reported(&control, &["inspect", cookie]);
    let count = page.lines().count();
    lines(page, count);
    backend.kill();
}

/// A client that says nothing after its request was accepted.
fn connect(lab: &Lab, server: SocketAddr) -> TcpStream {
    let client = lab.client_ns().run(|| TcpStream::connect(server));
    let mut client = client.unwrap().unwrap();
    client.write_all(wire::REQUEST).unwrap();
    client.read_exact(&mut [0; wire::RESPONSE.len()]).unwrap();
    client
}

/// The record of the only connection to a port.
fn record_on(control: &Path, port: u16) -> Value {
    let listener = port.to_string();
    let listed = wait_for("the connection", SOON, || {
        let listed = reported(control, &["list", "--json", "--listener", &listener]);
        (!listed.is_empty()).then_some(listed)
    });
    serde_json::from_str(&listed.unwrap()).unwrap()
}

/// Whether `object` has the fields of `expected`.
fn has(object: &Value, expected: &Value) -> bool {
    let expected = expected.as_object().unwrap();
    expected
        .iter()
        .all(|(field, value)| &object[field] == value)
}

fn netns_of(namespace: &Namespace) -> u64 {
    let file = Path::new("/run/netns").join(namespace.name());
    fs::metadata(file).unwrap().ino()
}
