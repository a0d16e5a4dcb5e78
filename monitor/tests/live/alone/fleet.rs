//! Three hosts, the real Prometheus and the real Alertmanager, with the rules, the routes and the dashboards in deploy.
//!
//! Each host is a network of its own with a server, and a daemon that watches this server's ports. The daemons run
//! side by side in this host's namespace, so each has ports of its own, but the listeners have the same names.

mod dashboards;
mod hosts;
mod notifications;
mod prometheus;
mod scaled;

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use lab::{Manner, rerun_after_stalls, wait_for, wait_until};
use serde_json::Value;

use self::{
    hosts::Host,
    notifications::{Notification, Notifications},
    prometheus::Prometheus,
};
use crate::{alertmanager::Alertmanager, stage::SOON};

/// Includes `for` and a window of a rule, and the time after which Alertmanager reports an end, all shortened.
const LATER: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn alerts_of_a_fleet_come_once_and_dashboards_have_data() {
    rerun_after_stalls(watch_a_fleet);
}

fn watch_a_fleet() {
    let notifications = Notifications::receive();
    let alertmanager = Alertmanager::start(&scaled::alertmanager_config(notifications.addr()));
    let url = alertmanager.url();
    let mut hosts = thread::scope(|scope| {
        let starting = ["a", "b", "c"].map(|name| scope.spawn(|| Host::start(name, &url)));
        starting.map(|host| host.join().unwrap())
    });
    let targets: Vec<_> = hosts.iter().map(Host::target).collect();
    let prometheus = Prometheus::start(&targets, alertmanager.addr());
    let begin = Instant::now();
    on_all(&mut hosts, Host::welcome_clients);

    // A path breaks on one host, and on another a client stops reading, which takes 30 s to prove.
    let silent = hosts[0].client("/stream?every=200ms&size=1000", Manner::Responsive);
    hosts[0].lab.black_hole(silent.local_addr().ip()).unwrap();
    let slow = hosts[1].client("/stream?every=10ms&size=60000", Manner::Deaf);
    let zombies = notifications.wait_for_firing("WebSocketZombies", LATER);
    assert_eq!(zombies.alerts.len(), 1, "{zombies:?}");
    for (label, value) in [
        ("instance", "a"),
        ("kind", "black_holed"),
        ("listener", "feed"),
    ] {
        assert_eq!(zombies.alerts[0][label], value, "{zombies:?}");
    }
    hosts[0].lab.heal(silent.local_addr().ip()).unwrap();

    // All servers send their clients away, who come back at once.
    on_all(&mut hosts, |host| {
        host.send_clients_away();
        host.let_clients_come_back();
    });
    let withheld = wait_for("the storms of the hosts", SOON, || {
        let withheld = withheld(&alertmanager, "WebSocketReconnectStorm");
        (withheld.len() > hosts.len()).then_some(withheld)
    });
    let of_rules = ["a", "b", "c"].map(|host| (host.to_owned(), true));
    // Host c posts its own, too.
    let expected = of_rules.into_iter().chain([("c".to_owned(), false)]);
    assert_eq!(withheld.unwrap(), expected.collect());
    let storm = notifications.wait_for_firing("WebSocketFleetReconnectStorm", SOON);
    assert_eq!(
        storm.alerts.len(),
        1,
        "one alert for three hosts: {storm:?}"
    );
    assert_eq!(storm.alerts[0]["listener"], "chat", "{storm:?}");
    assert_eq!(storm.receiver, "pager");

    let slow_consumers = notifications.wait_for_firing("WebSocketSlowConsumers", LATER);
    assert_eq!(slow_consumers.alerts.len(), 1, "{slow_consumers:?}");
    assert_eq!(slow_consumers.alerts[0]["instance"], "b");
    assert_eq!(slow_consumers.receiver, "tickets");
    drop(slow);
    for alert in EXPECTED {
        notifications.wait_for_end(alert, LATER);
    }

    dashboards::assert_all_have_data(&prometheus, begin.elapsed());
    let all = notifications.all();
    let mut fired: Vec<_> = all.iter().filter_map(Notification::fired).collect();
    fired.sort_unstable();
    assert_eq!(fired, EXPECTED, "each once, and no other");
    wait_until("all alerts to end", LATER, || {
        alertmanager.active().is_empty()
    })
    .unwrap();
    println!("took {:?}", begin.elapsed());
}

/// On all hosts at the same time, as after a failure of what they share.
fn on_all(hosts: &mut [Host], act: impl Fn(&mut Host) + Sync) {
    thread::scope(|scope| {
        for host in hosts {
            let act = &act;
            scope.spawn(move || act(host));
        }
    });
}

/// The alerts that reach a person.
const EXPECTED: [&str; 3] = [
    "WebSocketFleetReconnectStorm",
    "WebSocketSlowConsumers",
    "WebSocketZombies",
];

/// The hosts whose alert of this name stands, and is withheld because of another one. Each with whether it is the alert
/// of a rule, which has a job, or that of the host's wsmon.
fn withheld(alertmanager: &Alertmanager, name: &str) -> BTreeSet<(String, bool)> {
    let is_withheld = |alert: &&Value| {
        let inhibited = alert["status"]["inhibitedBy"].as_array();
        alert["labels"]["alertname"] == name && inhibited.is_some_and(|by| !by.is_empty())
    };
    let alerts = alertmanager.active();
    let withheld = alerts.iter().filter(is_withheld);
    let of = |alert: &Value| {
        let labels = &alert["labels"];
        let instance = labels["instance"].as_str()?.to_owned();
        Some((instance, labels["job"].is_string()))
    };
    withheld.filter_map(of).collect()
}
