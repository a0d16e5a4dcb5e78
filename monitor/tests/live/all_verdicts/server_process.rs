//! The lab's server in a process of its own, in the cgroup of a pod: this test program, started once more.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, stdin},
    net::SocketAddr,
    path::Path,
    process::{ChildStdout, Command, Stdio},
};

use lab::{Namespace, Process, Server};

/// The namespace, and the addresses to listen on.
const ORDER: &str = "WSMON_LIVE_SERVER";
/// The test that acts as the server if [`ORDER`] is set.
const SELF: &str = "all_verdicts::top_shows_every_verdict_and_every_alert_at_every_usual_size";
const READY: &str = "servers listen";
/// As `ps` and wsmon show it.
const NAME: &str = "chat-server";

/// It ends when the value is dropped.
pub(super) struct ServerProcess {
    _process: Process,
    /// It would end if it could not write.
    _stdout: BufReader<ChildStdout>,
}

/// Waits until it listens.
pub(super) fn start(cgroup: &Path, namespace: &Namespace, addrs: &[SocketAddr]) -> ServerProcess {
    let order = [namespace.name().to_owned()].into_iter();
    let order: Vec<String> = order
        .chain(addrs.iter().map(SocketAddr::to_string))
        .collect();
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""])
        .arg(cgroup)
        .arg(env::current_exe().unwrap())
        .args(["--exact", SELF, "--ignored", "--nocapture"])
        .env(ORDER, order.join(" "))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command).unwrap();
    let mut stdout = BufReader::new(process.child_mut().stdout.take().unwrap());
    let is_ready = stdout.by_ref().lines().any(|line| line.unwrap() == READY);
    assert!(is_ready, "the server has ended");
    ServerProcess {
        _process: process,
        _stdout: stdout,
    }
}

/// Acts as the server until the process that ordered it has ended, if one did.
pub(super) fn serve_if_ordered() -> bool {
    let Ok(order) = env::var(ORDER) else {
        return false;
    };
    fs::write("/proc/self/comm", NAME).unwrap();
    let mut order = order.split(' ');
    let namespace = Namespace::existing(order.next().unwrap());
    let start = |addr: &str| Server::start(&namespace, addr.parse().unwrap()).unwrap();
    let servers: Vec<Server> = order.map(start).collect();
    println!("\n{READY}");
    // It has an end, but no lines.
    let lines = stdin().lines().count();
    assert_eq!((lines, servers.is_empty()), (0, false));
    true
}
