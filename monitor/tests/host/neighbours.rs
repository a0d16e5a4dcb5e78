//! Other programs on the same hook.

use std::time::Duration;

use lab::{Daemon, Metrics};

use crate::{
    PREREQUISITE, RUN,
    group::Group,
    only_line, output,
    peer::Peer,
    program::{Hook, LONG, NAME, Program, Sharing},
    wsmon,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Where the other program is attached, relative to wsmon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SameCgroup,
    Child,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    OtherFirst,
    WsmonFirst,
}

#[test]
#[ignore = "needs root: makes cgroups, attaches programs"]
fn every_packet_is_counted_with_other_programs_that_drop_some() {
    for place in [Place::SameCgroup, Place::Child] {
        for order in [Order::OtherFirst, Order::WsmonFirst] {
            counts_beside(place, order, Sharing::AllowMulti);
        }
    }
}

#[test]
#[ignore = "needs root: makes cgroups, attaches programs"]
fn an_exclusive_program_in_a_child_does_not_hide_its_packets() {
    for order in [Order::OtherFirst, Order::WsmonFirst] {
        counts_beside(Place::Child, order, Sharing::Exclusive);
    }
}

/// Small frames pass both programs. Long ones are dropped by the other program and counted by
/// wsmon.
fn counts_beside(place: Place, order: Order, sharing: Sharing) {
    let what = format!("{place:?}, {order:?}, {sharing:?}");
    let watched = Group::new();
    let child = watched.child("app");
    let filtered = match place {
        Place::SameCgroup => &watched,
        Place::Child => &child,
    };
    let attach_other = || {
        for hook in [Hook::Ingress, Hook::Egress] {
            Program::dropping_long_packets(hook).attach(filtered.path(), hook, sharing);
        }
    };
    let mut daemon = None;
    let mut peer = Peer::connect(&child, |port| {
        if order == Order::OtherFirst {
            attach_other();
        }
        let port = port.to_string();
        let flags = ["--port", &port, "--cgroup", watched.as_str()];
        daemon = Some(Daemon::start(wsmon(), flags).unwrap());
        if order == Order::WsmonFirst {
            attach_other();
        }
    });
    let daemon = daemon.unwrap();

    peer.exchange();
    await_frames(&daemon, 1, &what);
    peer.server_sends(2 * LONG);
    peer.client_sends(2 * LONG);
    await_frames(&daemon, 2, &what);
    assert_eq!(peer.has_unread(), [false, false], "{what}: not dropped");
    // Retransmissions do not count as new frames.
    assert_eq!(
        text_frames(&daemon.metrics().unwrap()),
        [2.0, 2.0],
        "{what}"
    );
}

fn await_frames(daemon: &Daemon, each_way: u32, what: &str) {
    let what = format!("{each_way} frames each way ({what})");
    lab::wait_until(&what, LIMIT, || {
        text_frames(&daemon.metrics().unwrap()) == [f64::from(each_way); 2]
    })
    .unwrap();
}

/// Received and sent.
fn text_frames(metrics: &Metrics) -> [f64; 2] {
    ["rx", "tx"].map(|direction| {
        let labels = [("direction", direction), ("opcode", "text")];
        metrics.sum("wsmon_frames_total", &labels)
    })
}

#[test]
#[ignore = "needs root: makes cgroups, attaches programs"]
fn a_program_that_excludes_others_is_named() {
    let group = Group::new();
    let program = Program::dropping_long_packets(Hook::Egress);
    program.attach(group.path(), Hook::Egress, Sharing::Exclusive);

    let line = only_line(
        &output(&[&RUN[..], &["--cgroup", group.as_str()]].concat()),
        PREREQUISITE,
    );
    assert!(line.contains(&format!("program {NAME} (id ")), "{line}");
    assert!(line.contains("without BPF_F_ALLOW_MULTI"), "{line}");
    let remedy = format!("bpftool cgroup detach {} egress id ", group.as_str());
    assert!(line.contains(&remedy), "{line}");

    let check = output(&["check", "--cgroup", group.as_str()]);
    assert_eq!(check.status.code(), Some(PREREQUISITE));
    let table = String::from_utf8(check.stdout).unwrap();
    let row = table.lines().find(|line| line.contains("other programs"));
    assert!(row.is_some_and(|row| row.contains(NAME)), "{table}");
}

#[test]
#[ignore = "needs root: makes cgroups, attaches programs"]
fn a_program_that_wsmon_would_replace_stays_attached() {
    for (sharing, reason) in [
        (Sharing::AllowOverride, "wsmon would take its place"),
        (Sharing::Exclusive, "without BPF_F_ALLOW_MULTI"),
    ] {
        let parent = Group::new();
        let program = Program::dropping_long_packets(Hook::Ingress);
        program.attach(parent.path(), Hook::Ingress, sharing);
        let child = parent.child("app");
        let flags = [&RUN[..], &["--cgroup", child.as_str()]].concat();
        let line = only_line(&output(&flags), PREREQUISITE);
        assert!(line.contains(reason), "{line}");
        assert!(line.contains(parent.as_str()), "{line}");
    }
}

#[test]
#[ignore = "needs root: makes cgroups, attaches programs"]
fn the_check_names_other_programs_on_the_hook() {
    let group = Group::new();
    let program = Program::dropping_long_packets(Hook::Ingress);
    program.attach(group.path(), Hook::Ingress, Sharing::AllowMulti);
    let check = output(&["check", "--cgroup", group.as_str()]);
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{table}");
    let row = table.lines().find(|line| line.contains("other programs"));
    assert!(row.is_some_and(|row| row.contains(NAME)), "{table}");
}
