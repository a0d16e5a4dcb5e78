//! Reconnect storms: when a server restarts, its clients come back all at once and take it down again.
//!
//! One [`Storm`] for each listener. It is told of every attempt and every end, learns what is usual, and
//! says when clients lose their connections at once, when they come back at once, in what rhythm, and why.
//! Memory is bounded and an event costs the same however many clients there are.

mod advice;
mod baseline;
mod cause;
mod clients;
mod delays;
mod echo;
mod episode;
mod finding;
mod pattern;
mod phase;
mod regular;
mod sample;
mod seconds;
mod totals;
mod trace;
mod waves;

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hasher},
    net::IpAddr,
    time::Duration,
};

pub use baseline::{Baseline, Usual};
pub use finding::{Cause, ClientRow, Pattern, Phase, ReconnectStorm, StormFinding, Thrash};

use self::{
    baseline::Learner, cause::Deaths, clients::Clients, episode::Episode, sample::Sample,
    seconds::Seconds, totals::Totals, trace::Trace,
};
use super::{event::CloseHow, facts::Direction, time::Ktime};

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// With this HTTP status, if it could be read.
    Refused(Option<u16>),
    /// The connection ended without an answer.
    Unanswered,
}

/// A connection of the listener that was open is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    pub at: Ktime,
    /// The peer's address, or that of the client behind a proxy where it is known.
    pub client: IpAddr,
    /// The other end of the TCP connection.
    pub peer: IpAddr,
    pub how: CloseHow,
    /// Who began the end: [`Direction::Tx`] is this host.
    pub by: Option<Direction>,
    /// The silence before the end.
    pub idle: Duration,
    pub age: Option<Duration>,
    /// Bytes were outstanding.
    pub unacked: bool,
}

/// What the listening sockets did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// The last one was closed.
    Gone,
    /// There is one again.
    Listening,
}

/// When something is a storm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StormSettings {
    /// A mass close is more than this in 10 s, and more than [`StormSettings::mass_close_share`] of the
    /// connections.
    pub mass_close_least: u64,
    pub mass_close_share: f64,
    /// A storm is at least this many attempts per second, and at least
    /// [`StormSettings::times_baseline`] times what is usual.
    pub least_rate: u64,
    pub times_baseline: f64,
    /// A storm is also more than this many attempts for each success, for 30 s.
    pub attempts_per_success: f64,
    /// Thrash: so many connections of one client in a minute (at most 8), each shorter than
    /// [`StormSettings::short_life`].
    pub thrash_connections: usize,
    pub short_life: Duration,
    /// The key of the hash of addresses. Addresses can be chosen to be slow for a known key: take a random
    /// one, except where a run must be the same as another.
    pub seed: u64,
}

impl Default for StormSettings {
    fn default() -> Self {
        Self {
            mass_close_least: 20,
            mass_close_share: 0.05,
            least_rate: 20,
            times_baseline: 5.0,
            attempts_per_success: 2.0,
            thrash_connections: 5,
            short_life: Duration::from_secs(5),
            seed: 0,
        }
    }
}

/// The storm engine of one listener.
#[derive(Debug)]
pub struct Storm {
    settings: StormSettings,
    seconds: Seconds,
    trace: Trace,
    sample: Sample,
    clients: Clients,
    deaths: Deaths,
    learner: Learner,
    totals: Totals,
    /// What they were when each of the last seconds with an event began.
    marks: VecDeque<(u64, Totals)>,
    /// The next second to learn from.
    next: Option<u64>,
    /// So many arrivals in a second are unusual.
    alarm: u64,
    /// The latest seconds in which that was reached: their number and the moment.
    crossed: VecDeque<(u64, Ktime)>,
    episode: Option<Box<Episode>>,
    episodes: u32,
    thrash: Option<Thrashing>,
    findings: VecDeque<StormFinding>,
    reconnects: u64,
}

/// That clients thrash, as it was told.
#[derive(Debug)]
struct Thrashing {
    since: Ktime,
    told: u64,
    due: Ktime,
}

impl Storm {
    /// A `baseline` that is not plausible, or was learned for less than a minute, is not used.
    pub fn new(settings: &StormSettings, baseline: Option<Baseline>) -> Self {
        let mut storm = Self {
            settings: *settings,
            seconds: Seconds::new(),
            trace: Trace::new(),
            sample: Sample::new(),
            clients: Clients::new(),
            deaths: Deaths::default(),
            learner: Learner::new(baseline),
            totals: Totals::default(),
            marks: VecDeque::new(),
            next: None,
            alarm: u64::MAX,
            crossed: VecDeque::new(),
            episode: None,
            episodes: 0,
            thrash: None,
            findings: VecDeque::new(),
            reconnects: 0,
        };
        storm.set_alarm();
        storm
    }

    /// A client asks: an upgrade request, or the opening of TLS. `client` is canonical.
    pub fn arrived(&mut self, at: Ktime, client: IpAddr) {
        self.roll(at);
        let hash = self.hash(client);
        let second = self.seconds.at(at);
        second.arrivals += 1;
        let arrivals = second.arrivals;
        self.totals.attempts += 1;
        self.trace.arrive(at);
        self.clients.arrive(at, client, hash);
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

    /// An attempt has its outcome.
    pub fn settled(&mut self, at: Ktime, client: IpAddr, outcome: Outcome) {
        self.roll(at);
        let hash = self.hash(client);
        let accepted = outcome == Outcome::Accepted;
        let second = self.seconds.at(at);
        match outcome {
            Outcome::Accepted => {
                second.accepted += 1;
                self.totals.accepted += 1;
            }
            Outcome::Refused(_) | Outcome::Unanswered => {
                second.failed += 1;
                self.trace.fail(at);
                let status = match outcome {
                    Outcome::Refused(status) => status,
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

    /// A connection is over; `established` were open before it.
    pub fn departed(&mut self, departure: &Departure, established: u64) {
        let Departure { at, client, .. } = *departure;
        self.roll(at);
        let hash = self.hash(client);
        let second = self.seconds.at(at);
        second.closes += 1;
        second.established = second.established.max(established);
        self.trace.fail(at);
        let returned = self.sample.depart(at, hash, departure.age);
        self.came_back(returned);
        self.deaths.add(departure);
        let short = departure
            .age
            .is_some_and(|age| age < self.settings.short_life);
        let thrash = self.settings.thrash_connections;
        let thrashes = self.clients.depart(at, client, hash, short, thrash);
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

    /// A listening socket came or the last one went.
    pub fn server(&mut self, at: Ktime, change: ServerChange) {
        if change == ServerChange::Gone {
            self.deaths.server_gone(at);
        }
    }

    /// When to be shown the time; `None` while nothing is wrong.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        let storm = self.episode.as_ref().map(|episode| episode.due);
        let thrash = self.thrash.as_ref().map(|thrash| thrash.due);
        storm.into_iter().chain(thrash).min()
    }

    /// Shows the time.
    pub fn handle_timeout(&mut self, now: Ktime) {
        if self.episode.as_ref().is_some_and(|e| e.due <= now) {
            self.roll(now);
            self.seconds.advance(now);
            self.trace.advance(now);
            self.look(now);
        }
        if self.thrash.as_ref().is_some_and(|t| t.due <= now) {
            self.look_at_thrash(now);
        }
    }

    /// What is to be told next.
    pub fn poll_finding(&mut self) -> Option<StormFinding> {
        self.findings.pop_front()
    }

    /// Whether clients come back at once.
    pub fn is_storm(&self) -> bool {
        self.episode
            .as_ref()
            .is_some_and(|episode| episode.phase == Phase::Storm)
    }

    /// Attempts of clients that had lost a connection, or had been refused, in the five minutes before.
    /// Exact while fewer than 4,096 clients come in five minutes; beyond, extrapolated from a sample.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// What was learned, to be kept over a restart.
    pub fn baseline(&self) -> Baseline {
        self.learner.baseline()
    }

    /// The clients that ask most often, heaviest first, at most 1,024.
    pub fn clients(&self) -> Vec<ClientRow> {
        self.clients.heaviest(usize::MAX)
    }

    /// About the memory that it holds.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.trace.bytes() + self.sample.bytes() + self.clients.bytes()
    }

    fn came_back(&mut self, clients: u64) {
        self.totals.returning += clients;
        self.reconnects += clients;
    }

    fn hash(&self, client: IpAddr) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.settings.seed);
        match client {
            IpAddr::V4(v4) => hasher.write_u32(v4.into()),
            IpAddr::V6(v6) => hasher.write_u128(v6.into()),
        }
        hasher.finish()
    }

    /// Learns from the seconds that are over. One second late, so that none is still to get an event.
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

    /// The totals when the second of `at` began, or the oldest that are known.
    fn before(&self, at: Ktime) -> Totals {
        let number = seconds::number(at);
        let mark = self.marks.iter().find(|(mark, _)| *mark >= number);
        mark.map_or(self.totals, |(_, totals)| *totals)
    }

    /// How fast to learn from a second. In a storm slowly, so that a rate that stays becomes the usual
    /// one; and never from attempts that fail.
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

    /// Whether more attempts failed than clients should make for one success, in each third of the
    /// half minute before second `until`.
    fn is_failing(&self, until: u64) -> bool {
        let third = FAILING / 3;
        until >= FAILING
            && self.seconds.sum(until - FAILING, until - 1).arrivals >= FAILING * LEAST_FAILING
            && (1..=3).all(|n| {
                let from = until - n * third;
                let of_it = self.seconds.sum(from, from + third - 1);
                let limit = self.settings.attempts_per_success * of_it.accepted as f64;
                of_it.arrivals as f64 > limit && of_it.failed * 2 > of_it.arrivals
            })
    }

    fn judge_arrivals(&mut self, at: Ktime, arrivals: u64) {
        if let Some(episode) = &self.episode
            && self.is_return(at, episode)
        {
            let (since, before) = (episode.since, episode.before);
            self.begin_storm(at, since, before);
            return;
        }
        if arrivals < self.alarm {
            return;
        }
        let index = seconds::number(at);
        while let Some((_, first)) = self.crossed.front()
            && at.since(*first) > TWICE_WITHIN
        {
            self.crossed.pop_front();
        }
        if let Some((other, first)) = self.crossed.front()
            && *other != index
            && at.since(*first) >= episode::EVERY
        {
            let since = *first;
            self.begin_storm(at, since, self.before(since));
        } else if self.crossed.back().is_none_or(|last| last.0 != index) {
            self.crossed.push_back((index, at));
        }
    }

    /// Whether those who lost their connections come back at once: more than chance and a quarter of
    /// them, at the least rate of a storm.
    fn is_return(&self, at: Ktime, episode: &Episode) -> bool {
        let rate = self.trace.rate();
        if rate < self.settings.least_rate {
            return false;
        }
        let usual = self.learner.usual_arrivals();
        let expected = usual.fast * at.since(episode.since).as_secs_f64();
        let came = self.totals.since(&episode.before).attempts as f64;
        let least = (self.settings.least_rate as f64).max(episode.closes as f64 / 4.0);
        came - expected >= least
            && came - expected >= 6.0 * (expected * usual.dispersion()).sqrt()
            && rate as f64 >= 2.0 * usual.fast
    }

    fn is_mass_close(&self, at: Ktime, established: u64) -> bool {
        let now = seconds::number(at);
        let recent = self.seconds.sum(now.saturating_sub(9), now);
        let share = recent.established as f64 * self.settings.mass_close_share;
        let least = share.max(self.settings.mass_close_least as f64);
        let closes = recent.closes as f64;
        if closes <= least {
            return false;
        }
        // Where connections come and go all the time, many closes are usual. It is a mass close if these are
        // far more than usual; or more than usual, and so many fewer are left.
        let baseline = self.learner.baseline();
        let usual = 10.0 * baseline.closes.rate();
        let changes = (recent.closes + recent.arrivals) as f64;
        let noise = (changes * baseline.closes.dispersion()).sqrt();
        let lost = (recent.established + 1).saturating_sub(established) as f64;
        lost.min(closes - usual) > least.max(6.0 * noise)
            || (baseline.is_learned()
                && closes >= self.settings.times_baseline * usual
                && baseline.closes.is_no_chance(closes, usual))
    }

    fn begin_mass_close(&mut self, at: Ktime) {
        let now = seconds::number(at);
        let since = self.deaths.begin(at);
        let mut episode = self.new_episode(since, at, Phase::MassClose, self.totals);
        episode.closes = self.seconds.sum(seconds::number(since), now).closes;
        episode.closed = Some(at);
        episode.lost = Some(since);
        self.trace.take_peak();
        self.episode = Some(episode);
    }

    fn begin_storm(&mut self, at: Ktime, since: Ktime, before: Totals) {
        if self
            .episode
            .as_ref()
            .is_some_and(|episode| episode.told.is_none())
        {
            // What came before is told before.
            self.look(at);
        }
        let mut episode = match self.episode.take() {
            Some(episode) => episode,
            None => self.new_episode(since, at, Phase::Storm, before),
        };
        episode.phase = Phase::Storm;
        episode.busy = at;
        episode.due = at + episode::EVERY;
        episode.peak = episode.peak.max(self.trace.take_peak());
        if episode.closed.is_some() {
            episode.cause = self.deaths.cause(episode.since);
        }
        self.crossed.clear();
        self.episode = Some(episode);
        self.tell(at);
    }

    fn new_episode(
        &mut self,
        since: Ktime,
        at: Ktime,
        phase: Phase,
        before: Totals,
    ) -> Box<Episode> {
        self.episodes = self.episodes.wrapping_add(1).max(1);
        Box::new(Episode::new(self.episodes, since, at, phase, before))
    }

    /// Looks at the storm once a second.
    fn look(&mut self, now: Ktime) {
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
        if episode.phase == Phase::Storm {
            episode.judge_pattern(&self.trace);
        }
        if episode.is_over(now, &self.totals) {
            episode.phase = Phase::Over;
        }
        let is_over = episode.phase == Phase::Over;
        if episode.has_news() {
            self.tell(now);
        }
        if is_over {
            self.episode = None;
        }
    }

    fn tell(&mut self, at: Ktime) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        let pattern = episode.seen.pattern;
        episode.told = Some(episode.to_tell());
        episode.tellings += 1;
        let of_it = self.totals.since(&episode.before);
        let per = |whole: u64, part: u64| (part > 0).then(|| whole as f64 / part as f64);
        let mut storm = ReconnectStorm {
            firing: episode.phase != Phase::Over,
            at,
            since: episode.since,
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
            returning_share: per(of_it.returning, of_it.sampled),
            closes: episode.closes,
            cause: episode.cause,
            examples: self.clients.heaviest(ReconnectStorm::EXAMPLES),
            reason: String::new(),
        };
        storm.reason = advice::of_storm(&storm);
        self.findings
            .push_back(StormFinding::Reconnect(Box::new(storm)));
    }

    fn begin_thrash(&mut self, at: Ktime) {
        self.thrash = Some(Thrashing {
            since: at,
            told: 0,
            due: at,
        });
        self.look_at_thrash(at);
    }

    /// Tells of all clients that thrash in one line, and again when they have become twice as many.
    fn look_at_thrash(&mut self, now: Ktime) {
        let Some(thrash) = &mut self.thrash else {
            return;
        };
        thrash.due = now + THRASH_EVERY;
        let mut rows = self.clients.thrashing(now);
        let clients = rows.len() as u64;
        let firing = clients > 0;
        if firing && clients < thrash.told * 2 {
            return;
        }
        thrash.told = clients;
        let since = thrash.since;
        if !firing {
            self.thrash = None;
        }
        let reason = match firing {
            true => advice::of_thrash(clients, rows.first()),
            false => {
                "no client has connected for seconds only, again and again, for a minute".into()
            }
        };
        rows.truncate(Thrash::EXAMPLES);
        self.findings
            .push_back(StormFinding::Thrash(Box::new(Thrash {
                firing,
                at: now,
                since,
                clients,
                examples: rows,
                reason,
            })));
    }
}

/// Seconds of failing attempts that are a storm, by themselves.
const FAILING: u64 = 30;
/// As far as there are so many attempts in a second.
const LEAST_FAILING: u64 = 5;
/// Within this, two unusual seconds belong together.
const TWICE_WITHIN: Duration = Duration::from_secs(5);
const THRASH_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
