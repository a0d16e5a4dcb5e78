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
    alert::{Alert, AlertGroup, Certainty, Notice, Status, VerdictKind},
    facts::{ConnId, ListenerId},
    time::Ktime,
};

/// Number of similar alerts that are reported singly within [`WINDOW`].
pub const SINGLY: usize = 20;

/// How long alerts count as one burst, and the longest time that they are withheld.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Passes alerts on to the sinks, singly or in groups.
#[derive(Debug, Default)]
pub struct Grouping {
    families: BTreeMap<(ListenerId, VerdictKind), AlertFamily>,
    notices: VecDeque<Notice>,
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
    group: Option<AlertGroup>,
}

impl Grouping {
    /// Accepts an alert, which is reported at once or withheld.
    pub fn offer(&mut self, alert: Box<Alert>) {
        let key = (alert.listener, alert.kind);
        let family = self.families.entry(key).or_default();
        if family.due.is_some_and(|due| due <= alert.at) {
            family.report(&mut self.notices);
        }
        if let Some(alert) = family.withhold(alert) {
            self.notices.push_back(Notice::Connection(alert));
        }
    }

    /// Accepts a notice about a listener. These are rare, so each is reported at once.
    pub fn pass(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    /// The next notice to report.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When withheld alerts must be reported; `None` if there are none.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        self.families.values().filter_map(|family| family.due).min()
    }

    /// Advances the time and reports what is due.
    pub fn handle_timeout(&mut self, now: Ktime) {
        for family in self.families.values_mut() {
            if family.due.is_some_and(|due| due <= now) {
                family.report(&mut self.notices);
            }
        }
    }

    /// Reports everything that is withheld, for a shutdown after which nothing is polled.
    pub fn flush(&mut self) {
        for family in self.families.values_mut() {
            family.report(&mut self.notices);
        }
    }
}

impl AlertFamily {
    /// Returns the alert if it may pass.
    fn withhold(&mut self, alert: Box<Alert>) -> Option<Box<Alert>> {
        let alike = |track: &Track| (track.status, track.certainty);
        let place = self
            .tracks
            .iter()
            .position(|track| alike(track) == (alert.status, alert.certainty))
            .unwrap_or_else(|| {
                self.tracks.push(Track::new(&alert));
                self.tracks.len() - 1
            });
        let track = &mut self.tracks[place];
        let conn = alert.facts.conn;
        if !track.is_burst(alert.at) && !self.withheld.contains(&conn) {
            return Some(alert);
        }
        self.withheld.insert(conn);
        self.due.get_or_insert(alert.at + WINDOW);
        track.add(*alert);
        None
    }

    /// Reports beginnings before ends and suspicions before certainty, their order on one
    /// connection.
    fn report(&mut self, notices: &mut VecDeque<Notice>) {
        self.due = None;
        self.withheld = HashSet::new();
        let mut groups: Vec<_> = self
            .tracks
            .iter_mut()
            .filter_map(|track| track.group.take())
            .collect();
        groups.sort_by_key(|group| (group.status != Status::Firing, group.certainty));
        notices.extend(groups.into_iter().map(AlertGroup::into_notice));
    }
}

impl Track {
    fn new(alert: &Alert) -> Self {
        Self {
            status: alert.status,
            certainty: alert.certainty,
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

    fn add(&mut self, alert: Alert) {
        let Some(group) = &mut self.group else {
            self.group = Some(AlertGroup {
                status: alert.status,
                kind: alert.kind,
                certainty: alert.certainty,
                listener: alert.listener,
                hop: alert.hop.clone(),
                at: alert.at,
                count: 1,
                examples: vec![alert],
            });
            return;
        };
        group.count += 1;
        group.at = group.at.max(alert.at);
        if group.hop != alert.hop {
            group.hop = None;
        }
        if group.examples.len() < AlertGroup::EXAMPLES {
            group.examples.push(alert);
        }
    }
}

impl AlertGroup {
    /// A group of one is reported as a single alert.
    fn into_notice(mut self) -> Notice {
        match self.examples.pop() {
            Some(only) if self.count == 1 => Notice::Connection(Box::new(only)),
            last => {
                self.examples.extend(last);
                Notice::Group(Box::new(self))
            }
        }
    }
}

#[cfg(test)]
mod tests;
