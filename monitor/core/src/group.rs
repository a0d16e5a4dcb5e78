//! Grouping of similar alerts: a burst is reported in a few lines, not one per connection.
//!
//! An alert is withheld if at least [`SINGLY`] similar ones preceded it within [`WINDOW`]. Similar
//! alerts have the same listener, kind, certainty and status. Ten seconds after the first withheld
//! alert, all withheld ones are reported, as one [`AlertGroup`] for each status and certainty.
//!
//! Nothing is lost: every alert is reported singly or counted in exactly one group. The end of a
//! verdict is never reported before its beginning: a withheld alert on a connection also withholds
//! later ones of that kind on it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use super::{
    alert::{Alert, AlertGroup, ConnectionAlert, Status, Subject},
    facts::{ConnId, ListenerId},
    time::Ktime,
    verdict::{Certainty, VerdictKind},
};

/// Number of similar alerts that are reported singly within [`WINDOW`].
pub const SINGLY: usize = 20;

/// How long alerts count as one burst, and the longest time that they are withheld.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Passes alerts on to the sinks, singly or in groups.
#[derive(Debug, Default)]
pub struct Grouping {
    families: BTreeMap<(ListenerId, VerdictKind), AlertFamily>,
    alerts: VecDeque<Alert>,
}

/// The alerts of one kind on one listener.
#[derive(Debug, Default)]
struct AlertFamily {
    tracks: Vec<Track>,
    /// When withheld alerts must be reported.
    due: Option<Ktime>,
    /// The connections with withheld alerts.
    withheld: HashSet<ConnId>,
}

/// Similar alerts.
#[derive(Debug)]
struct Track {
    status: Status,
    certainty: Certainty,
    /// The times of the last [`SINGLY`] alerts.
    recent: VecDeque<Ktime>,
    group: Option<Alert<AlertGroup>>,
}

impl Grouping {
    /// Accepts an alert. One on a connection is reported at once or withheld. Others are rare, so each
    /// is reported at once.
    pub fn offer(&mut self, alert: Alert) {
        let alert = match alert.into_connection() {
            Ok(alert) => alert,
            Err(other) => return self.alerts.push_back(other),
        };
        let key = (alert.listener, alert.subject.kind);
        let family = self.families.entry(key).or_default();
        if family.due.is_some_and(|due| due <= alert.at) {
            family.report(&mut self.alerts);
        }
        if let Some(alert) = family.withhold(alert) {
            self.alerts.push_back(alert.into());
        }
    }

    /// The next alert to report.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        self.alerts.pop_front()
    }

    /// When withheld alerts must be reported; `None` if there are none.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        self.families.values().filter_map(|family| family.due).min()
    }

    /// Advances the time and reports what is due.
    pub fn handle_timeout(&mut self, now: Ktime) {
        for family in self.families.values_mut() {
            if family.due.is_some_and(|due| due <= now) {
                family.report(&mut self.alerts);
            }
        }
    }

    /// Reports everything that is withheld, for a shutdown after which nothing is polled.
    pub fn flush(&mut self) {
        for family in self.families.values_mut() {
            family.report(&mut self.alerts);
        }
    }
}

impl AlertFamily {
    /// Returns the alert if it may pass.
    fn withhold(&mut self, alert: ConnectionAlert) -> Option<ConnectionAlert> {
        let alike = |track: &Track| (track.status, track.certainty);
        let index = self
            .tracks
            .iter()
            .position(|track| alike(track) == (alert.status, alert.subject.certainty))
            .unwrap_or_else(|| {
                self.tracks.push(Track::new(&alert));
                self.tracks.len() - 1
            });
        let track = &mut self.tracks[index];
        let conn = alert.subject.facts.conn;
        if !track.is_burst(alert.at) && !self.withheld.contains(&conn) {
            return Some(alert);
        }
        self.withheld.insert(conn);
        self.due.get_or_insert(alert.at + WINDOW);
        track.add(alert);
        None
    }

    /// Reports beginnings before ends and suspicions before certainty, their order on one
    /// connection.
    fn report(&mut self, alerts: &mut VecDeque<Alert>) {
        self.due = None;
        self.withheld = HashSet::new();
        let mut groups: Vec<_> = self
            .tracks
            .iter_mut()
            .filter_map(|track| track.group.take())
            .collect();
        groups.sort_by_key(|group| (!group.is_firing(), group.subject.certainty));
        alerts.extend(groups.into_iter().map(finish));
    }
}

impl Track {
    fn new(alert: &ConnectionAlert) -> Self {
        Self {
            status: alert.status,
            certainty: alert.subject.certainty,
            recent: VecDeque::new(),
            group: None,
        }
    }

    /// Counts an alert; true if it exceeds the number of single alerts.
    fn is_burst(&mut self, at: Ktime) -> bool {
        self.recent.push_back(at);
        if self.recent.len() <= SINGLY {
            return false;
        }
        let before = self.recent.pop_front();
        before.is_some_and(|before| at.since(before) < WINDOW)
    }

    fn add(&mut self, alert: ConnectionAlert) {
        let group = self.group.get_or_insert_with(|| Alert {
            status: alert.status,
            listener: alert.listener,
            hop: alert.hop.clone(),
            at: alert.at,
            since: alert.since,
            reason: String::new(),
            subject: AlertGroup {
                kind: alert.subject.kind,
                certainty: alert.subject.certainty,
                count: 0,
                examples: Vec::new(),
            },
        });
        group.subject.count += 1;
        group.at = group.at.max(alert.at);
        if group.hop != alert.hop {
            group.hop = None;
        }
        if group.subject.examples.len() < AlertGroup::EXAMPLES {
            group.subject.examples.push(alert);
        }
    }
}

/// The alert on a complete group. A group of one is reported as a single alert.
fn finish(mut group: Alert<AlertGroup>) -> Alert {
    let AlertGroup {
        count, examples, ..
    } = &mut group.subject;
    if let Some(only) = examples.pop_if(|_| *count == 1) {
        return only.into();
    }
    let (within, first) = examples.first().map_or_else(Default::default, |first| {
        (group.at.since(first.at), first.reason.as_str())
    });
    group.reason = format!(
        "{count} more connections within {:.1} s; the first: {first}",
        within.as_secs_f64()
    );
    group.map(Subject::Group)
}

#[cfg(test)]
mod tests;
