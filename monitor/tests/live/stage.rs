//! The stage of every story: a network, a server, and a daemon with its alerts.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lab::{Alert, Client, Daemon, Lab, Manner, Metrics, Server, wait_for};

pub(crate) use lab::fresh_port;

pub(crate) const WSMON: &str = env!("CARGO_BIN_EXE_wsmon");

/// Far longer than anything takes, except for a limit under test.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// The network and one server.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) lab: Lab,
    port: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let port = fresh_port();
        let server = Server::start(lab.server_ns(), lab.server_addr(port)).unwrap();
        Self {
            server,
            lab,
            port: port.to_string(),
        }
    }

    /// The server's port, as in flags and labels.
    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    /// A daemon that watches the server's port.
    pub(crate) fn watch(&self, flags: &[&str]) -> Watch {
        Watch::start(&[&["--port", self.port()], flags].concat())
    }

    /// The same, with its alerts in a file.
    pub(crate) fn watch_to(&self, alert_log: &Path, flags: &[&str]) -> Watch {
        let alert_log = [
            "--port",
            self.port(),
            "--alert-log",
            alert_log.to_str().unwrap(),
        ];
        Watch::start(&[&alert_log, flags].concat())
    }

    pub(crate) fn client(&self, index: u8, path: &str, manner: Manner) -> Client {
        let from = self.lab.client_addr(index);
        Client::connect(self.lab.client_ns(), from, &self.server.url(path), manner).unwrap()
    }
}

/// A daemon and its alerts. A warning or an error in its log fails the test, unless it was allowed.
pub(crate) struct Watch {
    pub(crate) daemon: Daemon,
    alerts: Vec<Alert>,
    allowed: Vec<&'static str>,
}

impl Watch {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self {
            daemon: Daemon::start(Path::new(WSMON), flags).unwrap(),
            alerts: Vec::new(),
            allowed: Vec::new(),
        }
    }

    /// Allows log lines that contain this text.
    pub(crate) fn allow(&mut self, text: &'static str) {
        self.allowed.push(text);
    }

    /// The first firing alert about `peer`, which must come within `limit` and have this `kind`.
    pub(crate) fn verdict(&mut self, peer: SocketAddr, kind: &str, limit: Duration) -> Alert {
        let alert = self.alert(&format!("a verdict on {peer}"), limit, |alert| {
            alert.is_firing_zombie() && alert.peer() == Some(peer)
        });
        assert_eq!(alert.text("/kind"), kind, "{}", alert.json);
        alert
    }

    /// How the verdict on `peer` ended, within `limit`.
    pub(crate) fn resolution(&mut self, peer: SocketAddr, limit: Duration) -> String {
        let alert = self.alert(
            &format!("the end of the verdict on {peer}"),
            limit,
            |alert| alert.text("/status") == "resolved" && alert.peer() == Some(peer),
        );
        alert.text("/resolution").to_owned()
    }

    /// The first alert, existing or within `limit`, for which `wanted` is true.
    pub(crate) fn alert(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Alert) -> bool,
    ) -> Alert {
        let found = wait_for(what, limit, || {
            self.alerts().iter().find(|alert| wanted(alert)).cloned()
        });
        found.unwrap_or_else(|error| {
            let said: Vec<String> = self.alerts.iter().map(|a| a.json.to_string()).collect();
            let log = self.daemon.log();
            panic!("{error}; alerts:\n{}\nlog:\n{log}", said.join("\n"))
        })
    }

    /// All alerts so far.
    pub(crate) fn alerts(&mut self) -> &[Alert] {
        self.alerts.extend(self.daemon.alerts().try_iter());
        &self.alerts
    }

    pub(crate) fn assert_never_accused(&mut self, peer: SocketAddr) {
        let accusation = self.alerts().iter().find(|a| a.peer() == Some(peer));
        assert!(accusation.is_none(), "{accusation:?}");
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.daemon.metrics().unwrap()
    }

    /// The sum over the series of `name` that have these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until the metric has the value.
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let reached = wait_for(&format!("{name}{labels:?} to be {value}"), SOON, || {
            last = self.metric(name, labels);
            (last == value).then_some(())
        });
        reached.unwrap_or_else(|error| panic!("{error}: it is {last}\n{}", self.daemon.log()));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !thread::panicking() {
            let complaints = self.daemon.complaints(&self.allowed).unwrap();
            assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        }
    }
}

/// Asserts that `moment` lies between two others, and reports by how much it does not.
pub(crate) fn assert_between(earliest: Instant, moment: Instant, latest: Instant) {
    assert!(
        moment >= earliest,
        "{:?} too early",
        earliest.duration_since(moment)
    );
    assert!(
        moment <= latest,
        "{:?} too late",
        moment.duration_since(latest)
    );
}
