//! Aborting confirmed zombies, and the dry run.

use std::time::{Duration, Instant};

use lab::{Alert, Client, Manner, Message, wait_until};

use crate::stage::{SOON, Stage, Watch};

const LIMIT: Duration = Duration::from_secs(3);
const A_SECOND: Duration = Duration::from_secs(1);

/// An idle connection expires, and the server sends into the silence until the verdict is
/// confirmed.
fn confirmed_zombie(stage: &Stage, watch: &mut Watch) -> (Client, Alert) {
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let peer = idle.local_addr();
    watch.verdict(peer, "expired", LIMIT + SOON);
    stage.server.send(peer, Message::text("hello?")).unwrap();
    let confirmed = watch.alert("the confirmation", SOON, |alert| {
        alert.peer() == Some(peer) && alert.text("/certainty") == "confirmed"
    });
    (idle, confirmed)
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_confirmed_zombie_is_aborted_and_its_application_learns_of_it_within_a_second() {
    let stage = Stage::new();
    stage.lab.silent_idle_timeout(LIMIT).unwrap();
    let mut watch = stage.watch(&["--lb-timeout", "3s", "--reap", "confirmed"]);
    watch.allow("reap: aborted socket");
    let healthy = stage.client(1, "/heartbeat?every=1s", Manner::Responsive);
    let (idle, confirmed) = confirmed_zombie(&stage, &mut watch);
    let peer = idle.local_addr();

    // The server waits in its read, as servers do.
    let ended = |peer| stage.server.connection(peer).is_none_or(|view| !view.open);
    wait_until("the server's error", SOON, || ended(peer)).unwrap();
    let waited = Instant::now().duration_since(confirmed.at);
    assert!(
        waited <= A_SECOND,
        "the server learned of it after {waited:?}"
    );
    assert_eq!(watch.resolution(peer, SOON), "reaped");
    let reaped = [("listener", stage.port()), ("outcome", "destroyed")];
    watch.wait_for_metric("wsmon_reaped_total", &reaped, 1.0);
    assert_eq!(watch.metric("wsmon_reaped_total", &[]), 1.0);
    let view = stage.server.connection(healthy.local_addr()).unwrap();
    assert_eq!(view.to_string(), "open, no error");
    watch.assert_never_accused(healthy.local_addr());
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_dry_run_reports_what_it_would_abort_and_aborts_nothing() {
    let stage = Stage::new();
    stage.lab.silent_idle_timeout(LIMIT).unwrap();
    let mut watch = stage.watch(&["--lb-timeout", "3s", "--reap-dry-run"]);
    watch.allow("reap: would abort socket");
    let (idle, _) = confirmed_zombie(&stage, &mut watch);
    let peer = idle.local_addr();

    let dry = [("listener", stage.port()), ("outcome", "dry_run")];
    watch.wait_for_metric("wsmon_reaped_total", &dry, 1.0);
    assert!(
        watch.daemon.log().contains("reap: would abort socket"),
        "{}",
        watch.daemon.log()
    );
    let view = stage.server.connection(peer).unwrap();
    assert_eq!(view.to_string(), "open, no error");
}

/// After the confirmation, the client has the same time again to show that it is alive.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn an_unresponsive_client_is_aborted_after_a_second_floor() {
    let stage = Stage::new();
    let flags = ["--unresponsive-floor", "3s", "--reap", "confirmed"];
    let mut watch = stage.watch(&flags);
    watch.allow("reap: aborted socket");
    let heartbeat = "/heartbeat?every=500ms";
    let deaf = stage.client(0, heartbeat, Manner::Deaf);
    let late = stage.client(1, heartbeat, Manner::Deaf);
    let confirmation = |watch: &mut Watch, peer| {
        watch.alert("the confirmation", SOON, |alert| {
            alert.peer() == Some(peer) && alert.text("/certainty") == "confirmed"
        })
    };
    let confirmed = confirmation(&mut watch, deaf.local_addr());
    confirmation(&mut watch, late.local_addr());
    late.send(Message::text("here I am")).unwrap();
    assert_eq!(watch.resolution(late.local_addr(), SOON), "recovered");
    assert_eq!(watch.resolution(deaf.local_addr(), SOON), "reaped");
    // The line arrived a little later than the verdict.
    let waited = Instant::now().duration_since(confirmed.at) + Duration::from_millis(100);
    assert!(waited >= LIMIT, "aborted after {waited:?}");
    assert_eq!(watch.metric("wsmon_reaped_total", &[]), 1.0);
    let view = stage.server.connection(late.local_addr()).unwrap();
    assert!(view.open);
}

/// Without a transmission, the verdict stays a suspicion.
#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_suspected_zombie_is_never_aborted() {
    let stage = Stage::new();
    let mut watch = stage.watch(&["--lb-timeout", "1s", "--reap", "confirmed"]);
    let idle = stage.client(0, "/quiet", Manner::Responsive);
    let peer = idle.local_addr();
    watch.verdict(peer, "expired", LIMIT + SOON);
    idle.send(Message::text("here I am")).unwrap();
    assert_eq!(watch.resolution(peer, SOON), "recovered");
    assert_eq!(watch.metric("wsmon_reaped_total", &[]), 0.0);
}
