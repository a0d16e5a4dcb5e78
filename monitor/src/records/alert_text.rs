//! An alert as text.

use std::{fmt, net::SocketAddr};

use jiff::Timestamp;
use serde::Deserialize;

use super::{json, owner::OwnerRecord, owner_text::owner_text, printable::printable};
use monitor_core::ConnId;

/// A line of the alert log, without the fields that only programs read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AlertLine {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    /// `firing` or `resolved`.
    pub status: String,
    pub alert: String,
    pub kind: String,
    /// `None` on a listener.
    pub certainty: Option<String>,
    pub listener: String,
    /// `None` in a group and on a listener.
    pub conn: Option<AlertConn>,
    /// Of a reconnect storm.
    pub phase: Option<String>,
    /// The number of alerts in a group, or of clients that thrash.
    pub count: Option<u64>,
    pub reason: String,
}

/// The connection of an alert.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AlertConn {
    #[serde(with = "json::cookie")]
    pub cookie: ConnId,
    pub peer: SocketAddr,
    #[serde(flatten)]
    pub owner: OwnerRecord,
}

impl AlertLine {
    /// Parses a line of the alert log.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    /// What the alert is: `suspected zombie/expired`, `resolved zombie/expired`, `reconnect_storm
    /// (mass_close)`.
    pub fn title(&self) -> String {
        let Self {
            status,
            alert,
            kind,
            certainty,
            phase,
            ..
        } = self;
        let mut title = match (status.as_str(), certainty) {
            ("firing", Some(certainty)) => format!("{certainty} "),
            ("firing", None) => String::new(),
            (status, _) => format!("{status} "),
        };
        title += alert;
        if kind != alert {
            title += "/";
            title += kind;
        }
        if let Some(phase) = phase {
            title += &format!(" ({phase})");
        }
        printable(&title)
    }

    /// What the alert is about: a peer with the owner of this host's end, connections of a listener, or
    /// the listener.
    pub fn subject(&self) -> String {
        let listener = printable(&self.listener);
        match (&self.conn, self.count) {
            (Some(conn), _) => match owner_text(&conn.owner) {
                Some(owner) => format!("{} {owner}", conn.peer),
                None => conn.peer.to_string(),
            },
            (None, Some(count)) if self.certainty.is_some() => {
                format!("{count} connections of {listener}")
            }
            (None, _) => format!("on {listener}"),
        }
    }

    /// The evidence, or how the alert ended.
    pub fn reason(&self) -> String {
        printable(&self.reason)
    }
}

/// An alert on one line, without a newline:
/// `18:37:50 suspected zombie/expired 10.0.0.7:53787 node (pid 812): idle 10.2 s on a path …`. The time
/// is UTC, and the alternate form (`{:#}`) begins with its date.
#[derive(Clone, Copy, Debug)]
pub struct AlertText<'a>(pub &'a AlertLine);

impl fmt::Display for AlertText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0;
        if f.alternate() {
            write!(f, "{} ", line.ts.strftime("%Y-%m-%d"))?;
        }
        write!(
            f,
            "{} {} {}: {}",
            line.ts.strftime("%H:%M:%S"),
            line.title(),
            line.subject(),
            line.reason()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::{
        alert::{
            AlertRecord,
            tests::{alert, on_listener, storm},
        },
        owner_text::tests::{hostile, is_safe},
    };
    use monitor_core::{
        Alert, AlertGroup, AlertResolution, Certainty, CloseHow, ListenerFinding, Status, Subject,
        VerdictKind,
        background::{Background, Owner},
    };

    fn line(alert: &Alert) -> AlertLine {
        let record = AlertRecord::new(alert, "8080", Timestamp::UNIX_EPOCH);
        let text = record.to_json().expect("JSON");
        AlertLine::parse(text.as_bytes()).expect("an alert")
    }

    fn text(alert: &Alert) -> String {
        AlertText(&line(alert)).to_string()
    }

    #[test]
    fn a_verdict_has_its_peer_and_the_owner_of_this_end() {
        let mut firing = alert();
        firing.reason = "this host's reason".into();
        assert_eq!(
            text(&firing.clone().into()),
            "00:00:00 suspected zombie/expired [fd00::1]:5000: this host's reason"
        );
        let dated = format!("{:#}", AlertText(&line(&firing.clone().into())));
        assert!(
            dated.starts_with("1970-01-01 00:00:00 suspected "),
            "{dated}"
        );
        let owner = Owner {
            pod_namespace: Some("shop".into()),
            pod_name: Some("chat-0".into()),
            pid: Some(812),
            comm: Some("node".into()),
            ..Owner::default()
        };
        let background = Background {
            owner,
            client: None,
            tcp: None,
        };
        firing.subject.background = Some(Box::new(background));
        assert_eq!(
            text(&firing.clone().into()),
            "00:00:00 suspected zombie/expired [fd00::1]:5000 shop/chat-0 (node, pid 812): this host's reason"
        );
        firing.status = Status::Resolved(AlertResolution::Closed(CloseHow::Fin));
        firing.reason = "closed by a FIN after 7.5 s".into();
        firing.subject.background = None;
        assert_eq!(
            text(&firing.into()),
            "00:00:00 resolved zombie/expired [fd00::1]:5000: closed by a FIN after 7.5 s"
        );
    }

    #[test]
    fn a_warning_is_named_once() {
        let mut warning = alert();
        warning.subject.kind = VerdictKind::Quiet;
        assert_eq!(line(&warning.into()).title(), "suspected quiet");
    }

    #[test]
    fn groups_findings_and_storms_name_their_listener() {
        let group = Subject::Group(AlertGroup {
            kind: VerdictKind::BlackHoled,
            certainty: Certainty::Confirmed,
            count: 480,
            examples: vec![alert()],
        });
        let finding = Subject::Listener(ListenerFinding::LifetimeMismatch {
            limit: None,
            age: Duration::from_secs(3_600),
            deaths: 12,
        });
        let storm = Subject::Storm(Box::new(storm()));
        for (subject, expected) in [
            (
                group,
                "00:00:00 confirmed zombie/black_holed 480 connections of 8080: a sentence",
            ),
            (
                finding,
                "00:00:00 limit_mismatch/lifetime_mismatch on 8080: a sentence",
            ),
            (
                storm,
                "00:00:00 reconnect_storm (storm) on 8080: a sentence",
            ),
        ] {
            assert_eq!(text(&on_listener(Status::Firing, subject)), expected);
        }
    }

    #[test]
    fn hostile_text_breaks_neither_the_line_nor_a_terminal() {
        let mut line = line(&alert().into());
        let evil = "ev\n\u{1b}[2J\u{9b}\u{2028}\u{202e}il";
        for text in [
            &mut line.status,
            &mut line.alert,
            &mut line.kind,
            &mut line.listener,
            &mut line.reason,
        ] {
            *text = evil.to_owned();
        }
        line.phase = Some(evil.to_owned());
        if let Some(conn) = &mut line.conn {
            conn.owner = hostile();
        }
        let with_owner = AlertText(&line).to_string();
        line.conn = None;
        let without = AlertText(&line).to_string();
        assert!(
            is_safe(&with_owner) && is_safe(&without),
            "{with_owner:?} {without:?}"
        );
    }
}
