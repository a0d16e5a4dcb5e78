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
    Alert, ConnId, ConnectionVerdict, ListenerFinding, ListenerId, Subject, VerdictKind, group,
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
    families: BTreeMap<(ListenerId, VerdictKind), PostedAlerts>,
    /// By the name of the alert.
    listeners: BTreeMap<(ListenerId, &'static str), Post>,
}

/// The alerts of one listener and kind.
#[derive(Debug, Default)]
struct PostedAlerts {
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
    /// `instance` is the name of this host, as a label.
    pub(super) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            families: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Records an alert and returns what to post immediately. `since` and `at` are those of the alert as
    /// wall-clock time.
    pub(super) fn follow(
        &mut self,
        alert: &Alert,
        listener: &str,
        since: Timestamp,
        at: Timestamp,
    ) -> Option<Post> {
        let post = |conn| Post {
            labels: Arc::new(labels(&self.instance, alert, listener, conn)),
            annotations: Arc::new(annotations(alert, listener)),
            starts_at: since,
            ends_at: (!alert.is_firing()).then_some(at),
        };
        match &alert.subject {
            Subject::Connection(verdict) => {
                let conn = verdict.facts.conn;
                let key = (alert.listener, verdict.kind);
                let family = self.families.entry(key).or_default();
                if family.is_single(conn, alert.is_firing()) {
                    stand(&mut family.singles, conn, post(Some(conn)))
                } else if alert.is_firing() {
                    family.join_rest(conn, || Post {
                        annotations: Arc::new(rest_annotations(alert, verdict, listener)),
                        ..post(None)
                    })
                } else {
                    family.leave_rest(conn, at)
                }
            }
            Subject::Listener(_) | Subject::Storm(_) | Subject::Thrash(_) => {
                let key = (alert.listener, alert.subject.kind());
                stand(&mut self.listeners, key, post(None))
            }
            // Its alerts were followed one by one.
            Subject::Group(_) => None,
        }
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

/// Keeps an alert until it ends. Its start time remains that of the first post.
fn stand<K: Ord>(standing: &mut BTreeMap<K, Post>, key: K, mut post: Post) -> Option<Post> {
    match standing.remove(&key) {
        Some(before) => post.starts_at = before.starts_at,
        None if post.ends_at.is_some() => return None,
        None => {}
    }
    match &mut post.ends_at {
        Some(end) => *end = (*end).max(post.starts_at),
        None => drop(standing.insert(key, post.clone())),
    }
    Some(post)
}

impl PostedAlerts {
    /// Whether the connection has its own alert, or gets one now.
    fn is_single(&self, conn: ConnId, is_firing: bool) -> bool {
        let rest = self.rest.as_ref();
        let is_in_rest = || rest.is_some_and(|rest| rest.conns.contains(&conn));
        self.singles.contains_key(&conn)
            || (is_firing && self.singles.len() < SINGLES && !is_in_rest())
    }

    fn join_rest(&mut self, conn: ConnId, post: impl FnOnce() -> Post) -> Option<Post> {
        if let Some(rest) = &mut self.rest {
            rest.conns.insert(conn);
            return None;
        }
        let rest = OverflowAlert {
            conns: HashSet::from([conn]),
            post: post(),
        };
        Some(self.rest.insert(rest).now())
    }

    fn leave_rest(&mut self, conn: ConnId, at: Timestamp) -> Option<Post> {
        let rest = self.rest.as_mut()?;
        rest.conns.remove(&conn);
        if !rest.conns.is_empty() {
            return None;
        }
        let mut post = self.rest.take()?.now();
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

/// `conn` is the connection that has this alert to itself.
fn labels(instance: &str, alert: &Alert, listener: &str, conn: Option<ConnId>) -> Pairs {
    let verdict = alert.subject.verdict();
    let (name, severity) = match &alert.subject {
        Subject::Connection(_) | Subject::Group(_) => match verdict {
            Some((VerdictKind::Expiring, _)) => ("WebSocketExpiring", "info"),
            Some((VerdictKind::Quiet, _)) => ("WebSocketQuiet", "info"),
            _ => ("WebSocketZombie", "warning"),
        },
        Subject::Listener(ListenerFinding::AtRisk { .. }) => ("WebSocketAtRisk", "warning"),
        Subject::Listener(_) => ("WebSocketLimitMismatch", "warning"),
        Subject::Storm(_) => ("WebSocketReconnectStorm", "warning"),
        Subject::Thrash(_) => ("WebSocketThrash", "warning"),
    };
    let mut labels = Pairs::from([
        ("alertname", name.to_owned()),
        ("instance", instance.to_owned()),
        ("kind", alert.subject.kind().to_owned()),
        ("listener", listener.to_owned()),
        ("severity", severity.to_owned()),
    ]);
    labels.extend(conn.map(|conn| ("cookie", conn.0.to_string())));
    labels
}

fn annotations(alert: &Alert, listener: &str) -> Pairs {
    let mut summary = format!("{} on {listener}", alert.subject.name());
    let mut annotations = Pairs::from([("description", alert.reason.clone())]);
    match &alert.subject {
        Subject::Connection(verdict) => {
            let (kind, facts) = (verdict.kind.as_str(), &verdict.facts);
            summary = format!("{kind}: connection of {} on {listener}", facts.peer);
            annotations.extend([
                ("certainty", verdict.certainty.as_str().to_owned()),
                ("local", facts.local.to_string()),
                ("peer", facts.peer.to_string()),
            ]);
        }
        Subject::Storm(storm) => {
            let cause = storm
                .cause
                .map(|cause| ("cause", cause.as_str().to_owned()));
            annotations.extend(cause);
            annotations.insert("phase", storm.phase.as_str().to_owned());
            annotations.insert("pattern", storm.pattern.as_str().to_owned());
        }
        Subject::Thrash(thrash) => {
            annotations.insert("count", thrash.clients.to_string());
        }
        Subject::Group(_) | Subject::Listener(_) => {}
    }
    annotations.insert("summary", summary);
    annotations.extend(alert.hop.clone().map(|hop| ("hop", hop)));
    let resolution = alert.resolution();
    annotations.extend(resolution.map(|it| ("resolution", it.as_str().to_owned())));
    annotations
}

/// Of the alert that many connections share; `alert` is on the first of them.
fn rest_annotations(alert: &Alert, first: &ConnectionVerdict, listener: &str) -> Pairs {
    let (kind, peer) = (first.kind.as_str(), first.facts.peer);
    Pairs::from([
        (
            "description",
            format!("the first of them, {peer}: {}", alert.reason),
        ),
        (
            "summary",
            format!("{kind}: more connections on {listener} than have alerts of their own"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::alert;
    use monitor_core::{AlertResolution, Certainty, ConnectionAlert, Status, storm::StormPhase};

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn verdict(conn: u64, status: Status) -> ConnectionAlert {
        let mut alert = alert::tests::alert();
        alert.subject.facts.conn = ConnId(conn);
        alert.status = status;
        alert
    }

    fn follow(standing: &mut StandingAlerts, conn: u64, status: Status) -> Option<Post> {
        standing.follow(&verdict(conn, status).into(), "8080", AT, AT)
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
        confirmed.subject.certainty = Certainty::Confirmed;
        assert_eq!(standing.follow(&confirmed.into(), "8080", AT, AT), None);
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
        let storm = alert::tests::storm();
        let reported = |phase| {
            let mut storm = storm.clone();
            storm.phase = phase;
            let status = match phase {
                StormPhase::Over => RECOVERED,
                StormPhase::MassClose | StormPhase::Storm => FIRING,
            };
            alert::tests::on_listener(status, Subject::Storm(Box::new(storm)))
        };
        let later = AT + jiff::Span::new().seconds(9);
        let begun = standing.follow(&reported(StormPhase::MassClose), "8080", AT, AT);
        let begun = begun.expect("posted");
        assert_eq!(begun.labels["alertname"], "WebSocketReconnectStorm");
        assert!(
            begun
                .labels
                .values()
                .all(|label| !label.contains("192.0.2"))
        );
        let raging = standing.follow(&reported(StormPhase::Storm), "8080", later, later);
        let raging = raging.expect("posted");
        assert_eq!((&raging.labels, raging.starts_at), (&begun.labels, AT));
        assert_eq!(raging.annotations["phase"], "storm");
        assert_eq!(standing.all(), std::slice::from_ref(&raging));
        let over = standing.follow(&reported(StormPhase::Over), "8080", later, later);
        let over = over.expect("posted");
        assert_eq!((&over.labels, over.ends_at), (&begun.labels, Some(later)));
        assert_eq!(standing.all(), []);
        assert_eq!(
            standing.follow(&reported(StormPhase::Over), "8080", later, later),
            None
        );
    }

    #[test]
    fn a_listener_alert_stands_until_it_ends() {
        let mut standing = StandingAlerts::new("host");
        let at_risk = |status, gap| {
            let finding = ListenerFinding::AtRisk {
                gap: Duration::from_secs(gap),
                limit: Duration::from_secs(60),
            };
            alert::tests::on_listener(status, Subject::Listener(finding))
        };
        let mut follow = |status, gap| standing.follow(&at_risk(status, gap), "8080", AT, AT);
        let firing = follow(FIRING, 58).expect("posted");
        assert_eq!(firing.labels["alertname"], "WebSocketAtRisk");
        let ended = follow(RECOVERED, 20).expect("posted");
        assert_eq!(ended.labels, firing.labels);
        assert_eq!(ended.ends_at, Some(AT));
        assert!(!ended.annotations.contains_key("resolution"));
        assert_eq!(follow(RECOVERED, 20), None);
    }
}
