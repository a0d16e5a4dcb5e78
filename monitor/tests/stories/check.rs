//! Plays a story through the packet logic and the core, and compares the reports with the row and with
//! the true states.

use std::{convert::Infallible, fmt};

use monitor::{
    config::listeners::{ListenerConfig, PortRange},
    replay::{Capture, Replay, ReplayRecord, play},
};
use monitor_core::{
    Alert, Certainty, ConnId, ConnectionAlert, ConnectionVerdict, Status, Subject, VerdictKind,
    facts::Facts, storm::Pattern,
};
use wire::{Conversation, Recording, SECOND, START};

use crate::{
    story::Story,
    world::{Life, nanos, simulate},
};

/// One report.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) at: f64,
    /// In the form of the rows.
    pub(crate) what: String,
    /// The connection's alert, or the examples of a group.
    alerts: Vec<ConnectionAlert>,
    /// For a group: the number of zombies in addition to the examples.
    grouped: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s: {}", self.at, self.what)
    }
}

impl Report {
    /// A report without alerts.
    pub(crate) fn new(at: f64, what: String) -> Self {
        Self {
            at,
            what,
            alerts: Vec::new(),
            grouped: 0,
        }
    }

    /// The reason in one sentence; empty if the report isn't about one connection.
    pub(crate) fn reason(&self) -> &str {
        self.alerts.first().map_or("", |alert| &alert.reason)
    }

    pub(crate) fn of_alert(alert: Alert) -> Self {
        let at = seconds(alert.at.0);
        let (status, kind) = (alert.status, alert.subject.kind());
        let over = if alert.is_firing() { "" } else { " over" };
        let (mut alerts, mut grouped) = (Vec::new(), 0);
        let what = match &alert.subject {
            Subject::Connection(verdict) => brief(verdict.kind, status, verdict.certainty),
            Subject::Group(group) => {
                if is_death(group.kind, status) {
                    grouped = group.count - group.examples.len() as u64;
                }
                alerts.clone_from(&group.examples);
                let what = brief(group.kind, status, group.certainty);
                format!("{what} x{}", group.count)
            }
            Subject::Listener(_) | Subject::Thrash(_) => format!("{kind}{over}"),
            Subject::Storm(storm) => {
                let pattern = match storm.pattern {
                    Pattern::Unknown => String::new(),
                    known => format!(" {}", known.as_str()),
                };
                format!("{kind} {}{pattern}", storm.phase.as_str())
            }
        };
        alerts.extend(alert.into_connection());
        Self {
            at,
            what,
            alerts,
            grouped,
        }
    }
}

fn is_death(kind: VerdictKind, status: Status) -> bool {
    kind.is_zombie() && status == Status::Firing
}

fn brief(kind: VerdictKind, status: Status, certainty: Certainty) -> String {
    let how = match status {
        Status::Firing => certainty.as_str(),
        Status::Resolved(resolution) => resolution.as_str(),
    };
    format!("{} {how}", kind.as_str())
}

fn seconds(at: u64) -> f64 {
    at.saturating_sub(START) as f64 / SECOND as f64
}

/// The reports of a replay of the story's packets, and the reasons of the connections' states.
pub(crate) fn replay(story: &Story) -> (Vec<Report>, Vec<String>, Vec<Life>) {
    let mut recording = Recording::default();
    let mut lives = Vec::new();
    for connection in &story.connections {
        let (of_one, life) = simulate(story, connection);
        recording.packets.extend(of_one.packets);
        lives.push(life);
    }
    // A packet of an unwatched connection, so that the clock reaches the end.
    Conversation::new("10.9.9.9:50000", "10.9.9.8:9999")
        .syn(&mut recording, START + nanos(story.until));
    recording.packets.sort_by_key(|(at, _)| *at);

    let mut replay = Replay::new(vec![ListenerConfig {
        rules: story.rules.clone(),
        ports: vec![PortRange(8080..=8080)],
        remote: story.is_outgoing,
    }]);
    let (mut reported, mut reasons) = (Vec::new(), Vec::new());
    let file = recording.pcap();
    let mut capture = Capture::open(&file[..]).expect("a recording");
    let played = play(&mut capture, &mut replay, |_, record| {
        match record {
            ReplayRecord::Alert(alert) => reported.push(Report::of_alert(alert)),
            ReplayRecord::State(transition) => reasons.push(transition.reason.to_string()),
            ReplayRecord::Frame(_) | ReplayRecord::Connection(_) => {}
        }
        Ok::<_, Infallible>(())
    });
    let Ok(end) = played;
    assert!(end.is_none(), "{end:?}");
    (reported, reasons, lives)
}

/// All mismatches in the reports of a story; empty if it passes.
pub(crate) fn check(story: &Story) -> Vec<String> {
    let (reported, reasons, lives) = replay(story);
    let mut wrong = compare(story.reports.as_slice(), &reported);
    for reason in &story.shows {
        if !reasons.iter().any(|shown| shown == reason) {
            wrong.push(format!("no state shows {reason:?}, only {reasons:?}"));
        }
    }
    for one in &reported {
        for alert in &one.alerts {
            let life = &lives[connection_of(story, &alert.subject.facts)];
            wrong.extend(invariants(story, one, alert, &reported, life));
        }
    }
    wrong.extend(deaths(story, &reported, &lives));
    wrong
        .into_iter()
        .map(|wrong| format!("{} ({}): {wrong}", story.name, story.source))
        .collect()
}

/// The index of the connection in the story.
fn connection_of(story: &Story, facts: &Facts) -> usize {
    let client = match story.is_outgoing {
        true => facts.local,
        false => facts.peer,
    };
    let client = client.to_string();
    let mut connections = story.connections.iter();
    connections
        .position(|connection| connection.client == client)
        .expect("a connection of the story")
}

/// Each expected report must come in order and in time, and no other.
pub(crate) fn compare(
    expected: &[(&str, std::ops::Range<f64>)],
    reported: &[Report],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut reported = reported.iter().peekable();
    for (what, when) in expected {
        match reported.peek() {
            Some(next) if next.what == *what => {
                if !when.contains(&next.at) {
                    wrong.push(format!(
                        "{next}, expected from {} to {} s",
                        when.start, when.end
                    ));
                }
                reported.next();
            }
            Some(next) => wrong.push(format!("{what} is missing, next is {next}")),
            None => wrong.push(format!("{what} is missing, nothing follows")),
        }
    }
    wrong.extend(reported.map(|extra| format!("must not be reported: {extra}")));
    wrong
}

/// Invariants of every story: no report is earlier or later than docs/alerts.md states, and every
/// connection that `--reap confirmed` would abort is dead at that moment.
fn invariants(
    story: &Story,
    one: &Report,
    alert: &ConnectionAlert,
    reported: &[Report],
    life: &Life,
) -> Vec<String> {
    if !alert.is_firing() {
        return Vec::new();
    }
    let ConnectionVerdict {
        kind,
        certainty,
        limit,
        ..
    } = *alert.subject;
    let mut wrong = Vec::new();
    let at = seconds(alert.at.0);
    let waited = alert.at.since(alert.since).as_secs_f64();
    let floor = story.rules.unresponsive_floor.as_secs_f64();
    let ping_timeout = story.rules.ping_timeout.as_secs_f64();
    let (earliest, latest) = match (kind, certainty) {
        (VerdictKind::Expired, Certainty::Suspected) => (0.0, 0.3),
        (VerdictKind::BlackHoled, _) => (limit.as_secs_f64(), 16.0),
        (VerdictKind::Unresponsive, Certainty::Suspected) => (1.0, ping_timeout * 1.05 + 1.0),
        (VerdictKind::Unresponsive, Certainty::Confirmed) => (floor, f64::INFINITY),
        (VerdictKind::HalfClosed, _) => (60.0, 60.1),
        (VerdictKind::Stalled, Certainty::Suspected) => (10.0, 10.1),
        (VerdictKind::Stalled, Certainty::Confirmed) => (30.0, f64::INFINITY),
        (VerdictKind::Backlogged, Certainty::Suspected) => (30.0, 30.1),
        _ => (0.0, f64::INFINITY),
    };
    if !(earliest..=latest).contains(&waited) {
        wrong.push(format!(
            "{one}: {waited} s after it became true, not {earliest} to {latest} s"
        ));
    }
    let is_reaped = matches!(
        kind,
        VerdictKind::Expired | VerdictKind::BlackHoled | VerdictKind::Unresponsive
    );
    if certainty == Certainty::Confirmed && is_reaped {
        if story.is_mptcp {
            wrong.push(format!(
                "{one}: confirmed of a subflow, its connection may live"
            ));
        }
        if !life.is_dead(at) {
            wrong.push(format!("{one}: wrongly confirmed, the peer is alive"));
        }
        let turn = match kind {
            VerdictKind::Unresponsive => at + limit.as_secs_f64(),
            _ => at,
        };
        let stands = ends(reported, alert.subject.facts.conn, at).is_none_or(|end| end > turn);
        if stands && turn <= story.until && !life.is_dead(turn) {
            wrong.push(format!("{one}: reaped alive at {turn} s"));
        }
    }
    wrong
}

/// When a verdict that stood at `after` ended.
fn ends(reported: &[Report], conn: ConnId, after: f64) -> Option<f64> {
    let of_it = |one: &&Report| {
        let ends = |alert: &ConnectionAlert| {
            alert.subject.facts.conn == conn && alert.status != Status::Firing
        };
        one.alerts.iter().any(ends)
    };
    reported
        .iter()
        .filter(of_it)
        .map(|one| one.at)
        .find(|at| *at > after)
}

/// Every connection that is dead at the end must have been reported, unless the row explains why it
/// cannot be.
fn deaths(story: &Story, reported: &[Report], lives: &[Life]) -> Vec<String> {
    let died = |place: usize| lives[place].died();
    let dead: Vec<_> = (0..lives.len())
        .filter(|place| died(*place).is_some())
        .collect();
    let finds = |one: &Report, place: usize| {
        one.alerts.iter().any(|alert| {
            is_death(alert.subject.kind, alert.status)
                && connection_of(story, &alert.subject.facts) == place
                && died(place).is_some_and(|died| seconds(alert.at.0) >= died)
        })
    };
    let is_missing = |place: &&usize| !reported.iter().any(|one| finds(one, **place));
    let missing: Vec<_> = dead.iter().filter(is_missing).collect();
    let grouped: u64 = reported.iter().map(|one| one.grouped).sum();
    match (story.unseen, missing.first()) {
        (None, Some(first)) if missing.len() as u64 > grouped => {
            let (client, since) = (&story.connections[**first].client, died(**first));
            vec![format!(
                "{} of {} deaths not found, the first of {client}, dead since {} s",
                missing.len() as u64 - grouped,
                dead.len(),
                since.unwrap_or_default()
            )]
        }
        (Some(why), _) if dead.is_empty() || missing.len() < dead.len() => {
            vec![format!("there is no unseen death: {why}")]
        }
        _ => Vec::new(),
    }
}
