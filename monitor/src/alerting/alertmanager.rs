//! Verdicts as alerts of Prometheus' Alertmanager.
//!
//! Alertmanager holds states, not events: an alert is identified by its labels, is active until its
//! `endsAt`, and has to be posted repeatedly. So this sink gets every alert, before any grouping, and
//! keeps the standing ones (`standing.rs`). It posts changes immediately and standing alerts every
//! minute.
//!
//! A lost post repairs itself: a beginning is repeated within a minute, and an end takes effect when
//! the last `endsAt` has passed.

mod standing;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::delivery::{Delivery, Encoder, Undelivered};
use crate::{
    config::{endpoint::Endpoint, metrics_address::MetricsUrl},
    records::{Now, json},
};
use monitor_core::Alert;
use standing::{Post, StandingAlerts};

/// How often standing alerts are posted.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// How long an alert holds without another post: three posts may fail. Less than the five minutes of
/// Alertmanager's own default (`resolve_timeout`).
const ALERT_LIFETIME: Duration = Duration::from_secs(240);

/// All Alertmanagers, which get the same alerts.
#[derive(Debug)]
pub struct Alertmanagers {
    standing: Arc<Mutex<StandingAlerts>>,
    deliveries: Vec<Delivery<Post>>,
}

impl Alertmanagers {
    /// `instance` is the name of this host in the alerts, by default that of the kernel. `metrics_url`
    /// becomes the source of the alerts, or else this host.
    pub fn start(
        endpoints: &[Endpoint],
        instance: Option<&str>,
        metrics_url: Option<MetricsUrl>,
    ) -> io::Result<Self> {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        // The name of an instance may be no address, such as `db-1:6455` or the node of a pod.
        let source: Arc<str> = match metrics_url {
            None => format!("http://{host}/").into(),
            Some(url) => url.on(&host).into(),
        };
        let standing = Arc::new(Mutex::new(StandingAlerts::new(instance.unwrap_or(&host))));
        let deliveries = endpoints.iter().map(|endpoint| {
            let encoder = AlertmanagerEncoder {
                url: endpoint.join("/api/v2/alerts"),
                source: source.clone(),
                standing: standing.clone(),
            };
            Delivery::start(endpoint, encoder)
        });
        Ok(Self {
            deliveries: deliveries.collect::<io::Result<_>>()?,
            standing,
        })
    }

    /// Records an alert that begins, changes or ends. `listener` is the name of its listener.
    pub fn follow(&mut self, alert: &Alert, listener: &str, now: &Now) {
        if self.deliveries.is_empty() {
            return;
        }
        let (since, at) = (now.wall_clock(alert.since), now.wall_clock(alert.at));
        let post = lock(&self.standing).follow(alert, listener, since, at);
        self.post(post);
    }

    pub fn undelivered(&self) -> Undelivered {
        self.deliveries.iter().map(Delivery::undelivered).sum()
    }

    pub(super) fn close(&mut self) {
        self.deliveries.iter_mut().for_each(Delivery::close);
    }

    fn post(&mut self, post: Option<Post>) {
        if let Some(post) = post {
            for delivery in &mut self.deliveries {
                delivery.send(post.clone());
            }
        }
    }
}

/// No code leaves it half changed, so a panic in another thread does not matter.
fn lock(standing: &Mutex<StandingAlerts>) -> MutexGuard<'_, StandingAlerts> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

struct AlertmanagerEncoder {
    url: String,
    /// The source of the alerts, a URL.
    source: Arc<str>,
    standing: Arc<Mutex<StandingAlerts>>,
}

impl Encoder for AlertmanagerEncoder {
    type Item = Post;

    const BATCH: usize = 64;

    fn url(&self) -> String {
        self.url.clone()
    }

    fn body(&self, posts: &[Post]) -> String {
        let now = Timestamp::now();
        let alerts: Vec<_> = posts
            .iter()
            .map(|post| Posted {
                labels: &post.labels,
                annotations: &post.annotations,
                starts_at: post.starts_at,
                ends_at: post.ends_at.unwrap_or_else(|| {
                    let holds_until = now.saturating_add(ALERT_LIFETIME);
                    holds_until.unwrap_or(Timestamp::MAX)
                }),
                generator_url: &self.source,
            })
            .collect();
        // Strings and maps of strings always serialize to JSON.
        serde_json::to_string(&alerts).unwrap_or_default()
    }

    fn repeat_interval(&self) -> Option<Duration> {
        Some(REPEAT_INTERVAL)
    }

    fn standing(&self) -> Vec<Post> {
        lock(&self.standing).all()
    }
}

/// An alert in Alertmanager's API v2 (`postableAlert`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a standing::Pairs,
    annotations: &'a standing::Pairs,
    #[serde(serialize_with = "json::ts::serialize")]
    starts_at: Timestamp,
    #[serde(serialize_with = "json::ts::serialize")]
    ends_at: Timestamp,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        alerting::receiver::{Answer, Receiver},
        records::alert,
    };
    use monitor_core::{AlertResolution, Certainty, ConnectionAlert, Status};

    fn posted(receiver: &Receiver) -> Value {
        let request = receiver.requests(1).remove(0);
        assert_eq!(request.path, "/am/api/v2/alerts");
        assert_eq!(request.content_type, "application/json");
        let mut alerts: Vec<Value> = serde_json::from_str(&request.body).expect("an array");
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        alerts.remove(0)
    }

    fn moment(alert: &Value, field: &str) -> Timestamp {
        let text = alert[field].as_str().expect("a string");
        text.parse().expect("RFC 3339")
    }

    #[test]
    fn a_verdict_keeps_its_labels_when_its_certainty_changes_and_when_it_ends() {
        let receiver = Receiver::start([Answer::status(503)]);
        let listening = MetricsUrl {
            addr: "127.0.0.1:6455".parse().expect("an address"),
            has_tls: false,
        };
        let endpoints = [receiver.endpoint("/am/")];
        let sink = Alertmanagers::start(&endpoints, Some("node-7"), Some(listening));
        let mut sink = sink.expect("a thread");
        let mut alert = alert::tests::alert();
        alert.since = alert.at - Duration::from_secs(1);
        let now = Now {
            at: alert.at,
            ts: Timestamp::now(),
        };
        let mut follow = |alert: &ConnectionAlert| sink.follow(&alert.clone().into(), "8080", &now);
        follow(&alert);
        let failed = posted(&receiver);
        let firing = posted(&receiver);
        assert_eq!(firing["labels"], failed["labels"]);
        assert_eq!(firing["labels"]["alertname"], "WebSocketZombie");
        assert_eq!(firing["labels"]["instance"], "node-7");
        assert_eq!(firing["labels"]["cookie"], "18446744073709551615");
        assert_eq!(firing["annotations"]["certainty"], "suspected");
        assert_eq!(firing["annotations"]["peer"], "[fd00::1]:5000");
        assert_eq!(firing["generatorURL"], "http://127.0.0.1:6455/metrics");
        let ahead = moment(&firing, "endsAt").duration_since(Timestamp::now());
        assert!((180..=240).contains(&ahead.as_secs()), "{ahead:?}");

        alert.subject.certainty = Certainty::Confirmed;
        follow(&alert);
        let confirmed = posted(&receiver);
        assert_eq!(confirmed["labels"], firing["labels"]);
        assert_eq!(confirmed["startsAt"], firing["startsAt"]);
        assert_eq!(confirmed["annotations"]["certainty"], "confirmed");

        alert.status = Status::Resolved(AlertResolution::Recovered);
        follow(&alert);
        let resolved = posted(&receiver);
        assert_eq!(resolved["labels"], firing["labels"]);
        assert_eq!(resolved["annotations"]["resolution"], "recovered");
        assert!(moment(&resolved, "endsAt") <= Timestamp::now());
        assert!(moment(&resolved, "endsAt") >= moment(&resolved, "startsAt"));
        assert_eq!(lock(&sink.standing).all(), []);
        assert_eq!(sink.undelivered(), Undelivered::default());
    }
}
