//! The alert log for the control socket: its last lines, and those to come for viewers.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    mailbox::{LineSender, LineStream, mailbox},
    viewers::{MAX_VIEWERS, TooManyViewers},
};
use crate::records::alert_kind::AlertKind;

/// Maximum number of lines kept, and their maximum size in bytes. The oldest are dropped first. A group or
/// a storm can take 15 kB.
const KEPT_ALERTS: usize = 1000;
const KEPT_BYTES: usize = 4 << 20;

/// Selects lines of the alert log. A line passes if it satisfies every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// The listener's name.
    pub listener: Option<String>,
    pub kind: Option<AlertKind>,
}

impl AlertFilter {
    /// `alert` and `kind` are the fields of the line.
    pub fn accepts(&self, listener: &str, alert: &str, kind: &str) -> bool {
        let wanted = self.listener.as_ref();
        wanted.is_none_or(|wanted| wanted == listener)
            && self
                .kind
                .is_none_or(|wanted| wanted.is_kind_of(alert, kind))
    }
}

/// A line of the alert log.
#[derive(Clone, Debug)]
pub struct LoggedAlert {
    pub listener: Arc<str>,
    pub alert: &'static str,
    pub kind: &'static str,
    /// With its newline.
    pub line: Bytes,
}

impl LoggedAlert {
    fn passes(&self, filter: &AlertFilter) -> bool {
        filter.accepts(&self.listener, self.alert, self.kind)
    }
}

/// The last lines of the alert log, and the viewers of further lines.
#[derive(Debug, Default)]
pub struct AlertFeed {
    lines: VecDeque<LoggedAlert>,
    bytes: usize,
    dropped: u64,
    viewers: Vec<(AlertFilter, LineSender)>,
}

/// Lines that were kept.
#[derive(Debug)]
pub struct AlertHistory {
    /// The oldest first.
    pub lines: Vec<Bytes>,
    /// The number of lines that were dropped since the daemon started, whatever the filter.
    pub dropped: u64,
}

impl AlertFeed {
    /// Keeps the line and shows it to the viewers that want it.
    pub fn publish(&mut self, logged: LoggedAlert) {
        self.remove_closed();
        for (filter, viewer) in &self.viewers {
            if logged.passes(filter) {
                viewer.send(logged.line.clone());
            }
        }
        self.bytes += logged.line.len();
        self.lines.push_back(logged);
        while self.lines.len() > KEPT_ALERTS || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.line.len();
            self.dropped += 1;
        }
    }

    pub fn history(&self, filter: &AlertFilter) -> AlertHistory {
        let passing = self.lines.iter().filter(|logged| logged.passes(filter));
        AlertHistory {
            lines: passing.map(|logged| logged.line.clone()).collect(),
            dropped: self.dropped,
        }
    }

    /// Adds a viewer of the lines to come.
    pub fn admit(&mut self, filter: AlertFilter) -> Result<LineStream, TooManyViewers> {
        self.remove_closed();
        if self.viewers.len() >= MAX_VIEWERS {
            return Err(TooManyViewers);
        }
        let (viewer, lines) = mailbox(Arc::default());
        self.viewers.push((filter, viewer));
        Ok(lines)
    }

    fn remove_closed(&mut self) {
        self.viewers.retain(|(_, viewer)| !viewer.is_abandoned());
    }
}

#[cfg(test)]
mod tests {
    use super::{super::mailbox::tests::read, *};

    fn logged(listener: &str, kind: &'static str, text: &str) -> LoggedAlert {
        LoggedAlert {
            listener: listener.into(),
            alert: "zombie",
            kind,
            line: format!("{text}\n").into(),
        }
    }

    fn filter(listener: Option<&str>, kind: Option<&str>) -> AlertFilter {
        AlertFilter {
            listener: listener.map(str::to_owned),
            kind: kind.map(|kind| kind.parse().expect("a kind")),
        }
    }

    #[test]
    fn the_last_lines_are_kept_up_to_a_number_and_the_others_are_counted() {
        let mut feed = AlertFeed::default();
        for n in 0..KEPT_ALERTS + 7 {
            feed.publish(logged("8080", "expired", &n.to_string()));
        }
        let AlertHistory { lines, dropped } = feed.history(&AlertFilter::default());
        assert_eq!((lines.len(), dropped), (KEPT_ALERTS, 7));
        assert_eq!(lines[0], "7\n");
        assert_eq!(lines[KEPT_ALERTS - 1], "1006\n");
    }

    #[test]
    fn long_lines_are_kept_up_to_a_size() {
        let mut feed = AlertFeed::default();
        let group = "x".repeat(15_000);
        for _ in 0..KEPT_ALERTS {
            feed.publish(logged("8080", "expired", &group));
        }
        let AlertHistory { lines, dropped } = feed.history(&AlertFilter::default());
        let bytes: usize = lines.iter().map(Bytes::len).sum();
        assert!(
            bytes <= KEPT_BYTES && bytes > KEPT_BYTES - 15_001,
            "{bytes}"
        );
        assert_eq!(lines.len() + dropped as usize, KEPT_ALERTS);
    }

    #[test]
    fn history_and_viewers_have_the_lines_that_pass_their_filter() {
        let mut feed = AlertFeed::default();
        let mut all = feed.admit(AlertFilter::default()).expect("room");
        let mut chat = feed.admit(filter(Some("chat"), None)).expect("room");
        let mut expired = feed.admit(filter(None, Some("expired"))).expect("room");
        let mut zombies = feed
            .admit(filter(Some("8080"), Some("zombie")))
            .expect("room");
        feed.publish(logged("chat", "expired", "1"));
        feed.publish(logged("8080", "stalled", "2"));
        assert_eq!(read(&mut all).as_deref(), Some("1\n2\n"));
        assert_eq!(read(&mut chat).as_deref(), Some("1\n"));
        assert_eq!(read(&mut expired).as_deref(), Some("1\n"));
        assert_eq!(read(&mut zombies).as_deref(), Some("2\n"));
        assert_eq!(feed.history(&filter(None, Some("stalled"))).lines, ["2\n"]);
    }

    #[test]
    fn viewers_above_the_limit_are_refused_until_one_leaves() {
        let mut feed = AlertFeed::default();
        let mut viewers: Vec<_> = (0..MAX_VIEWERS)
            .map(|_| feed.admit(AlertFilter::default()).expect("room"))
            .collect();
        let refused = feed.admit(AlertFilter::default());
        assert_eq!(refused.map(drop), Err(TooManyViewers));
        viewers.pop();
        assert!(feed.admit(AlertFilter::default()).is_ok());
    }
}
