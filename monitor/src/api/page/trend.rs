//! What each listener was like in the last hour, minute by minute.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use monitor_core::{Alert, Ktime, Subject, Tally, VerdictKind};

use crate::records::status::ListenerStatus;

/// The last hour of all listeners: at most [`Trend::MINUTES`] points for each. No clock, no I/O.
#[derive(Debug)]
pub struct Trend {
    /// Oldest first.
    minutes: VecDeque<Minute>,
    /// What the minute that has not ended yet holds so far, by listener.
    current: Vec<CurrentMinute>,
    /// When that minute began.
    began: Ktime,
}

/// One listener in one minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrendPoint {
    /// At the end of the minute.
    pub open: u64,
    /// The most at any moment of the minute.
    pub zombies: u64,
    /// At the end of the minute, as is the next one.
    pub at_risk: u64,
    pub margin_seconds: Option<f64>,
    /// Whether a reconnect storm was on at any moment of the minute.
    pub storm: bool,
    /// The alerts that began, by kind. Kinds without one are left out.
    pub alerts: BTreeMap<&'static str, u64>,
}

/// A point with its minute.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedPoint {
    /// Seconds before the moment of the request.
    pub began_ago: f64,
    pub ended_ago: f64,
    pub point: TrendPoint,
}

#[derive(Debug)]
struct Minute {
    began: Ktime,
    ended: Ktime,
    listeners: Vec<TrendPoint>,
}

#[derive(Debug, Default)]
struct CurrentMinute {
    most_zombies: u64,
    storm: bool,
    /// Alerts on the listener as a whole that began.
    alerts: BTreeMap<&'static str, u64>,
    /// The kinds of them that stand. An alert that fires again meanwhile has only changed.
    standing: BTreeSet<&'static str>,
    /// [`Tally::detected`] of each kind at the end of the last minute.
    detected: [u64; VerdictKind::ALL.len()],
}

impl Trend {
    /// The number of minutes that are kept.
    pub const MINUTES: usize = 60;

    /// When to end a minute.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    pub fn new(listeners: usize, now: Ktime) -> Self {
        Self {
            minutes: VecDeque::with_capacity(Self::MINUTES),
            current: std::iter::repeat_with(CurrentMinute::default)
                .take(listeners)
                .collect(),
            began: now,
        }
    }

    /// Takes notice of an alert on a listener with these counts, so that the minute has what was
    /// already over at its end.
    pub fn handle_alert(&mut self, alert: &Alert, tally: &Tally) {
        let Some(current) = self.current.get_mut(alert.listener.index()) else {
            return;
        };
        current.most_zombies = current.most_zombies.max(zombies(tally));
        current.storm |= tally.reconnect_storm;
        let kind = alert.subject.kind();
        match &alert.subject {
            // The tally counts those on connections, once per episode.
            Subject::Connection(_) | Subject::Group(_) => {}
            _ if !alert.is_firing() => {
                current.standing.remove(kind);
            }
            _ if current.standing.insert(kind) => *current.alerts.entry(kind).or_default() += 1,
            _ => {}
        }
    }

    /// Ends the minute. `status` and `tallies` have one entry per listener.
    pub fn end_minute(&mut self, now: Ktime, status: &[ListenerStatus], tallies: &[&Tally]) {
        let listeners = self.points(status, tallies).collect();
        for (current, tally) in self.current.iter_mut().zip(tallies) {
            current.most_zombies = 0;
            current.storm = false;
            current.alerts.clear();
            current.detected = std::array::from_fn(|kind| tally.detected(VerdictKind::ALL[kind]));
        }
        if self.minutes.len() == Self::MINUTES {
            self.minutes.pop_front();
        }
        let began = std::mem::replace(&mut self.began, now);
        self.minutes.push_back(Minute {
            began,
            ended: now,
            listeners,
        });
    }

    /// The points of each listener, oldest first. The last one is the minute that has not ended yet.
    pub fn hours(
        &self,
        now: Ktime,
        status: &[ListenerStatus],
        tallies: &[&Tally],
    ) -> Vec<Vec<TimedPoint>> {
        let timed = |began, ended, point| TimedPoint {
            began_ago: now.since(began).as_secs_f64(),
            ended_ago: now.since(ended).as_secs_f64(),
            point,
        };
        self.points(status, tallies)
            .enumerate()
            .map(|(listener, current)| {
                let past = self.minutes.iter().filter_map(|minute| {
                    let point = minute.listeners.get(listener)?.clone();
                    Some(timed(minute.began, minute.ended, point))
                });
                past.chain([timed(self.began, now, current)]).collect()
            })
            .collect()
    }

    /// The current minute of each listener so far.
    fn points(
        &self,
        status: &[ListenerStatus],
        tallies: &[&Tally],
    ) -> impl Iterator<Item = TrendPoint> {
        let listeners = self.current.iter().zip(status).zip(tallies);
        listeners.map(|((current, status), tally)| {
            let mut alerts = current.alerts.clone();
            for &kind in VerdictKind::ALL {
                let before = current.detected[kind as usize];
                let began = tally.detected(kind).saturating_sub(before);
                if began > 0 {
                    alerts.insert(kind.as_str(), began);
                }
            }
            TrendPoint {
                open: status.open,
                zombies: current.most_zombies.max(status.zombies.total()),
                at_risk: status.at_risk,
                margin_seconds: status.heartbeat_margin_seconds,
                storm: current.storm || tally.reconnect_storm,
                alerts,
            }
        })
    }
}

fn zombies(tally: &Tally) -> u64 {
    VerdictKind::zombies()
        .map(|kind| tally.counts.zombies[kind as usize])
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::page::tests::listener;
    use monitor_core::{AlertResolution, ListenerFinding, ListenerId, Status, storm::Thrash};

    const MINUTE: Duration = Trend::INTERVAL;

    fn alert(status: Status, subject: Subject) -> Alert {
        Alert {
            status,
            listener: ListenerId(0),
            hop: None,
            at: Ktime::ZERO,
            since: Ktime::ZERO,
            reason: String::new(),
            subject,
        }
    }

    fn thrash(clients: u64) -> Subject {
        let examples = Vec::new();
        Subject::Thrash(Thrash { clients, examples })
    }

    const OVER: Status = Status::Resolved(AlertResolution::Recovered);

    #[test]
    fn a_minute_keeps_the_most_zombies_and_a_storm_that_were_over_at_its_end() {
        let mut trend = Trend::new(1, Ktime::ZERO);
        let status = [listener("a")];
        let mut tally = Tally::default();
        tally.counts.zombies[VerdictKind::Expired as usize] = 3;
        tally.counts.zombies[VerdictKind::Quiet as usize] = 9;
        tally.reconnect_storm = true;
        trend.handle_alert(&alert(Status::Firing, thrash(1)), &tally);
        let calm = Tally::default();
        trend.end_minute(Ktime::ZERO + MINUTE, &status, &[&calm]);
        let hours = trend.hours(Ktime::ZERO + MINUTE + MINUTE / 2, &status, &[&calm]);
        let [past, current] = hours[0].as_slice() else {
            panic!("{hours:?}");
        };
        assert_eq!((past.point.zombies, past.point.storm), (3, true));
        assert_eq!((past.began_ago, past.ended_ago), (90.0, 30.0));
        assert_eq!((current.point.zombies, current.point.storm), (0, false));
        assert_eq!((current.began_ago, current.ended_ago), (30.0, 0.0));
    }

    #[test]
    fn an_alert_counts_once_in_the_minute_in_which_it_began() {
        let mut trend = Trend::new(1, Ktime::ZERO);
        let status = [listener("a")];
        let mut tally = Tally::default();
        let risk = || {
            Subject::Listener(ListenerFinding::AtRisk {
                gap: MINUTE,
                limit: MINUTE,
            })
        };
        tally.detected[VerdictKind::Expired as usize] = [2, 0, 0];
        trend.handle_alert(&alert(Status::Firing, thrash(1)), &tally);
        trend.handle_alert(&alert(Status::Firing, thrash(2)), &tally);
        trend.handle_alert(&alert(Status::Firing, risk()), &tally);
        trend.end_minute(Ktime(1), &status, &[&tally]);
        // Thrashing goes on, and begins once more after its end.
        trend.handle_alert(&alert(Status::Firing, thrash(3)), &tally);
        trend.handle_alert(&alert(OVER, thrash(3)), &tally);
        trend.handle_alert(&alert(Status::Firing, thrash(1)), &tally);
        trend.handle_alert(&alert(OVER, risk()), &tally);
        tally.detected[VerdictKind::Expired as usize] = [2, 0, 1];
        let hours = trend.hours(Ktime(2), &status, &[&tally]);
        let alerts = hours[0].iter().map(|timed| timed.point.alerts.clone());
        let expected = [
            BTreeMap::from([("at_risk", 1), ("expired", 2), ("thrash", 1)]),
            BTreeMap::from([("expired", 1), ("thrash", 1)]),
        ];
        assert_eq!(alerts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_the_last_sixty_minutes_are_kept() {
        let mut trend = Trend::new(2, Ktime::ZERO);
        let tally = Tally::default();
        let tallies = [&tally, &tally];
        let mut now = Ktime::ZERO;
        for minute in 0..100 {
            now = now + MINUTE;
            let mut status = [listener("a"), listener("b")];
            status[1].open = minute;
            trend.end_minute(now, &status, &tallies);
        }
        let hours = trend.hours(now, &[listener("a"), listener("b")], &tallies);
        assert_eq!(hours.len(), 2);
        for hour in &hours {
            assert_eq!(hour.len(), Trend::MINUTES + 1);
            assert_eq!(hour[0].began_ago, 3600.0);
        }
        let open: Vec<_> = hours[1].iter().map(|timed| timed.point.open).collect();
        assert_eq!((open[0], open[59]), (40, 99));
    }
}
