//! The rules and configurations in deploy, with shorter durations, so that the scene is short.
//!
//! Only durations of Prometheus and Alertmanager are divided, those of wsmon are not.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};

/// Of 15 s between scrapes, half a second is left.
pub(super) const FACTOR: u32 = 30;
/// Within `group_wait`, the alert of the fleet has to follow those of the hosts. Of 30 s, 5 s are left: hosts that
/// share a busy machine are further apart than a thirtieth allows.
const GROUP_WAIT_FACTOR: u32 = 6;

/// `deploy/alertmanager/alertmanager.yml` with a webhook in place of each receiver.
pub(super) fn alertmanager_config(webhook: SocketAddr) -> String {
    let mut config = read("alertmanager/alertmanager.yml");
    let route = &mut config["route"];
    divide(&mut route["group_wait"], GROUP_WAIT_FACTOR);
    for key in ["group_interval", "repeat_interval"] {
        divide(&mut route[key], FACTOR);
    }
    for receiver in config["receivers"].as_array_mut().expect("receivers") {
        let url = format!("http://{webhook}/");
        receiver["webhook_configs"] = json!([{ "url": url, "send_resolved": true }]);
    }
    config.to_string()
}

/// `deploy/prometheus/prometheus.yml` with other targets, written to `folder` with the rules.
pub(super) fn write_prometheus_config(
    folder: &Path,
    targets: &[(&str, SocketAddr)],
    alertmanager: SocketAddr,
) {
    let mut config = read("prometheus/prometheus.yml");
    for key in ["scrape_interval", "evaluation_interval"] {
        divide(&mut config["global"][key], FACTOR);
    }
    let targets = targets.iter().map(
        |(name, addr)| json!({ "targets": [addr.to_string()], "labels": { "instance": name } }),
    );
    config["scrape_configs"][0]["static_configs"] = targets.collect();
    let alertmanagers = &mut config["alerting"]["alertmanagers"][0];
    alertmanagers["static_configs"] = json!([{ "targets": [alertmanager.to_string()] }]);
    // JSON is YAML.
    fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
    let rules = folder.join("rules");
    fs::create_dir(&rules).unwrap();
    for name in ["recording.yml", "alerts.yml", "fleet.yml"] {
        let file = shortened_rules(read(&format!("prometheus/rules/{name}")));
        fs::write(rules.join(name), file.to_string()).unwrap();
    }
}

fn shortened_rules(mut file: Value) -> Value {
    let groups = file["groups"].as_array_mut().expect("groups");
    let rules = groups
        .iter_mut()
        .flat_map(|group| group["rules"].as_array_mut().expect("rules"));
    for rule in rules {
        if rule["for"].is_string() {
            divide(&mut rule["for"], FACTOR);
        }
        let expr = rule["expr"].as_str().expect("an expression");
        rule["expr"] = shortened_windows(expr).into();
    }
    file
}

/// The expression with `[5m]` as `[10000ms]`.
fn shortened_windows(expr: &str) -> String {
    let mut parts = expr.split('[');
    let mut shortened = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (window, rest) = part.split_once(']').expect("a window ends");
        shortened += &format!("[{}]{rest}", divided(window, FACTOR));
    }
    shortened
}

fn divide(duration: &mut Value, factor: u32) {
    *duration = divided(duration.as_str().expect("a duration"), factor).into();
}

fn divided(text: &str, factor: u32) -> String {
    let duration = humantime::parse_duration(text).expect("a duration") / factor;
    format!("{}ms", duration.as_millis())
}

fn read(path: &str) -> Value {
    let path = lab::workspace().join("deploy").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[test]
fn windows_and_only_windows_are_divided() {
    let expr = "listener:x:rate5m > sum by (a) (rate(wsmon_x{le=~\"5|5.0\"}[5m])) / rate(y[1d])";
    let expected = "listener:x:rate5m > sum by (a) (rate(wsmon_x{le=~\"5|5.0\"}[10000ms])) / rate(y[2880000ms])";
    assert_eq!(shortened_windows(expr), expected);
    assert_eq!(Duration::from_secs(15) / FACTOR, Duration::from_millis(500));
}
