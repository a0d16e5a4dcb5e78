//! A real Alertmanager receives a verdict and its resolution.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{Manner, Message, Process, wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    stage::{SOON, Stage},
    viewer,
};

/// Debian's package of that name.
const ALERTMANAGER: &str = "prometheus-alertmanager";

const CONFIG: &str = "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n";

/// An Alertmanager on loopback with a receiver that notifies nobody.
struct Alertmanager {
    url: String,
    http: ureq::Agent,
    _process: Process,
    _folder: TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("alertmanager.yml");
        fs::write(&config, CONFIG).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let process = Process::spawn(
            Command::new(ALERTMANAGER)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.path={}", folder.path().display()))
                .arg(format!("--web.listen-address={addr}"))
                .arg("--cluster.listen-address=")
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let alertmanager = Self {
            url: format!("http://{addr}"),
            http: ureq::Agent::config_builder().proxy(None).build().into(),
            _process: process
                .unwrap_or_else(|error| panic!("{error}; `cargo xtask setup` installs it")),
            _folder: folder,
        };
        wait_until("Alertmanager to be ready", SOON, || {
            let ready = format!("{}/-/ready", alertmanager.url);
            alertmanager.http.get(ready).call().is_ok()
        })
        .unwrap();
        alertmanager
    }

    /// The active alerts.
    fn active(&self) -> Vec<Value> {
        let url = format!("{}/api/v2/alerts?active=true", self.url);
        let mut response = self.http.get(url).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn alertmanager_shows_a_verdict_while_it_stands() {
    let alertmanager = Alertmanager::start();
    let stage = Stage::new();
    let flags = ["--lb-timeout", "2s", "--alertmanager", &alertmanager.url];
    let watch = stage.watch(&flags);
    let idle = stage.client(0, "/quiet", Manner::Responsive);

    let shown = wait_for("the alert", SOON, || alertmanager.active().pop()).unwrap();
    assert_eq!(shown["status"]["state"], "active");
    let labels = &shown["labels"];
    assert_eq!(labels["alertname"], "WebSocketZombie");
    assert_eq!(labels["kind"], "expired");
    assert_eq!(labels["listener"], stage.port());
    assert_eq!(labels["severity"], "warning");
    let list = viewer::reported(watch.daemon.control(), &["list", "--json"]);
    let record: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(labels["cookie"], record["cookie"]);
    let annotations = &shown["annotations"];
    assert_eq!(annotations["certainty"], "suspected");
    assert_eq!(annotations["peer"], idle.local_addr().to_string());

    let peer = idle.local_addr();
    stage.server.send(peer, Message::text("hello?")).unwrap();
    idle.send(Message::text("still here")).unwrap();
    let wait = SOON + Duration::from_secs(2);
    wait_until("the alert to end", wait, || {
        alertmanager.active().is_empty()
    })
    .unwrap();
    for ring in ["alertmanager", "alerts"] {
        let lost = watch.metric("wsmon_events_lost_total", &[("ring", ring)]);
        assert_eq!(lost, 0.0, "{ring}");
    }
}
