//! The container image in podman, with exactly what the committed Kubernetes manifest gives a pod.
//!
//! `cargo xtask image --test` builds the image and runs these tests.

mod container;
mod network;
mod pod;

use std::{collections::BTreeSet, fs, process, time::Duration};

use lab::{Client, Lab, Manner, Process, Server, wait_until};
use serde_json::{Value, json};

use container::{Ended, Podman};
use network::PodNetwork;
use pod::{Pod, Seccomp};

/// Far more than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Exit status 3: the kernel or the privileges are insufficient.
const PREREQUISITE: i32 = 3;

/// The port that the manifest watches.
const WATCHED: u16 = 8080;

/// What wsmon does not start without.
const REQUIRED: [&str; 3] = ["BPF", "PERFMON", "NET_ADMIN"];

#[test]
#[ignore = "needs root: runs a container, makes network namespaces"]
fn a_pod_finds_an_older_connection_and_reports_its_death_to_a_host_by_name() {
    let lab = Lab::new().unwrap();
    let server = Server::start(lab.server_ns(), lab.server_addr(WATCHED)).unwrap();
    let url = server.url("/stream?every=200ms&size=16");
    let from = lab.client_addr(0);
    let client = Client::connect(lab.client_ns(), from, &url, Manner::Responsive).unwrap();
    // The server is a thread of this process, which is elsewhere. The container can't see the mounts of
    // namespaces, so that a process has to lead to this one, as in a pod.
    let mut inhabitant = lab.server_ns().command("sleep");
    let _inhabitant = Process::spawn(inhabitant.arg("600")).unwrap();
    let peer = client.local_addr().to_string();

    let network = PodNetwork::new();
    let mut pod = Pod::of_the_manifest();
    pod.env
        .push(("WSMON_WEBHOOK".to_owned(), network.webhook()));
    let container = Podman::new().start(&pod, &network);
    wait_until("wsmon to be ready", LIMIT, || {
        container.assert_running();
        network.is_ready()
    })
    .unwrap();
    let list = container.exec(&["list", "-o", "json"]);
    assert!(list.contains(&peer), "{peer}: {list}\n{}", container.log());

    lab.black_hole(from).unwrap();
    let mut alert = Value::Null;
    wait_until("the alert", LIMIT, || {
        let mut alerts = network.posted().into_iter();
        let found = alerts.find(|alert| alert["conn"]["peer"] == json!(peer));
        alert = found.unwrap_or_default();
        alert["kind"] == "black_holed"
    })
    .unwrap_or_else(|error| panic!("{error}: {alert}\n{}", container.log()));
    assert_eq!(alert["alert"], "zombie", "{alert}");
    // The server is this process, in the PID namespace of the host.
    assert_eq!(alert["conn"]["pid"], json!(process::id()), "{alert}");
    assert!(network.has_resolved_the_webhook());
    let alerts = container.exec(&["alerts", "-o", "json"]);
    assert!(alerts.contains(&peer), "{alerts}");

    let stopped = container.stop();
    assert_eq!(stopped.status, 0, "{stopped}");
    assert!(stopped.text.contains("nothing is attached"), "{stopped}");
}

#[test]
#[ignore = "needs root: runs containers"]
fn without_a_required_capability_the_start_is_refused_and_names_it() {
    let podman = Podman::new();
    for missing in REQUIRED {
        let mut pod = Pod::of_the_manifest();
        pod.take(missing);
        // CAP_BPF and CAP_PERFMON were split from it, and it still grants them.
        pod.take("SYS_ADMIN");
        let refused = podman.run(&pod);
        assert_eq!(refused.status, PREREQUISITE, "{missing}: {refused}");
        let named = format!("CAP_{missing}: cannot ");
        let remedy = format!("--cap-add={missing};");
        assert!(
            refused.text.contains(&named) && refused.text.contains(&remedy),
            "{missing}: {refused}"
        );
    }
}

#[test]
#[ignore = "needs root: runs containers"]
fn without_an_optional_capability_the_check_names_what_is_not_seen() {
    let podman = Podman::new();
    for missing in ["SYS_ADMIN", "SYS_PTRACE"] {
        let mut pod = Pod::of_the_manifest();
        pod.take(missing);
        pod.seccomp = Seccomp::Unconfined;
        pod.args = vec!["check".to_owned()];
        let checked = podman.run(&pod);
        assert_eq!(checked.status, 0, "{missing}: {checked}");
        let row = format!("—    CAP_{missing}");
        let table = checked
            .text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let row = row.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(table.contains(&row), "{missing}: {checked}");
    }
}

#[test]
#[ignore = "needs root: runs containers"]
fn three_capabilities_are_enough_where_the_seccomp_profile_follows_cap_bpf() {
    let podman = Podman::new();
    let mut pod = Pod::of_the_manifest();
    pod.capabilities = REQUIRED.map(str::to_owned).into();
    pod.args = vec!["check".to_owned()];
    // podman's own profile follows CAP_SYS_ADMIN.
    let refused = podman.run(&pod);
    assert_eq!(refused.status, PREREQUISITE, "{refused}");
    assert!(
        refused
            .text
            .contains("the seccomp filter of this process refuses bpf(2)"),
        "{refused}"
    );
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("seccomp.json");
    fs::write(&profile, profile_that_follows_cap_bpf()).unwrap();
    pod.seccomp = Seccomp::Profile(profile);
    let checked = podman.run(&pod);
    assert_eq!(checked.status, 0, "{checked}");
    assert!(checked.text.contains("wsmon can run here"), "{checked}");
}

/// podman's default profile with the rule that Docker's has since version 23, and containerd's.
fn profile_that_follows_cap_bpf() -> String {
    let path = "/usr/share/containers/seccomp.json";
    let mut profile: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let rules = profile["syscalls"].as_array_mut().unwrap();
    for rule in rules.iter_mut() {
        rule["names"]
            .as_array_mut()
            .unwrap()
            .retain(|name| name != "bpf");
    }
    rules.retain(|rule| rule["names"] != json!([]));
    rules.push(json!({
        "names": ["bpf"],
        "action": "SCMP_ACT_ALLOW",
        "includes": { "caps": ["CAP_BPF"] },
    }));
    profile.to_string()
}

#[test]
#[ignore = "needs root: runs containers"]
fn with_no_new_privileges_only_root_gets_the_capabilities() {
    let podman = Podman::new();
    let mut pod = Pod::of_the_manifest();
    pod.args = vec!["check".to_owned()];
    pod.no_new_privileges = true;
    pod.user = "65532:65532".to_owned();
    let refused = podman.run(&pod);
    assert_eq!(refused.status, PREREQUISITE, "{refused}");
    assert!(
        refused.text.contains("allowPrivilegeEscalation: true"),
        "{refused}"
    );
    pod.user = "0:0".to_owned();
    let checked = podman.run(&pod);
    assert_eq!(checked.status, 0, "{checked}");
}

#[test]
#[ignore = "needs root: runs containers"]
fn what_of_the_host_is_missing_is_named() {
    let podman = Podman::new();
    let mut pod = Pod::of_the_manifest();
    pod.mounts
        .retain(|mount| mount.destination != "/host/cgroup");
    let refused = podman.run(&pod);
    assert_eq!(refused.status, PREREQUISITE, "{refused}");
    assert!(refused.text.contains("cgroup"), "{refused}");

    let mut pod = Pod::of_the_manifest();
    pod.host_pid = false;
    pod.args = vec!["check".to_owned()];
    let checked = podman.run(&pod);
    assert_eq!(checked.status, 0, "{checked}");
    assert!(checked.text.contains("hostPID: true"), "{checked}");

    let mut pod = Pod::of_the_manifest();
    pod.mounts.retain(|mount| mount.destination != "/run");
    let refused = podman.run(&pod);
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.text.contains("/run/wsmon.sock"), "{refused}");
}

#[test]
#[ignore = "needs root: reads the image"]
fn the_image_is_not_root_and_carries_version_and_licences() {
    let podman = Podman::new();
    let config = podman.inspect();
    assert_eq!(config["User"], "65532:65532", "{config}");
    assert_eq!(config["Entrypoint"], json!(["/usr/bin/wsmon"]), "{config}");
    let label = |name: &str| {
        let name = format!("org.opencontainers.image.{name}");
        config["Labels"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{config}");
    assert!(label("licenses").contains("LGPL-2.1-or-later"), "{config}");
    assert_eq!(
        label("created").len(),
        "2026-01-01T00:00:00Z".len(),
        "{config}"
    );

    let files: BTreeSet<String> = podman.files().into_iter().collect();
    for promised in [
        "etc/ssl/certs/ca-certificates.crt",
        "usr/share/common-licenses/LGPL-2.1",
        "usr/share/doc/wsmon/LICENSE-MIT",
        "usr/share/doc/wsmon/THIRD-PARTY.txt",
        "usr/share/doc/wsmon/wsmon.cdx.json",
    ] {
        assert!(files.contains(promised), "{promised}: {files:?}");
    }
    // Nothing that could be executed besides wsmon, and no shell.
    let programs: Vec<_> = files.iter().filter(|file| file.contains("bin/")).collect();
    let programs: Vec<_> = programs
        .iter()
        .filter(|file| !file.ends_with('/'))
        .collect();
    assert_eq!(programs, [&"usr/bin/wsmon"]);
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}:\n{}", self.status, self.text)
    }
}
