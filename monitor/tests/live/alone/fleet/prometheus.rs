//! The real Prometheus, from Debian's package.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lab::{Process, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::scaled;
use crate::{alertmanager::free_addr, stage::SOON};

pub(super) struct Prometheus {
    addr: SocketAddr,
    http: ureq::Agent,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it with these hosts, each with its name and the address of its metrics, and waits until it has scraped
    /// all of them.
    pub(super) fn start(targets: &[(&str, SocketAddr)], alertmanager: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        scaled::write_prometheus_config(folder.path(), targets, alertmanager);
        let addr = free_addr();
        let resend = Duration::from_secs(60) / scaled::FACTOR;
        let process = Process::spawn(
            Command::new("prometheus")
                .arg(format!(
                    "--config.file={}/prometheus.yml",
                    folder.path().display()
                ))
                .arg(format!(
                    "--storage.tsdb.path={}/data",
                    folder.path().display()
                ))
                .arg(format!("--web.listen-address={addr}"))
                .arg(format!("--rules.alert.resend-delay={}s", resend.as_secs()))
                .arg("--log.level=warn")
                .stdout(Stdio::null()),
        );
        let prometheus = Self {
            addr,
            http: ureq::Agent::config_builder().proxy(None).build().into(),
            _process: process
                .unwrap_or_else(|error| panic!("{error}; `cargo xtask setup` installs it")),
            _folder: folder,
        };
        let all = targets.len().to_string();
        wait_until("Prometheus to scrape all hosts", SOON, || {
            let up = prometheus.try_get("query", &[("query", "count(up == 1)")]);
            up.is_some_and(|up| up["result"][0]["value"][1] == all)
        })
        .unwrap();
        prometheus
    }

    /// How many series have a finite value at some moment of the last `range`.
    pub(super) fn series_with_data(&self, query: &str, range: Duration) -> usize {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let [start, end] = [now - range, now].map(|time| time.as_secs_f64().to_string());
        let arguments = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let answer = self.get("query_range", &arguments);
        let series = answer["result"].as_array().expect("series").iter();
        let finite = |value: &Value| {
            let number = value[1].as_str().and_then(|text| text.parse::<f64>().ok());
            number.is_some_and(f64::is_finite)
        };
        series
            .filter(|series| {
                series["values"]
                    .as_array()
                    .expect("values")
                    .iter()
                    .any(finite)
            })
            .count()
    }

    /// The values of a label of these series.
    pub(super) fn label_values(&self, label: &str, series: &str) -> Vec<Value> {
        let answer = self.get(&format!("label/{label}/values"), &[("match[]", series)]);
        answer.as_array().expect("values").clone()
    }

    fn get(&self, path: &str, arguments: &[(&str, &str)]) -> Value {
        self.try_get(path, arguments)
            .unwrap_or_else(|| panic!("Prometheus refuses {arguments:?}"))
    }

    /// `None` without an answer, or if it is an error.
    fn try_get(&self, path: &str, arguments: &[(&str, &str)]) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", self.addr);
        let request = self.http.get(url).query_pairs(arguments.iter().copied());
        let text = request.call().ok()?.body_mut().read_to_string().ok()?;
        let mut answer: Value = serde_json::from_str(&text).expect("JSON");
        Some(answer["data"].take())
    }
}
