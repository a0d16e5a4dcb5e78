//! Reconnect storms: when a server restarts, its clients come back all at once and take it down again.
//!
//! Each listener has one [`StormDetector`]. It receives every attempt and every end, and learns the
//! usual rates. It reports when clients lose their connections at once, when they come back at
//! once, in what rhythm, and why. Memory is bounded, and the cost of an event does not depend on
//! the number of clients.

mod advice;
mod baseline;
mod beat;
mod cause;
mod client_connections;
mod clients;
mod delays;
mod echo;
mod episode;
mod finding;
mod input;
mod minute;
mod onset;
mod pattern;
mod phase;
mod regular;
mod sample;
mod seconds;
mod settings;
mod thrash;
mod totals;
mod trace;
mod waves;

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hasher},
    net::IpAddr,
};

pub use baseline::{Baseline, Usual};
pub use client_connections::ClientSlot;
pub use finding::{Cause, ClientRow, Pattern, ReconnectStorm, StormPhase, Thrash};
pub use input::{AttemptOutcome, Departure};
pub use settings::StormSettings;

use self::{
    baseline::Learner, cause::Deaths, client_connections::ClientConnections, clients::Clients,
    episode::Episode, sample::Sample, seconds::PerSecond, totals::Totals, trace::Trace,
};
use super::{
    alert::{Alert, AlertResolution, Status, Subject},
    facts::ListenerId,
    time::Ktime,
};

/// The storm engine of one listener.
#[derive(Debug)]
pub struct StormDetector {
    listener: ListenerId,
    settings: StormSettings,
    seconds: PerSecond,
    trace: Trace,
    sample: Sample,
    clients: Clients,
    connections: ClientConnections,
    deaths: Deaths,
    /// When the first connection became known.
    watched_since: Option<Ktime>,
    learner: Learner,
    totals: Totals,
    /// The totals at the start of each of the last seconds with an event.
    marks: VecDeque<(u64, Totals)>,
    /// The next second to learn from.
    next: Option<u64>,
    /// This many arrivals in a second are unusual.
    alarm: u64,
    /// The latest seconds that reached the alarm: their number and the moment.
    crossed: VecDeque<(u64, Ktime)>,
    episode: Option<Box<Episode>>,
    episodes: u32,
    thrash: Option<Thrashing>,
    alerts: VecDeque<Alert>,
    reconnects: u64,
}

/// Thrashing clients, as reported.
#[derive(Debug)]
struct Thrashing {
    since: Ktime,
    /// At the last evaluation.
    clients: u64,
    reported: u64,
    due: Ktime,
}

impl StormDetector {
    /// Ignores a `baseline` that is implausible or was learned for less than a minute.
    pub fn new(listener: ListenerId, settings: &StormSettings, baseline: Option<Baseline>) -> Self {
        let mut storm = Self {
            listener,
            settings: *settings,
            seconds: PerSecond::new(),
            trace: Trace::new(),
            sample: Sample::new(),
            clients: Clients::new(),
            connections: ClientConnections::default(),
            deaths: Deaths::default(),
            watched_since: None,
            learner: Learner::new(baseline),
            totals: Totals::default(),
            marks: VecDeque::new(),
            next: None,
            alarm: u64::MAX,
            crossed: VecDeque::new(),
            episode: None,
            episodes: 0,
            thrash: None,
            alerts: VecDeque::new(),
            reconnects: 0,
        };
        storm.set_alarm();
        storm
    }

    /// A connection of the client is open from now on, whether it was opened now or earlier. Pass
    /// the slot to [`StormDetector::disconnect`]. `client` is canonical.
    pub fn connect(&mut self, at: Ktime, client: IpAddr) -> ClientSlot {
        self.watched_since.get_or_insert(at);
        let seed = self.settings.seed;
        self.connections.open(client, |client| hash(seed, client))
    }

    /// The connection is no longer open; call it before [`StormDetector::departed`].
    pub fn disconnect(&mut self, slot: ClientSlot) {
        let seed = self.settings.seed;
        self.connections.close(slot, |client| hash(seed, client));
    }

    /// A client tries to connect: an upgrade request, or the start of TLS. `client` is canonical.
    pub fn arrived(&mut self, at: Ktime, client: IpAddr) {
        self.roll(at);
        let hash = self.hash(client);
        let second = self.seconds.at(at);
        second.arrivals += 1;
        let arrivals = second.arrivals;
        self.totals.attempts += 1;
        self.trace.arrive(at);
        let open = self.connections.count(client, hash);
        self.clients.arrive(at, client, hash, open);
        let number = self.episode.as_ref().map_or(0, |episode| episode.number);
        if let Some(back) = self.sample.arrive(at, hash, number) {
            self.totals.sampled += back.weight;
            if back.returning {
                self.came_back(back.weight);
            }
            if let Some(episode) = &mut self.episode {
                episode.delays.add(&back);
            }
        }
        if !self.is_storm() {
            self.judge_arrivals(at, arrivals);
        }
    }

    /// The outcome of an attempt is known.
    pub fn settled(&mut self, at: Ktime, client: IpAddr, outcome: AttemptOutcome) {
        self.roll(at);
        let hash = self.hash(client);
        let accepted = outcome == AttemptOutcome::Accepted;
        let second = self.seconds.at(at);
        match outcome {
            AttemptOutcome::Accepted => {
                second.accepted += 1;
                self.totals.accepted += 1;
            }
            AttemptOutcome::Refused(_) | AttemptOutcome::Unanswered => {
                second.failed += 1;
                self.trace.fail(at);
                let status = match outcome {
                    AttemptOutcome::Refused(status) => status,
                    _ => None,
                };
                self.totals.refused.add(status);
            }
        }
        self.clients.settle(client, hash, accepted);
        let number = self.episode.as_ref().map_or(0, |episode| episode.number);
        let settled = self.sample.settle(at, hash, outcome, number);
        self.came_back(settled.returned);
        if let (Some(episode), Some(attempt)) = (&mut self.episode, settled.failed) {
            episode.delays.expect(attempt);
        }
    }

    /// A connection is over; `established` were open before its end.
    pub fn departed(&mut self, departure: &Departure, established: u64) {
        let Departure { at, client, .. } = *departure;
        self.roll(at);
        let hash = self.hash(client);
        let short = departure
            .age
            .is_some_and(|age| age < self.settings.short_life);
        let second = self.seconds.at(at);
        second.closes += 1;
        second.lasting_closes += u64::from(!short);
        second.established = second.established.max(established);
        self.trace.fail(at);
        let returned = self.sample.depart(at, hash, departure.age);
        self.came_back(returned);
        self.deaths.add(departure);
        let thrash = self.settings.thrash_connections;
        let open = self.connections.count(client, hash);
        let thrashes = self.clients.depart(at, (client, hash), short, open, thrash);
        if let Some(episode) = &mut self.episode {
            if episode.closed.is_some() {
                episode.closes += 1;
            }
        } else if self.is_mass_close(at, established) {
            self.begin_mass_close(at);
        } else if thrashes && self.thrash.is_none() {
            self.begin_thrash(at);
        }
    }

    /// The last listening socket of a port was closed.
    pub fn server_gone(&mut self, at: Ktime) {
        self.deaths.server_gone(at);
    }

    /// When to call [`StormDetector::handle_timeout`]; `None` while nothing is wrong.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        let storm = self.episode.as_ref().map(|episode| episode.due);
        let thrash = self.thrash.as_ref().map(|thrash| thrash.due);
        storm.into_iter().chain(thrash).min()
    }

    /// Advances the time.
    pub fn handle_timeout(&mut self, now: Ktime) {
        if self.episode.as_ref().is_some_and(|e| e.due <= now) {
            self.roll(now);
            self.seconds.advance(now);
            self.trace.advance(now);
            self.evaluate(now);
        }
        if self.thrash.as_ref().is_some_and(|t| t.due <= now) {
            self.evaluate_thrash(now);
        }
    }

    /// The next alert to report.
    pub fn poll_alert(&mut self) -> Option<Alert> {
        self.alerts.pop_front()
    }

    /// True while clients come back at once.
    pub fn is_storm(&self) -> bool {
        self.episode
            .as_ref()
            .is_some_and(|episode| episode.phase == StormPhase::Storm)
    }

    /// The clients that keep reconnecting, as of at most 10 s ago.
    pub fn thrashing_clients(&self) -> u64 {
        self.thrash.as_ref().map_or(0, |thrash| thrash.clients)
    }

    /// Attempts of clients that had lost a connection, or had been refused, in the five minutes
    /// before. Exact while fewer than 4,096 clients come in five minutes; above that, extrapolated
    /// from a sample.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// What was learned, for storage across restarts.
    pub fn baseline(&self) -> Baseline {
        self.learner.baseline()
    }

    /// The clients with the most attempts, heaviest first, at most 1,024.
    pub fn clients(&self) -> Vec<ClientRow> {
        self.with_open(self.clients.heaviest(usize::MAX))
    }

    /// Approximate memory use.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let tables = [
            self.trace.bytes(),
            self.sample.bytes(),
            self.clients.bytes(),
            self.connections.bytes(),
        ];
        size_of::<Self>() + tables.iter().sum::<usize>()
    }

    fn came_back(&mut self, clients: u64) {
        self.totals.returning += clients;
        self.reconnects += clients;
    }

    fn hash(&self, client: IpAddr) -> u64 {
        hash(self.settings.seed, client)
    }

    /// Fills in the number of open connections of each client.
    fn with_open(&self, mut rows: Vec<ClientRow>) -> Vec<ClientRow> {
        for row in &mut rows {
            row.open = self.connections.count(row.client, self.hash(row.client));
        }
        rows
    }

    /// Learns from completed seconds. It lags by one second, so that none can still receive an
    /// event.
    fn roll(&mut self, at: Ktime) {
        let now = seconds::number(at);
        if self.marks.back().is_none_or(|(last, _)| *last < now) {
            if self.marks.len() > FAILING as usize {
                self.marks.pop_front();
            }
            self.marks.push_back((now, self.totals));
        }
        let next = *self.next.get_or_insert(now);
        if now < next + 2 {
            return;
        }
        let until = now - 1;
        let kept = until.min(next + seconds::LENGTH as u64);
        for index in next..kept {
            let second = self.seconds.sum(index, index);
            if let Some(pace) = self.pace(index) {
                self.learner.learn(second.arrivals, second.closes, pace);
            }
        }
        self.learner.learn_silence(until - kept);
        self.next = Some(until);
        self.set_alarm();
        if self.episode.is_none() && self.is_failing(until) {
            let since = Ktime((until - FAILING) * 1_000_000_000);
            self.begin_storm(at, since, self.before(since));
        }
    }

    /// The totals at the start of the second of `at`, or the oldest known ones.
    fn before(&self, at: Ktime) -> Totals {
        let number = seconds::number(at);
        let mark = self.marks.iter().find(|(mark, _)| *mark >= number);
        mark.map_or(self.totals, |(_, totals)| *totals)
    }

    /// How fast to learn from a second. Learning is slow in a storm, so that only a lasting rate
    /// becomes the usual one, and stops while failures exceed successes.
    fn pace(&self, index: u64) -> Option<f64> {
        if self.episode.is_none() {
            return Some(1.0);
        }
        let recent = self.seconds.sum(index.saturating_sub(FAILING), index);
        (recent.failed <= recent.accepted).then_some(0.1)
    }

    fn set_alarm(&mut self) {
        let baseline = self.learner.baseline();
        self.alarm = match baseline.is_learned() {
            true => baseline
                .arrivals
                .alarm(self.settings.least_rate, self.settings.times_baseline),
            false => u64::MAX,
        };
    }

    /// Evaluates the storm, once a second.
    fn evaluate(&mut self, now: Ktime) {
        let usual = self.learner.usual_arrivals().fast;
        let busy =
            (self.settings.least_rate as f64 / 2.0).max(self.settings.times_baseline / 2.0 * usual);
        let (peak, rate) = (self.trace.take_peak(), self.trace.rate());
        let Some(episode) = &mut self.episode else {
            return;
        };
        episode.due = now + episode::EVERY;
        episode.peak = episode.peak.max(peak);
        if peak.max(rate) as f64 >= busy {
            episode.keep_busy(now);
        }
        if episode.closed.is_some() {
            episode.cause = self.deaths.cause(episode.since).or(episode.cause);
        }
        if episode.phase == StormPhase::Storm {
            episode.judge_pattern(&self.trace);
        }
        if episode.is_over(now, &self.totals) {
            episode.phase = StormPhase::Over;
        }
        let is_over = episode.phase == StormPhase::Over;
        if episode.has_news() {
            self.report_storm(now);
        }
        if is_over {
            self.episode = None;
        }
    }

    fn report_storm(&mut self, at: Ktime) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        let pattern = episode.seen.pattern;
        episode.reported = Some(episode.report_content());
        episode.reports += 1;
        let of_it = self.totals.since(&episode.before);
        let per = |whole: u64, part: u64| (part > 0).then(|| whole as f64 / part as f64);
        // A return may be counted after its attempt, which may precede the storm.
        let share = per(of_it.returning.min(of_it.sampled), of_it.sampled);
        let since = episode.since;
        let storm = ReconnectStorm {
            phase: episode.phase,
            pattern,
            period: episode.seen.period,
            rate: self.trace.rate() as f64,
            peak_rate: episode.peak as f64,
            baseline_rate: self.learner.usual_arrivals().fast,
            attempts: of_it.attempts,
            successes: of_it.accepted,
            attempts_per_success: per(of_it.attempts, of_it.accepted),
            refused: of_it.refused.by_status(),
            returning_share: share,
            closes: episode.closes,
            cause: episode.cause,
            examples: self.with_open(self.clients.heaviest(ReconnectStorm::EXAMPLES)),
        };
        let firing = storm.phase != StormPhase::Over;
        let reason = advice::of_storm(&storm, at.since(since));
        self.report(firing, at, since, reason, Subject::Storm(Box::new(storm)));
    }

    fn report(&mut self, firing: bool, at: Ktime, since: Ktime, reason: String, subject: Subject) {
        self.alerts.push_back(Alert {
            status: match firing {
                true => Status::Firing,
                false => Status::Resolved(AlertResolution::Recovered),
            },
            listener: self.listener,
            hop: None,
            at,
            since,
            reason,
            subject,
        });
    }
}

/// Seconds of failing attempts that make a storm alone.
const FAILING: u64 = 30;

fn hash(seed: u64, client: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    match client {
        IpAddr::V4(v4) => hasher.write_u32(v4.into()),
        IpAddr::V6(v6) => hasher.write_u128(v6.into()),
    }
    hasher.finish()
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
