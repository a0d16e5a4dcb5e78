//! The lab leaves nothing behind, and cleans up after killed processes.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use lab::{Client, Lab, Manner, Process, Server};

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

#[test]
#[ignore = "needs root: network namespaces"]
fn dropping_the_lab_removes_its_namespaces_even_under_live_connections() {
    let lab = Lab::new().unwrap();
    let server = Server::start(lab.server_ns(), lab.server_addr(8080)).unwrap();
    let url = server.url("/quiet");
    let client = Client::connect(lab.client_ns(), lab.client_addr(0), &url, Manner::Deaf).unwrap();
    let names = [lab.client_ns(), lab.lb_ns(), lab.server_ns()].map(|ns| ns.name().to_owned());
    assert!(names.iter().all(|name| exists(name)));
    drop(lab);
    assert!(!names.iter().any(|name| exists(name)));
    drop((server, client));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn only_namespaces_of_dead_processes_are_removed() {
    let mut child = Command::new("true").spawn().unwrap();
    let dead = format!("wsmon-{}-0-client", child.id());
    child.wait().unwrap();
    let ip = |action: &str, name: &str| {
        let status = Command::new("ip").args(["netns", action, name]).status();
        assert!(status.unwrap().success());
    };
    ip("add", &dead);
    let alive = "wsmon-1-0-client";
    ip("add", alive);
    let lab = Lab::new().unwrap();
    assert!(!exists(&dead));
    assert!(exists(alive));
    ip("delete", alive);
    drop(lab);
}

#[test]
#[ignore = "needs root: network namespaces"]
fn two_labs_run_side_by_side() {
    let labs = [Lab::new().unwrap(), Lab::new().unwrap()];
    for lab in &labs {
        let server = Server::start(lab.server_ns(), lab.server_addr(8080)).unwrap();
        let url = server.url("/quiet");
        Client::connect(
            lab.client_ns(),
            lab.client_addr(0),
            &url,
            Manner::Responsive,
        )
        .unwrap();
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_program_inside_a_namespace_sees_only_that_network_and_dies_on_drop() {
    let lab = Lab::new().unwrap();
    let mut ip = lab.server_ns().command("ip");
    let output = ip.args(["-o", "addr"]).output().unwrap();
    let addresses = String::from_utf8(output.stdout).unwrap();
    assert!(addresses.contains("10.77.2.10"), "{addresses}");
    assert!(!addresses.contains("10.77.1.11"), "{addresses}");

    let mut sleep = lab.client_ns().command("sleep");
    let process = Process::spawn(sleep.arg("60").stdout(Stdio::null())).unwrap();
    let entry = format!("/proc/{}", process.id());
    assert!(Path::new(&entry).exists());
    drop(process);
    assert!(!Path::new(&entry).exists());
}

#[test]
#[ignore = "needs root: network namespaces"]
fn work_in_a_namespace_leaves_the_caller_outside() {
    let lab = Lab::new().unwrap();
    let interfaces = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let outside = interfaces();
    let inside = lab.server_ns().run(interfaces).unwrap();
    assert!(inside.contains("uplink"));
    assert_eq!(outside.contains("uplink"), interfaces().contains("uplink"));
    let answer = lab.client_ns().block_on(async { 6 * 7 }).unwrap();
    assert_eq!(answer, 42);
}
