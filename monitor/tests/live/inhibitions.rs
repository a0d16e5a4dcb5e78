//! The inhibitions in deploy, in the real Alertmanager.

use std::{collections::BTreeSet, fs};

use lab::wait_until;
use serde_json::{Value, json};

use crate::{alertmanager::Alertmanager, stage::SOON};

#[test]
fn an_alert_withholds_those_that_follow_from_it_and_no_others() {
    let config = lab::workspace().join("deploy/alertmanager/alertmanager.yml");
    let alertmanager = Alertmanager::start(&fs::read_to_string(config).unwrap());
    let of_rule = |name: &str, job: &str, instance: &str, listener: &str| json!({ "alertname": name, "job": job, "instance": instance, "listener": listener });
    // wsmon posts it itself.
    let direct = |name: &str, instance: &str, listener: &str| json!({ "alertname": name, "instance": instance, "listener": listener });
    let fleet = |name: &str, listener: &str| json!({ "alertname": name, "job": "wsmon", "listener": listener });
    const STORM: &str = "WebSocketReconnectStorm";
    const THRASH: &str = "WebSocketThrash";
    let sent = [
        fleet("WebSocketFleetReconnectStorm", "chat"),
        of_rule(STORM, "east/wsmon", "a", "chat"),
        of_rule(STORM, "wsmon", "a", "feed"),
        direct(STORM, "b", "feed"),
        direct(THRASH, "c", "feed"),
        of_rule("WebSocketMassDeath", "wsmon", "a", "feed"),
        direct("WebSocketZombie", "b", "feed"),
        fleet("WebSocketFleetMassDeath", "log"),
    ];
    // Each of those that withhold withholds at least one.
    let withheld = [
        of_rule(STORM, "wsmon", "a", "chat"),
        direct(STORM, "a", "chat"),
        direct(THRASH, "b", "chat"),
        direct(THRASH, "a", "feed"),
        direct(THRASH, "b", "feed"),
        direct("WebSocketZombie", "a", "feed"),
        direct("WebSocketZombie", "b", "log"),
    ];
    alertmanager.post(&[sent.as_slice(), &withheld].concat());
    let texts =
        |alerts: &[Value]| -> BTreeSet<String> { alerts.iter().map(ToString::to_string).collect() };
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    wait_until("the right ones to be withheld", SOON, || {
        let (withheld_now, sent_now): (Vec<_>, Vec<_>) = alertmanager
            .active()
            .into_iter()
            .partition(|alert| alert["status"]["state"] == "suppressed");
        let labels = |alerts: Vec<Value>| alerts.into_iter().map(|it| it["labels"].clone());
        let now = [withheld_now, sent_now].map(|it| texts(&labels(it).collect::<Vec<_>>()));
        found = now;
        found == [texts(&withheld), texts(&sent)]
    })
    .unwrap_or_else(|error| panic!("{error}: {found:#?}"));
}
