//! Detects the start of a storm: too many attempts, too many failures, too many closes at once, or
//! the return of clients that lost their connections.

use std::time::Duration;

use super::{
    FAILING, StormDetector, Usual,
    episode::{self, Episode},
    finding::StormPhase,
    seconds,
    totals::Totals,
};
use crate::time::Ktime;

impl StormDetector {
    /// True if each third of the half minute before second `until` had more attempts per success
    /// than clients should make, and most attempts failed.
    pub(super) fn is_failing(&self, until: u64) -> bool {
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

    pub(super) fn judge_arrivals(&mut self, at: Ktime, arrivals: u64) {
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

    /// True if clients that lost their connections come back at once: more than chance and a
    /// quarter of them, at the least rate of a storm.
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

    pub(super) fn is_mass_close(&self, at: Ktime, established: u64) -> bool {
        let now = seconds::number(at);
        let recent = self.seconds.sum(now.saturating_sub(9), now);
        let share = recent.established as f64 * self.settings.mass_close_share;
        let least = share.max(self.settings.mass_close_least as f64);
        let closes = recent.closes as f64;
        if closes <= least {
            return false;
        }
        // Where connections come and go all the time, many closes are usual. It is a mass close if
        // the closes are far more than usual, or more than usual and as many fewer connections are
        // left.
        let baseline = self.learner.baseline();
        let usual = 10.0 * baseline.closes.rate();
        let changes = (recent.closes + recent.arrivals) as f64;
        let noise = (changes * baseline.closes.dispersion()).sqrt();
        let lost = (recent.established + 1).saturating_sub(established) as f64;
        lost.min(closes - usual) > least.max(6.0 * noise)
            || (baseline.is_learned()
                && closes >= self.settings.times_baseline * usual
                && baseline.closes.is_no_chance(closes, usual))
            || (!baseline.is_learned()
                && recent.lasting_closes as f64 > least
                && self.is_first_mass_close(at, least))
    }

    /// True if lasting connections close at once before anything was learned: far more than in the
    /// time before, for which one extra close is assumed.
    fn is_first_mass_close(&self, at: Ktime, least: f64) -> bool {
        let since = self.deaths.begin(at);
        let watched = self
            .watched_since
            .map_or(Duration::ZERO, |begun| since.since(begun))
            .min(Duration::from_secs(seconds::LENGTH as u64));
        let (first, now) = (seconds::number(since), seconds::number(at));
        let closes = self.seconds.sum(first, now).lasting_closes as f64;
        let before = self.seconds.sum(0, first.saturating_sub(1)).lasting_closes;
        let lasted = at.since(since).max(episode::EVERY).as_secs_f64();
        let usual = (before + 1) as f64 / watched.as_secs_f64() * lasted;
        closes > least
            && closes >= self.settings.times_baseline * usual
            && Usual::default().is_no_chance(closes, usual)
    }

    pub(super) fn begin_mass_close(&mut self, at: Ktime) {
        let now = seconds::number(at);
        let since = self.deaths.begin(at);
        let mut episode = self.new_episode(since, at, StormPhase::MassClose, self.totals);
        episode.closes = self.seconds.sum(seconds::number(since), now).closes;
        episode.closed = Some(at);
        episode.lost = Some(since);
        self.trace.take_peak();
        self.episode = Some(episode);
    }

    pub(super) fn begin_storm(&mut self, at: Ktime, since: Ktime, before: Totals) {
        if self
            .episode
            .as_ref()
            .is_some_and(|episode| episode.reported.is_none())
        {
            // The earlier phase is reported first.
            self.evaluate(at);
        }
        let mut episode = match self.episode.take() {
            Some(episode) => episode,
            None => self.new_episode(since, at, StormPhase::Storm, before),
        };
        episode.phase = StormPhase::Storm;
        episode.busy = at;
        episode.due = at + episode::EVERY;
        episode.peak = episode.peak.max(self.trace.take_peak());
        if episode.closed.is_some() {
            episode.cause = self.deaths.cause(episode.since);
        }
        self.crossed.clear();
        self.episode = Some(episode);
        self.report_storm(at);
    }

    fn new_episode(
        &mut self,
        since: Ktime,
        at: Ktime,
        phase: StormPhase,
        before: Totals,
    ) -> Box<Episode> {
        self.episodes = self.episodes.wrapping_add(1).max(1);
        Box::new(Episode::new(self.episodes, since, at, phase, before))
    }
}

/// The least attempts per second for that.
const LEAST_FAILING: u64 = 5;
/// Unusual seconds within this time belong together.
const TWICE_WITHIN: Duration = Duration::from_secs(5);
