//! The currently standing alerts, in Alertmanager's terms.
//!
//! For each listener and kind, at most [`SINGLES`] connections have their own alert, with the label
//! `cookie`. All others share one alert without that label, which has their count. This bounds what is
//! posted every minute, however many connections die.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;

use monitor_core::{
    Alert, ConnId, ListenerAlert, ListenerFinding, ListenerId, Status, StormAlert, VerdictKind,
    group, storm::StormFinding,
};

/// Connections of one listener and kind with their own alert.
const SINGLES: usize = group::SINGLY;

/// Labels or annotations.
pub(super) type Pairs = BTreeMap<&'static str, String>;

/// An alert to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Post {
    /// The alert's identity, constant while it stands.
    pub(super) labels: Arc<Pairs>,
    pub(super) annotations: Arc<Pairs>,
    pub(super) starts_at: Timestamp,
    /// `None` while it stands.
    pub(super) ends_at: Option<Timestamp>,
}

/// All standing alerts.
#[derive(Debug)]
pub(super) struct StandingAlerts {
    instance: String,
    families: BTreeMap<(ListenerId, VerdictKind), AlertFamily>,
    /// By the name of the alert.
    listeners: BTreeMap<(ListenerId, &'static str), Post>,
}

/// The alerts of one listener and kind.
#[derive(Debug, Default)]
struct AlertFamily {
    singles: BTreeMap<ConnId, Post>,
    rest: Option<OverflowAlert>,
}

/// The connections that share an alert.
#[derive(Debug)]
struct OverflowAlert {
    conns: HashSet<ConnId>,
    /// The alert as of the first of these connections.
    post: Post,
}

impl StandingAlerts {
    /// `instance` is the name of this host.
    pub(super) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            families: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Records a verdict and returns what to post immediately. `since` and `at` are those of the alert
    /// as wall-clock time.
    pub(super) fn connection(
        &mut self,
        alert: &Alert,
        listener: &str,
        since: Timestamp,
        at: Timestamp,
    ) -> Option<Post> {
        let labels = |conn| connection_labels(&self.instance, alert, listener, conn);
        let key = (alert.listener, alert.kind);
        let conn = alert.facts.conn;
        let family = self.families.entry(key).or_default();
        if alert.status != Status::Firing {
            return family.end(alert, listener, at);
        }
        if let Some(single) = family.singles.get_mut(&conn) {
            single.annotations = Arc::new(connection_annotations(alert, listener));
            return Some(single.clone());
        }
        if family.singles.len() < SINGLES && !family.has_in_rest(conn) {
            let post = Post {
                labels: Arc::new(labels(Some(conn))),
                annotations: Arc::new(connection_annotations(alert, listener)),
                starts_at: since,
                ends_at: None,
            };
            family.singles.insert(conn, post.clone());
            return Some(post);
        }
        match &mut family.rest {
            Some(rest) => {
                rest.conns.insert(conn);
                None
            }
            None => {
                let rest = OverflowAlert {
                    conns: HashSet::from([conn]),
                    post: Post {
                        labels: Arc::new(labels(None)),
                        annotations: Arc::new(rest_annotations(alert, listener)),
                        starts_at: since,
                        ends_at: None,
                    },
                };
                let post = rest.now();
                family.rest = Some(rest);
                Some(post)
            }
        }
    }

    /// Records an alert on a listener and returns what to post immediately. `at` is the alert's as
    /// wall-clock time.
    pub(super) fn listener(
        &mut self,
        alert: &ListenerAlert,
        listener: &str,
        at: Timestamp,
    ) -> Option<Post> {
        let key = (alert.listener, alert.finding.kind());
        let post = Post {
            labels: Arc::new(listener_labels(&self.instance, alert, listener)),
            annotations: Arc::new(listener_annotations(alert, listener)),
            starts_at: at,
            ends_at: (!alert.firing).then_some(at),
        };
        self.stand(key, post)
    }

    /// Records an alert on a storm and returns what to post immediately. `since` and `at` are the
    /// alert's as wall-clock time.
    pub(super) fn storm(
        &mut self,
        alert: &StormAlert,
        listener: &str,
        since: Timestamp,
        at: Timestamp,
    ) -> Option<Post> {
        let key = (alert.listener, alert.alert());
        let post = Post {
            labels: Arc::new(storm_labels(&self.instance, alert, listener)),
            annotations: Arc::new(storm_annotations(alert, listener)),
            starts_at: since,
            ends_at: (!alert.is_firing()).then_some(at),
        };
        self.stand(key, post)
    }

    /// Keeps an alert on a listener until it ends. Its start time remains that of the first post.
    fn stand(&mut self, key: (ListenerId, &'static str), mut post: Post) -> Option<Post> {
        match self.listeners.remove(&key) {
            Some(before) => post.starts_at = before.starts_at,
            None if post.ends_at.is_some() => return None,
            None => {}
        }
        match &mut post.ends_at {
            Some(end) => *end = (*end).max(post.starts_at),
            None => drop(self.listeners.insert(key, post.clone())),
        }
        Some(post)
    }

    /// Everything that stands.
    pub(super) fn all(&self) -> Vec<Post> {
        let of_connections = self.families.values().flat_map(|family| {
            let rest = family.rest.as_ref().map(OverflowAlert::now);
            family.singles.values().cloned().chain(rest)
        });
        of_connections
            .chain(self.listeners.values().cloned())
            .collect()
    }
}

impl AlertFamily {
    fn has_in_rest(&self, conn: ConnId) -> bool {
        let rest = self.rest.as_ref();
        rest.is_some_and(|rest| rest.conns.contains(&conn))
    }

    fn end(&mut self, alert: &Alert, listener: &str, at: Timestamp) -> Option<Post> {
        let conn = alert.facts.conn;
        let mut post = match self.singles.remove(&conn) {
            Some(single) => Post {
                annotations: Arc::new(connection_annotations(alert, listener)),
                ..single
            },
            None => {
                let rest = self.rest.as_mut()?;
                rest.conns.remove(&conn);
                if !rest.conns.is_empty() {
                    return None;
                }
                self.rest.take()?.now()
            }
        };
        post.ends_at = Some(at.max(post.starts_at));
        Some(post)
    }
}

impl OverflowAlert {
    fn now(&self) -> Post {
        let mut annotations = (*self.post.annotations).clone();
        annotations.insert("count", self.conns.len().to_string());
        Post {
            annotations: Arc::new(annotations),
            ..self.post.clone()
        }
    }
}

fn connection_labels(instance: &str, alert: &Alert, listener: &str, conn: Option<ConnId>) -> Pairs {
    let (name, severity) = match alert.kind {
        VerdictKind::Expiring => ("WebSocketExpiring", "info"),
        VerdictKind::Quiet => ("WebSocketQuiet", "info"),
        _ => ("WebSocketZombie", "warning"),
    };
    let mut labels = Pairs::from([
        ("alertname", name.to_owned()),
        ("instance", instance.to_owned()),
        ("kind", alert.kind.as_str().to_owned()),
        ("listener", listener.to_owned()),
        ("severity", severity.to_owned()),
    ]);
    labels.extend(conn.map(|conn| ("cookie", conn.0.to_string())));
    labels
}

fn connection_annotations(alert: &Alert, listener: &str) -> Pairs {
    let facts = &alert.facts;
    let kind = alert.kind.as_str();
    let mut annotations = Pairs::from([
        ("certainty", alert.certainty.as_str().to_owned()),
        ("description", alert.reason.clone()),
        ("local", facts.local.to_string()),
        ("peer", facts.peer.to_string()),
        (
            "summary",
            format!("{kind}: connection of {} on {listener}", facts.peer),
        ),
    ]);
    annotations.extend(alert.hop.clone().map(|hop| ("hop", hop)));
    if let Status::Resolved(resolution) = alert.status {
        annotations.insert("resolution", resolution.as_str().to_owned());
    }
    annotations
}

fn rest_annotations(alert: &Alert, listener: &str) -> Pairs {
    let kind = alert.kind.as_str();
    let first = &alert.facts.peer;
    Pairs::from([
        (
            "description",
            format!("the first of them, {first}: {}", alert.reason),
        ),
        (
            "summary",
            format!("{kind}: more connections on {listener} than have alerts of their own"),
        ),
    ])
}

fn listener_labels(instance: &str, alert: &ListenerAlert, listener: &str) -> Pairs {
    let name = match alert.finding {
        ListenerFinding::AtRisk { .. } => "WebSocketAtRisk",
        ListenerFinding::LimitMismatch { .. } | ListenerFinding::LifetimeMismatch { .. } => {
            "WebSocketLimitMismatch"
        }
    };
    Pairs::from([
        ("alertname", name.to_owned()),
        ("instance", instance.to_owned()),
        ("kind", alert.finding.kind().to_owned()),
        ("listener", listener.to_owned()),
        ("severity", "warning".to_owned()),
    ])
}

fn storm_labels(instance: &str, alert: &StormAlert, listener: &str) -> Pairs {
    let name = match alert.finding {
        StormFinding::Reconnect(_) => "WebSocketReconnectStorm",
        StormFinding::Thrash(_) => "WebSocketThrash",
    };
    Pairs::from([
        ("alertname", name.to_owned()),
        ("instance", instance.to_owned()),
        ("kind", alert.alert().to_owned()),
        ("listener", listener.to_owned()),
        ("severity", "warning".to_owned()),
    ])
}

fn storm_annotations(alert: &StormAlert, listener: &str) -> Pairs {
    let mut annotations = Pairs::from([
        ("description", alert.reason().to_owned()),
        ("summary", format!("{} on {listener}", alert.alert())),
    ]);
    match &alert.finding {
        StormFinding::Reconnect(storm) => {
            annotations.insert("phase", storm.phase.as_str().to_owned());
            annotations.insert("pattern", storm.pattern.as_str().to_owned());
            let cause = storm.cause.map(|cause| cause.as_str().to_owned());
            annotations.extend(cause.map(|cause| ("cause", cause)));
        }
        StormFinding::Thrash(thrash) => {
            annotations.insert("count", thrash.clients.to_string());
        }
    }
    annotations
}

fn listener_annotations(alert: &ListenerAlert, listener: &str) -> Pairs {
    let name = alert.finding.alert();
    let mut annotations = Pairs::from([
        ("description", alert.reason.clone()),
        ("summary", format!("{name} on {listener}")),
    ]);
    annotations.extend(alert.hop.clone().map(|hop| ("hop", hop)));
    annotations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::alert_line;
    use monitor_core::{AlertResolution, Certainty, Ktime, storm::StormPhase};

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn verdict(conn: u64, status: Status) -> Alert {
        let mut alert = alert_line::tests::alert();
        alert.facts.conn = ConnId(conn);
        alert.status = status;
        alert
    }

    fn follow(standing: &mut StandingAlerts, conn: u64, status: Status) -> Option<Post> {
        standing.connection(&verdict(conn, status), "8080", AT, AT)
    }

    const FIRING: Status = Status::Firing;
    const RECOVERED: Status = Status::Resolved(AlertResolution::Recovered);

    #[test]
    fn ten_thousand_verdicts_are_twenty_alerts_and_a_shared_one_and_all_of_them_end() {
        let mut standing = StandingAlerts::new("host");
        let begun: Vec<_> = (0..10_000)
            .filter_map(|conn| follow(&mut standing, conn, FIRING))
            .collect();
        assert_eq!(begun.len(), SINGLES + 1);
        let rest = begun.last().expect("the shared alert");
        assert!(!rest.labels.contains_key("cookie"));
        let all = standing.all();
        assert_eq!(all.len(), SINGLES + 1);
        assert!(all.iter().all(|post| post.ends_at.is_none()));
        assert_eq!(all[SINGLES].annotations["count"], "9980");

        let ended: Vec<_> = (0..10_000)
            .filter_map(|conn| follow(&mut standing, conn, RECOVERED))
            .collect();
        let labels = |posts: &[Post]| -> HashSet<Pairs> {
            posts.iter().map(|post| (*post.labels).clone()).collect()
        };
        assert_eq!(labels(&ended), labels(&begun));
        assert!(ended.iter().all(|post| post.ends_at.is_some()));
        assert_eq!(standing.all(), []);
    }

    #[test]
    fn a_connection_in_the_shared_alert_stays_there_when_others_end() {
        let mut standing = StandingAlerts::new("host");
        for conn in 0..30 {
            follow(&mut standing, conn, FIRING);
        }
        assert!(follow(&mut standing, 3, RECOVERED).is_some());
        let mut confirmed = verdict(25, FIRING);
        confirmed.certainty = Certainty::Confirmed;
        assert_eq!(standing.connection(&confirmed, "8080", AT, AT), None);
        // A new connection takes the free place.
        let new = follow(&mut standing, 99, FIRING).expect("its own alert");
        assert_eq!(new.labels["cookie"], "99");
        assert_eq!(standing.all()[SINGLES].annotations["count"], "10");
    }

    #[test]
    fn the_end_of_an_unknown_alert_is_not_posted() {
        let mut standing = StandingAlerts::new("host");
        assert_eq!(follow(&mut standing, 1, RECOVERED), None);
        follow(&mut standing, 1, FIRING);
        assert_eq!(follow(&mut standing, 2, RECOVERED), None);
        assert_eq!(standing.all().len(), 1);
    }

    #[test]
    fn a_storm_is_one_alert_until_its_end_and_names_no_client_in_a_label() {
        let mut standing = StandingAlerts::new("host");
        let storm = alert_line::tests::storm();
        let reported = |phase| {
            let mut storm = storm.clone();
            storm.phase = phase;
            storm.firing = phase != StormPhase::Over;
            StormAlert {
                listener: ListenerId(0),
                finding: StormFinding::Reconnect(Box::new(storm)),
            }
        };
        let later = AT + jiff::Span::new().seconds(9);
        let begun = standing.storm(&reported(StormPhase::MassClose), "8080", AT, AT);
        let begun = begun.expect("posted");
        assert_eq!(begun.labels["alertname"], "WebSocketReconnectStorm");
        assert!(
            begun
                .labels
                .values()
                .all(|label| !label.contains("192.0.2"))
        );
        let raging = standing.storm(&reported(StormPhase::Storm), "8080", later, later);
        let raging = raging.expect("posted");
        assert_eq!((&raging.labels, raging.starts_at), (&begun.labels, AT));
        assert_eq!(raging.annotations["phase"], "storm");
        assert_eq!(standing.all(), std::slice::from_ref(&raging));
        let over = standing.storm(&reported(StormPhase::Over), "8080", later, later);
        let over = over.expect("posted");
        assert_eq!((&over.labels, over.ends_at), (&begun.labels, Some(later)));
        assert_eq!(standing.all(), []);
        assert_eq!(
            standing.storm(&reported(StormPhase::Over), "8080", later, later),
            None
        );
    }

    #[test]
    fn a_listener_alert_stands_until_it_ends() {
        let mut standing = StandingAlerts::new("host");
        let mut alert = ListenerAlert {
            firing: true,
            listener: ListenerId(0),
            hop: Some("lb".into()),
            at: Ktime(1),
            finding: ListenerFinding::AtRisk {
                gap: Duration::from_secs(58),
                limit: Duration::from_secs(60),
            },
            reason: "a sentence".into(),
        };
        let firing = standing.listener(&alert, "8080", AT).expect("posted");
        assert_eq!(firing.labels["alertname"], "WebSocketAtRisk");
        assert_eq!(standing.all(), std::slice::from_ref(&firing));
        alert.firing = false;
        alert.finding = ListenerFinding::AtRisk {
            gap: Duration::from_secs(20),
            limit: Duration::from_secs(60),
        };
        let ended = standing.listener(&alert, "8080", AT).expect("posted");
        assert_eq!(ended.labels, firing.labels);
        assert_eq!(ended.ends_at, Some(AT));
        assert_eq!(standing.all(), []);
        assert_eq!(standing.listener(&alert, "8080", AT), None);
    }
}
