//! A real Alertmanager receives a verdict and its resolution.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use lab::{Manner, Message, Process, wait_for, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    stage::{SOON, Stage},
    viewer,
};

/// Debian's package of that name.
const ALERTMANAGER: &str = "prometheus-alertmanager";

const CONFIG: &str = "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n";

/// An Alertmanager on loopback.
pub(crate) struct Alertmanager {
    addr: SocketAddr,
    http: ureq::Agent,
    _process: Process,
    _folder: TempDir,
}

/// A free address on loopback.
pub(crate) fn free_addr() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

impl Alertmanager {
    pub(crate) fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        fs::write(&file, config).unwrap();
        let addr = free_addr();
        let process = Process::spawn(
            Command::new(ALERTMANAGER)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.path={}", folder.path().display()))
                .arg(format!("--web.listen-address={addr}"))
                .arg("--cluster.listen-address=")
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let alertmanager = Self {
            addr,
            http: ureq::Agent::config_builder().proxy(None).build().into(),
            _process: process
                .unwrap_or_else(|error| panic!("{error}; `cargo xtask setup` installs it")),
            _folder: folder,
        };
        wait_until("Alertmanager to be ready", SOON, || {
            let ready = format!("{}/-/ready", alertmanager.url());
            alertmanager.http.get(ready).call().is_ok()
        })
        .unwrap();
        alertmanager
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Posts alerts with these labels, which stand until it ends.
    pub(crate) fn post(&self, alerts: &[Value]) {
        let alerts = alerts.iter().map(|labels| json!({ "labels": labels }));
        let url = format!("{}/api/v2/alerts", self.url());
        let request = self.http.post(url).content_type("application/json");
        let body = Value::from_iter(alerts).to_string();
        request.send(body).expect("it takes alerts");
    }

    /// The alerts that stand, those that are withheld too.
    pub(crate) fn active(&self) -> Vec<Value> {
        let url = format!("{}/api/v2/alerts?active=true", self.url());
        let mut response = self.http.get(url).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn alertmanager_shows_a_verdict_while_it_stands() {
    let alertmanager = Alertmanager::start(CONFIG);
    let stage = Stage::new();
    let flags = ["--lb-timeout", "2s", "--alertmanager", &alertmanager.url()];
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
