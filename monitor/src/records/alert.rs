//! The JSON form of an alert: one object, the same in every sink.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

mod evidence;
mod storm;

use evidence::{Evidence, ago};

use crate::records::{clients::ClientFigures, json, owner::OwnerRecord};
use monitor_core::{
    Alert, AlertResolution, ConnId, ConnectionAlert, ConnectionVerdict, Ktime, Subject,
    handshake::ClientAddress, storm::ClientRow,
};

/// The JSON form of an alert.
#[derive(Serialize)]
#[serde(tag = "type", rename = "alert")]
pub struct AlertRecord<'a> {
    #[serde(serialize_with = "json::ts::serialize")]
    ts: Timestamp,
    status: &'static str,
    alert: &'static str,
    kind: &'static str,
    certainty: Option<&'static str>,
    listener: &'a str,
    hop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<&'static str>,
    conn: Option<Conn>,
    evidence: Option<Evidence>,
    #[serde(flatten)]
    storm: Option<storm::Fields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    examples: Option<Vec<Example<'a>>>,
    reason: &'a str,
}

#[derive(Serialize)]
struct Conn {
    #[serde(serialize_with = "json::cookie::serialize")]
    cookie: ConnId,
    local: SocketAddr,
    peer: SocketAddr,
    role: &'static str,
    protocol: &'static str,
    age_seconds: Option<f64>,
    #[serde(flatten)]
    owner: OwnerRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Example<'a> {
    /// One connection of a group.
    Connection {
        conn: Box<Conn>,
        evidence: Box<Evidence>,
        reason: &'a str,
    },
    Client(ClientFigures),
}

impl<'a> AlertRecord<'a> {
    /// `listener` is the name of the alert's listener; `ts` is [`Alert::at`] as wall-clock time.
    pub fn new(alert: &'a Alert, listener: &'a str, ts: Timestamp) -> Self {
        let verdict = alert.subject.verdict();
        let mut line = Self {
            ts,
            status: alert.status.as_str(),
            alert: alert.subject.name(),
            kind: alert.subject.kind(),
            certainty: verdict.map(|(_, certainty)| certainty.as_str()),
            listener,
            hop: alert.hop.as_deref(),
            resolution: alert.resolution().map(AlertResolution::as_str),
            conn: None,
            evidence: None,
            storm: None,
            count: None,
            examples: None,
            reason: &alert.reason,
        };
        match &alert.subject {
            Subject::Connection(verdict) => {
                line.conn = Some(Conn::of(verdict, alert.at));
                line.evidence = Some(Evidence::of(verdict, alert.at));
            }
            Subject::Group(group) => {
                line.count = Some(group.count);
                line.examples = Some(group.examples.iter().map(Example::connection).collect());
            }
            Subject::Listener(finding) => line.evidence = Some(Evidence::of_listener(finding)),
            Subject::Storm(storm) => {
                line.storm = Some(storm::Fields::of(storm, alert.at.since(alert.since)));
                line.examples = Some(storm.examples.iter().map(Example::client).collect());
            }
            Subject::Thrash(thrash) => {
                line.count = Some(thrash.clients);
                line.examples = Some(thrash.examples.iter().map(Example::client).collect());
            }
        }
        line
    }

    /// The object, without a newline.
    pub fn to_json(&self) -> serde_json::Result<String> {
        json::to_string(self)
    }
}

impl<'a> Example<'a> {
    fn connection(alert: &'a ConnectionAlert) -> Self {
        Self::Connection {
            conn: Box::new(Conn::of(&alert.subject, alert.at)),
            evidence: Box::new(Evidence::of(&alert.subject, alert.at)),
            reason: &alert.reason,
        }
    }

    fn client(row: &ClientRow) -> Self {
        Self::Client(ClientFigures::of(row))
    }
}

impl Conn {
    /// `at` is the moment of the alert.
    fn of(verdict: &ConnectionVerdict, at: Ktime) -> Self {
        let facts = &verdict.facts;
        let background = verdict.background.as_deref();
        let owner = background.map(|background| background.owner.clone());
        Self {
            owner: owner.map(OwnerRecord::from).unwrap_or_default(),
            client: background
                .and_then(|background| background.client)
                .map(ClientAddress::reveal),
            cookie: facts.conn,
            local: facts.local,
            peer: facts.peer,
            role: facts.role.as_str(),
            protocol: facts.protocol.as_str(),
            age_seconds: ago(facts, at, facts.established_at),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::records::Now;
    use monitor_core::{
        AlertGroup, Certainty, Facts, ListenerFinding, ListenerId, Status, VerdictKind,
        facts::{DirectionActivity, Protocol, Role},
        storm::{Cause, Pattern, ReconnectStorm, StormPhase},
    };

    /// A suspected connection with values that are hard to serialize.
    pub(crate) fn alert() -> ConnectionAlert {
        let at = Ktime(100_000_000_000);
        Alert {
            status: Status::Firing,
            listener: ListenerId(0),
            hop: Some("lb".into()),
            at,
            since: Ktime(99_000_000_000),
            reason: "quote \" and\nnewline".into(),
            subject: Box::new(ConnectionVerdict {
                kind: VerdictKind::Expired,
                certainty: Certainty::Suspected,
                limit: Duration::from_secs(6),
                facts: Facts {
                    established_at: Some(Ktime(80_000_000_000)),
                    rx: DirectionActivity {
                        last_packet: Some(Ktime(93_000_000_000)),
                        ..DirectionActivity::default()
                    },
                    ..Facts::new(
                        at,
                        ConnId(u64::MAX),
                        ListenerId(0),
                        Role::Server,
                        Protocol::WebSocket,
                        "10.0.0.1:8080".parse().expect("an address"),
                        "[fd00::1]:5000".parse().expect("an address"),
                    )
                },
                background: None,
            }),
        }
    }

    /// An alert on a listener.
    pub(crate) fn on_listener(status: Status, subject: Subject) -> Alert {
        Alert {
            status,
            listener: ListenerId(0),
            hop: None,
            at: Ktime(102_500_000_000),
            since: Ktime(100_000_000_000),
            reason: "a sentence".into(),
            subject,
        }
    }

    /// A storm in progress, after a deploy of a proxy.
    pub(crate) fn storm() -> ReconnectStorm {
        ReconnectStorm {
            phase: StormPhase::Storm,
            pattern: Pattern::Lockstep,
            period: Some(Duration::from_millis(5_000)),
            rate: 1_000.0,
            peak_rate: 2_000.0,
            baseline_rate: 0.123_456,
            attempts: 30,
            successes: 9,
            attempts_per_success: Some(30.0 / 9.0),
            refused: vec![(Some(503), 20), (None, 1)],
            returning_share: Some(1.0),
            closes: 40,
            cause: Some(Cause::ProxyDeploy([192, 0, 2, 1].into())),
            examples: vec![ClientRow {
                client: [192, 0, 2, 7].into(),
                attempts: 5,
                at_most_over: 1,
                accepted: 1,
                refused: 3,
                short_lived: 0,
                attempts_per_minute: 12.0,
                interval: Some(Duration::from_secs(5)),
                open: 1,
                most_open: 1,
                last: Ktime(102_000_000_000),
            }],
        }
    }

    #[test]
    fn a_storm_has_its_fields_and_its_clients() {
        let subject = Subject::Storm(Box::new(storm()));
        let line = written(&on_listener(Status::Firing, subject));
        assert_eq!(
            (&line["alert"], &line["status"]),
            (&"reconnect_storm".into(), &"firing".into())
        );
        assert_eq!(line["ts"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            (&line["phase"], &line["pattern"]),
            (&"storm".into(), &"lockstep".into())
        );
        assert_eq!(line["period_seconds"], 5.0);
        assert_eq!(line["baseline_rate"], 0.123);
        assert_eq!(line["attempts_per_success"], 3.333);
        assert_eq!(
            (&line["cause"], &line["cause_peer"]),
            (&"proxy_deploy".into(), &"192.0.2.1".into())
        );
        assert_eq!(line["cause_seconds"], Value::Null);
        assert_eq!(line["lasted_seconds"], 2.5);
        assert_eq!(line["refused"][0]["status"], 503);
        assert_eq!(line["refused"][1]["status"], Value::Null);
        assert_eq!(line["examples"][0]["client"], "192.0.2.7");
        assert_eq!(line["examples"][0]["attempts_per_minute"], 12.0);
        assert!(line.get("count").is_none() && line["conn"].is_null());
    }

    fn written(alert: &Alert) -> Value {
        let line = AlertRecord::new(alert, "8080", Timestamp::UNIX_EPOCH);
        let text = line.to_json().expect("JSON");
        assert!(!text.contains('\n'), "one line: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn an_alert_is_one_line_with_the_documented_fields() {
        let firing = written(&alert().into());
        assert_eq!(firing["ts"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(firing["status"], "firing");
        assert_eq!(firing["alert"], "zombie");
        assert_eq!(firing["kind"], "expired");
        assert_eq!(firing["certainty"], "suspected");
        assert_eq!(firing["listener"], "8080");
        assert_eq!(firing["hop"], "lb");
        assert_eq!(firing["conn"]["cookie"], "18446744073709551615");
        assert_eq!(firing["conn"]["peer"], "[fd00::1]:5000");
        assert_eq!(firing["conn"]["age_seconds"], 20.0);
        assert_eq!(firing["evidence"]["idle_seconds"], 7.0);
        assert_eq!(firing["evidence"]["last_tx_seconds"], Value::Null);
        assert_eq!(firing["evidence"]["limit_seconds"], 6.0);
        assert!(firing.get("resolution").is_none());
        let resolved = Alert {
            status: Status::Resolved(AlertResolution::Recovered),
            ..alert()
        };
        assert_eq!(written(&resolved.into())["resolution"], "recovered");
    }

    #[test]
    fn a_group_names_its_examples_instead_of_a_connection() {
        let group = Subject::Group(AlertGroup {
            kind: VerdictKind::Expired,
            certainty: Certainty::Suspected,
            count: 480,
            examples: vec![alert(), alert()],
        });
        let group = written(&on_listener(Status::Firing, group));
        assert_eq!(
            (&group["alert"], &group["kind"]),
            (&"zombie".into(), &"expired".into())
        );
        assert_eq!(group["conn"], Value::Null);
        assert_eq!(group["evidence"], Value::Null);
        assert_eq!(group["count"], 480);
        let examples = group["examples"].as_array().expect("an array");
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[0]["conn"]["peer"], "[fd00::1]:5000");
        assert_eq!(examples[0]["evidence"]["limit_seconds"], 6.0);
    }

    #[test]
    fn a_listener_alert_has_the_evidence_of_its_finding() {
        let of = |finding| {
            let resolved = Status::Resolved(AlertResolution::Recovered);
            written(&on_listener(resolved, Subject::Listener(finding)))
        };
        let at_risk = of(ListenerFinding::AtRisk {
            gap: Duration::from_millis(61_500),
            limit: Duration::from_secs(60),
        });
        assert_eq!(at_risk["status"], "resolved");
        assert_eq!(at_risk["alert"], "at_risk");
        assert!(at_risk.get("resolution").is_none());
        assert_eq!(at_risk["certainty"], Value::Null);
        assert_eq!(at_risk["evidence"]["gap_p99_seconds"], 61.5);
        assert_eq!(at_risk["evidence"]["margin_seconds"], -1.5);
        let mismatch = of(ListenerFinding::LimitMismatch {
            limit: Some(Duration::from_secs(60)),
            survived: Some(Duration::from_secs(90)),
            killed: None,
        });
        assert_eq!(mismatch["kind"], "limit_mismatch");
        assert_eq!(mismatch["evidence"]["survived_seconds"], 90.0);
        assert_eq!(mismatch["evidence"]["killed_seconds"], Value::Null);
        let lifetime = of(ListenerFinding::LifetimeMismatch {
            limit: None,
            age: Duration::from_secs(3600),
            deaths: 12,
        });
        assert_eq!(lifetime["alert"], "limit_mismatch");
        assert_eq!(lifetime["kind"], "lifetime_mismatch");
        assert_eq!(lifetime["evidence"]["age_seconds"], 3600.0);
        assert_eq!(lifetime["evidence"]["deaths"], 12);
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        let now = Now {
            at: Ktime(2_000_000_001),
            ts: "2026-11-22T18:37:52+01:00".parse().expect("a time"),
        };
        let alert = alert().into();
        let line = AlertRecord::new(&alert, "8080", now.wall_clock(Ktime(1)));
        let line = serde_json::to_value(line).expect("JSON");
        assert_eq!(line["ts"], "2026-11-22T17:37:50.000000Z");
    }
}
