//! Many alerts at once: a burst is reported in a few lines instead of one for each connection.
//!
//! An alert that comes within [`WINDOW`] of [`SINGLY`] others like it, or of more, is withheld. Like
//! it is what says the same of the same listener: kind, certainty, status. Ten seconds after the first
//! one that was withheld they are reported together, as one [`AlertGroup`] for each status and certainty.
//!
//! Nothing is lost: what was offered is told singly or is in the count of one group. And nobody hears
//! of the end of a verdict before its beginning: an alert on a connection that is withheld makes later
//! ones of that kind on it wait as well.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use super::{
    alert::{Alert, AlertGroup, Certainty, Notice, Status, VerdictKind},
    facts::{ConnId, ListenerId},
    time::Ktime,
};

/// Alerts alike that are reported singly within [`WINDOW`].
pub const SINGLY: usize = 20;

/// How long alerts count as one burst, and how long they are withheld at most.
pub const WINDOW: Duration = Duration::from_secs(10);

/// What passes alerts on to the sinks, one by one or together.
#[derive(Debug, Default)]
pub struct Grouping {
    families: BTreeMap<(ListenerId, VerdictKind), AlertFamily>,
    notices: VecDeque<Notice>,
}

/// The alerts of one kind on one listener.
#[derive(Debug, Default)]
struct AlertFamily {
    tracks: Vec<Track>,
    /// When what is withheld has to be reported.
    due: Option<Ktime>,
    /// The connections of which something is withheld.
    withheld: HashSet<ConnId>,
}

/// The alerts alike.
#[derive(Debug)]
struct Track {
    status: Status,
    certainty: Certainty,
    /// The moments of the last [`SINGLY`].
    recent: VecDeque<Ktime>,
    group: Option<AlertGroup>,
}

impl Grouping {
    /// Takes in an alert, which is reported at once or withheld.
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

    /// Takes in what is about a listener: there is little of that, and each is reported at once.
    pub fn pass(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    /// What is to be reported next.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When something that is withheld has to be reported; `None` while nothing is.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        self.families.values().filter_map(|family| family.due).min()
    }

    /// Shows the time: what is due is reported.
    pub fn handle_timeout(&mut self, now: Ktime) {
        for family in self.families.values_mut() {
            if family.due.is_some_and(|due| due <= now) {
                family.report(&mut self.notices);
            }
        }
    }

    /// Reports everything that is withheld, for an end at which nobody will ask again.
    pub fn flush(&mut self) {
        for family in self.families.values_mut() {
            family.report(&mut self.notices);
        }
    }
}

impl AlertFamily {
    /// Gives the alert back if it may pass.
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

    /// Beginnings before ends, suspicions before certainty: as they come on one connection.
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

    /// Counts an alert, and says whether it is one too many.
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
    /// One alone is no group.
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
