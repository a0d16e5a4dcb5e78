//! A server with two thousand clients is killed, and they reconnect.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use lab::{Alert, Lab, rerun_after_stalls, wait_until};
use serde_json::Value;

use crate::{
    backend::Backend,
    crowd::{self, Crowd, Retry},
    stage::{SOON, Watch, fresh_port},
    viewer,
};

const CLIENTS: u16 = 2_000;
const BASE: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn clients_with_a_fixed_interval_are_reported_as_lockstep() {
    rerun_after_stalls(|| {
        let storm = Storm::rage(Retry::Fixed(BASE));
        assert_eq!(storm.pattern(), "lockstep", "{}", storm.reported());
        storm.assert_period(BASE);
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn clients_that_back_off_without_jitter_are_reported_as_such() {
    rerun_after_stalls(|| {
        let storm = Storm::rage(Retry::Exponential(BASE));
        assert_eq!(storm.pattern(), "backoff", "{}", storm.reported());
        storm.assert_period(BASE);
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn clients_with_full_jitter_are_reported_as_neither() {
    rerun_after_stalls(|| {
        let storm = Storm::rage(Retry::FullJitter(BASE));
        assert!(
            !["lockstep", "backoff"].contains(&storm.pattern()),
            "{}",
            storm.reported()
        );
    });
}

/// All alerts of a storm, from its mass close to its end.
struct Storm(Vec<Alert>);

impl Storm {
    /// The server is killed, restarts after 2 s, refuses for 8 s while it warms up, and then
    /// accepts. This checks everything that does not depend on the clients' retry strategy.
    fn rage(retry: Retry) -> Self {
        let lab = Lab::new().unwrap();
        let addr = lab.server_addr(fresh_port());
        let port = addr.port().to_string();
        let mut watch = Watch::start(&["--port", &port]);
        let labels = [("listener", port.as_str())];
        let mut server = Backend::start(lab.server_ns(), addr, Duration::ZERO);
        let crowd = Crowd::gather(&lab, addr, 0..CLIENTS, retry);
        wait_until("all clients to be connected", SOON, || {
            crowd.seen().connected == CLIENTS
        })
        .unwrap();
        watch.wait_for_metric("wsmon_connections", &labels, CLIENTS.into());
        // A client may get its answer a moment before the server has counted it.
        let mut before = server.answers();
        wait_until("the server to count them", SOON, || {
            before = server.answers();
            before.accepted == u64::from(CLIENTS)
        })
        .unwrap();

        let killed_at = Instant::now();
        server.kill();
        wait_until("all clients to lose their connection", SOON, || {
            crowd.seen().connected == 0
        })
        .unwrap();
        // The server's downtime. How long it lasts decides how the clients' delays spread, so the time itself is the
        // subject here. It ends in the middle between the last client's attempt 1 s after its loss and, with backoff,
        // the first client's next one 2 s later, however long the losses took.
        let lost_within = killed_at.elapsed();
        std::thread::sleep((2 * BASE).saturating_sub(lost_within / 2));
        crowd.expect_a_wave();
        let mut server = Backend::start(lab.server_ns(), addr, Duration::from_secs(8));
        wait_until("all clients to be back", Duration::from_secs(60), || {
            crowd.seen().connected == CLIENTS
        })
        .unwrap();
        watch.wait_for_metric("wsmon_reconnect_storm", &labels, 1.0);
        watch.alert("the end", Duration::from_secs(90), |alert| {
            alert.text("/phase") == "over"
        });
        watch.wait_for_metric("wsmon_reconnect_storm", &labels, 0.0);

        let said = watch.alerts().iter();
        let said = said.filter(|alert| alert.text("/alert") == "reconnect_storm");
        let storm = Self(said.cloned().collect());
        storm.assert_reported_in_time(crowd.seen().first_wave.unwrap());
        let reported = storm.reported();
        let over = storm.last();
        assert_eq!(over.text("/status"), "resolved", "{reported}");
        assert_eq!(over.text("/cause"), "server_restart", "{reported}");
        assert_eq!(over.number("/closes"), Some(CLIENTS.into()), "{reported}");

        let answers = server.answers();
        assert_eq!(answers.accepted, u64::from(CLIENTS));
        let refused = over.json["refused"].as_array().expect("an array");
        let of_503 = refused.iter().find(|refused| refused["status"] == 503);
        assert_eq!(of_503.unwrap()["count"], answers.refused, "{reported}");
        assert_eq!(
            over.number("/successes"),
            Some(CLIENTS.into()),
            "{reported}"
        );
        let answered =
            |status| watch.metric("wsmon_handshakes_total", &[labels[0], ("status", status)]);
        assert_eq!(answered("503"), answers.refused as f64);
        assert_eq!(answered("101"), (before.accepted + answers.accepted) as f64);
        let requests = watch.metric("wsmon_upgrade_requests_total", &labels);
        assert_eq!(requests, watch.metric("wsmon_handshakes_total", &labels));
        let come_back = watch.metric("wsmon_reconnects_total", &labels);
        assert_eq!(come_back, requests - before.accepted as f64);
        for name in ["wsmon_events_lost_total", "wsmon_degraded"] {
            assert_eq!(watch.metric(name, &[]), 0.0, "{name}");
        }
        println!("{reported}");
        storm
    }

    /// The storm itself, in addition to the mass close, is reported within 2 s of the first
    /// attempt.
    fn assert_reported_in_time(&self, first_wave: SystemTime) {
        let first = self.0.iter().find(|alert| alert.text("/phase") == "storm");
        let first = first.unwrap_or_else(|| panic!("no storm: {}", self.reported()));
        let ts: Timestamp = first.text("/ts").parse().unwrap();
        let after = ts.duration_since(Timestamp::try_from(first_wave).unwrap());
        println!("reported {after:?} after the first attempt");
        assert!(after.as_secs_f64() <= 2.0, "{after:?}: {}", self.reported());
    }

    fn assert_period(&self, period: Duration) {
        let reported = self.last().number("/period_seconds");
        let reported = reported.unwrap_or_else(|| panic!("no period: {}", self.reported()));
        let off = (reported / period.as_secs_f64() - 1.0).abs();
        assert!(off <= 0.05, "{reported} s: {}", self.reported());
    }

    fn pattern(&self) -> &str {
        self.last().text("/pattern")
    }

    fn last(&self) -> &Alert {
        self.0.last().expect("at least one alert")
    }

    fn reported(&self) -> String {
        let lines = self.0.iter().map(|alert| alert.json.to_string());
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_mass_close_is_reported_right_after_the_start() {
    rerun_after_stalls(|| {
        const FEW: u16 = 45;
        let lab = Lab::new().unwrap();
        let addr = lab.server_addr(fresh_port());
        let server = Backend::start(lab.server_ns(), addr, Duration::ZERO);
        let crowd = Crowd::gather(&lab, addr, 0..FEW, Retry::Fixed(BASE));
        wait_until("all clients to be connected", SOON, || {
            crowd.seen().connected == FEW
        })
        .unwrap();
        let port = addr.port().to_string();
        let mut watch = Watch::start(&["--port", &port]);
        watch.wait_for_metric("wsmon_connections", &[], FEW.into());
        server.kill();
        let close = watch.alert("a mass close", SOON, |alert| {
            alert.text("/alert") == "reconnect_storm"
        });
        assert_eq!(close.text("/phase"), "mass_close", "{}", close.json);
        assert_eq!(close.number("/closes"), Some(FEW.into()), "{}", close.json);
        assert_eq!(close.text("/cause"), "server_restart", "{}", close.json);
    });
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn clients_that_reconnect_all_the_time_are_reported_and_listed() {
    rerun_after_stalls(|| {
        let lab = Lab::new().unwrap();
        let addr = lab.server_addr(fresh_port());
        let mut watch = Watch::start(&["--port", &addr.port().to_string()]);
        let _server = Backend::start(lab.server_ns(), addr, Duration::ZERO);
        let stays = Duration::from_millis(300);
        let back = Duration::from_millis(1_700);
        let _restless = Crowd::gather(&lab, addr, 0..1, Retry::Restless { stays, back });
        let thrash = watch.alert("thrash", Duration::from_secs(30), |alert| {
            alert.text("/alert") == "thrash"
        });
        assert_eq!(thrash.text("/status"), "firing");
        assert_eq!(thrash.number("/count"), Some(1.0));
        let client = crowd::address(0).to_string();
        assert_eq!(thrash.text("/examples/0/client"), client);

        let _quiet = Crowd::gather(&lab, addr, 1..2, Retry::Fixed(BASE));
        let listed = || {
            let control = watch.daemon.control();
            let text = viewer::reported(control, &["list", "--by", "client", "--json"]);
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<Value>>()
        };
        let mut rows = Vec::new();
        wait_until("both to be listed", SOON, || {
            rows = listed();
            rows.len() == 2 && rows[0]["short_lived"].as_u64() >= Some(6)
        })
        .unwrap_or_else(|error| panic!("{error}: {rows:?}"));
        assert_eq!(rows[0]["client"], client, "the heaviest first");
        assert_eq!(rows[0]["at_most_over"], 0);
        let every = rows[0]["interval_seconds"]
            .as_f64()
            .expect("a fixed interval");
        assert!((1.9..2.3).contains(&every), "{every}");
        assert_eq!(rows[1]["client"], crowd::address(1).to_string());
        assert_eq!(
            (&rows[1]["attempts"], &rows[1]["open"]),
            (&1.into(), &1.into())
        );
        let table = viewer::reported(watch.daemon.control(), &["list", "--by", "client"]);
        assert!(table.starts_with("CLIENT "), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
        println!("{}\n{table}", thrash.json);
    });
}
