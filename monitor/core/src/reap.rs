//! Policy for aborting dead connections: which ones and when. The shell aborts them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Deserialize;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{
    alert::{Alert, ConnectionVerdict, Subject},
    facts::ConnId,
    rules::SLOWED_TIMER,
    time::Ktime,
    verdict::{Certainty, VerdictKind},
};

/// What happens to dead connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, EnumString)]
#[serde(rename_all = "kebab-case")]
#[strum(
    serialize_all = "kebab-case",
    parse_err_ty = InvalidReapMode,
    parse_err_fn = InvalidReapMode::new
)]
pub enum ReapMode {
    /// They are only reported, like all others.
    #[default]
    Off,
    /// wsmon reports which of the confirmed ones it would abort.
    DryRun,
    /// Those whose death is confirmed are aborted.
    Confirmed,
    /// Also those whose death is inferred from TLS records.
    Inferred,
}

impl ReapMode {
    /// Whether connections are aborted.
    pub fn aborts(self) -> bool {
        matches!(self, Self::Confirmed | Self::Inferred)
    }

    /// Whether the certainty of a death is enough.
    fn accepts(self, certainty: Certainty) -> bool {
        match self {
            Self::Off => false,
            Self::DryRun | Self::Confirmed => certainty == Certainty::Confirmed,
            Self::Inferred => certainty >= Certainty::Inferred,
        }
    }
}

/// Not the name of a mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode {0:?}, expected off, dry-run, confirmed or inferred")]
pub struct InvalidReapMode(String);

impl InvalidReapMode {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The result for a connection that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ReapOutcome {
    Destroyed,
    /// Its socket was already gone.
    Gone,
    /// It would have been aborted.
    DryRun,
    /// The kernel refused.
    Failed,
}

impl ReapOutcome {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Settings for reaping dead connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReapSettings {
    pub mode: ReapMode,
    /// Maximum number of aborts per minute, which is also the largest burst after a quiet minute.
    pub max_per_minute: u32,
}

impl Default for ReapSettings {
    fn default() -> Self {
        Self {
            mode: ReapMode::Off,
            max_per_minute: 60,
        }
    }
}

/// The connections that wait to be aborted. Check each again when it is due, because it may have
/// recovered.
#[derive(Debug)]
pub struct Reaper {
    settings: ReapSettings,
    /// Never exceeds [`ReapSettings::max_per_minute`].
    allowed: u32,
    /// When `allowed` was last updated.
    counted_at: Ktime,
    /// By the time from which they may be aborted, then in the order of the offers.
    waiting: BTreeMap<QueueKey, ConnId>,
    /// The key of each connection in `waiting`.
    queue_keys: HashMap<ConnId, QueueKey>,
    offered: u64,
}

type QueueKey = (Ktime, u64);

impl Reaper {
    pub fn new(settings: ReapSettings) -> Self {
        Self {
            settings,
            allowed: settings.max_per_minute,
            counted_at: Ktime::ZERO,
            waiting: BTreeMap::new(),
            queue_keys: HashMap::new(),
            offered: 0,
        }
    }

    /// Handles an alert. A connection whose death it reports with enough certainty becomes due later,
    /// unless the verdict ends first.
    pub fn offer(&mut self, alert: &Alert) {
        let Subject::Connection(verdict) = &alert.subject else {
            return;
        };
        let conn = verdict.facts.conn;
        if !alert.is_firing() {
            if let Some(key) = self.queue_keys.remove(&conn) {
                self.waiting.remove(&key);
            }
        } else if may_be_reaped(self.settings.mode, verdict) && !self.queue_keys.contains_key(&conn)
        {
            self.offered += 1;
            let key = (alert.at + reap_delay(verdict), self.offered);
            self.queue_keys.insert(conn, key);
            self.waiting.insert(key, conn);
        }
    }

    /// The next connection to abort, if the rate allows one.
    pub fn poll(&mut self, now: Ktime) -> Option<ConnId> {
        self.count(now);
        if self.allowed == 0 {
            return None;
        }
        let first = self.waiting.first_entry().filter(|it| it.key().0 <= now)?;
        let conn = first.remove();
        self.queue_keys.remove(&conn);
        self.allowed -= 1;
        Some(conn)
    }

    /// When [`Reaper::poll`] next returns a connection; `None` while none waits.
    pub fn poll_timeout(&self) -> Option<Ktime> {
        let (due, _) = *self.waiting.first_key_value()?.0;
        match self.allowed {
            0 => Some(due.max(self.counted_at + self.interval()?)),
            _ => Some(due.max(self.counted_at)),
        }
    }

    fn count(&mut self, now: Ktime) {
        let Some(interval) = self.interval() else {
            return;
        };
        let earned = now.since(self.counted_at).as_nanos() / interval.as_nanos();
        let most = self.settings.max_per_minute;
        if earned >= u128::from(most - self.allowed) {
            self.allowed = most;
            self.counted_at = self.counted_at.max(now);
        } else if let Ok(earned) = u32::try_from(earned) {
            self.allowed += earned;
            self.counted_at = self.counted_at + interval * earned;
        }
    }

    /// The time between two aborts; `None` if none is allowed at all.
    fn interval(&self) -> Option<Duration> {
        MINUTE.checked_div(self.settings.max_per_minute)
    }
}

/// True if a standing verdict shows that the other end is dead, with the certainty that the mode demands.
/// A suspicion is never enough, nor is an application that is slow, or slow to close.
pub fn may_be_reaped(mode: ReapMode, verdict: &ConnectionVerdict) -> bool {
    let dead = match verdict.kind {
        VerdictKind::Expired | VerdictKind::BlackHoled | VerdictKind::Unresponsive => true,
        VerdictKind::HalfClosed
        | VerdictKind::Stalled
        | VerdictKind::Backlogged
        | VerdictKind::Expiring
        | VerdictKind::Quiet => false,
    };
    dead && mode.accepts(verdict.certainty)
}

/// TCP's evidence of a dead path is final. Pongs may still come, so an unresponsive client gets the
/// time that confirmed the verdict once more. If its death is inferred, it gets more: what looks like pongs may
/// be texts that it sends by a timer.
fn reap_delay(verdict: &ConnectionVerdict) -> Duration {
    match (verdict.kind, verdict.certainty) {
        (VerdictKind::Unresponsive, Certainty::Inferred) => verdict.limit.max(SLOWED_TIMER),
        (VerdictKind::Unresponsive, _) => verdict.limit,
        _ => Duration::ZERO,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionAlert, Facts, ListenerId, Status};

    #[test]
    fn an_unresponsive_client_gets_the_time_that_confirmed_it_once_more() {
        let mut reaper = reaper(10);
        let unresponsive = alert(1, VerdictKind::Unresponsive, Certainty::Confirmed);
        reaper.offer(&unresponsive);
        reaper.offer(&alert(2, VerdictKind::Expired, Certainty::Confirmed));
        assert_eq!(reaper.poll(second(1)), Some(ConnId(2)));
        assert_eq!(reaper.poll(second(6)), None);
        let due = unresponsive.at + Duration::from_secs(6);
        assert_eq!(reaper.poll_timeout(), Some(due));
        assert_eq!(reaper.poll(due), Some(ConnId(1)));
    }

    #[test]
    fn a_connection_that_recovers_leaves_the_queue_and_waits_anew() {
        let mut reaper = reaper(10);
        let mut alert = alert(1, VerdictKind::Unresponsive, Certainty::Confirmed);
        reaper.offer(&alert);
        alert.status = Status::Resolved(crate::AlertResolution::Recovered);
        reaper.offer(&alert);
        assert_eq!(reaper.poll_timeout(), None);
        (alert.status, alert.at) = (Status::Firing, second(5));
        reaper.offer(&alert);
        assert_eq!(reaper.poll(second(10)), None);
        assert_eq!(reaper.poll(second(11)), Some(ConnId(1)));
    }

    fn alert(conn: u64, kind: VerdictKind, certainty: Certainty) -> Alert {
        let alert = ConnectionAlert {
            status: Status::Firing,
            listener: ListenerId(0),
            hop: None,
            at: Ktime(1),
            since: Ktime(1),
            reason: String::new(),
            subject: Box::new(verdict(conn, kind, certainty)),
        };
        alert.into()
    }

    fn verdict(conn: u64, kind: VerdictKind, certainty: Certainty) -> ConnectionVerdict {
        ConnectionVerdict {
            kind,
            certainty,
            limit: Duration::from_secs(6),
            facts: Facts::just_opened(conn, Ktime(1)),
            send_queue: None,
            background: None,
        }
    }

    fn reaper(max_per_minute: u32) -> Reaper {
        reaper_in(ReapMode::Confirmed, max_per_minute)
    }

    fn reaper_in(mode: ReapMode, max_per_minute: u32) -> Reaper {
        Reaper::new(ReapSettings {
            mode,
            max_per_minute,
        })
    }

    fn second(second: u64) -> Ktime {
        Ktime(second * 1_000_000_000)
    }

    #[test]
    fn only_deaths_of_the_chosen_certainty_are_reaped() {
        use Certainty::{Confirmed, Inferred, Suspected};
        for (mode, reaped) in [
            (ReapMode::Off, &[][..]),
            (ReapMode::DryRun, &[Confirmed]),
            (ReapMode::Confirmed, &[Confirmed]),
            (ReapMode::Inferred, &[Inferred, Confirmed]),
        ] {
            for &kind in VerdictKind::ALL {
                for certainty in [Suspected, Inferred, Confirmed] {
                    assert_eq!(
                        may_be_reaped(mode, &verdict(1, kind, certainty)),
                        kind.is_death() && reaped.contains(&certainty),
                        "{mode:?} {kind:?} {certainty:?}"
                    );
                }
            }
        }
        let mut resolved = alert(1, VerdictKind::Expired, Confirmed);
        resolved.status = Status::Resolved(crate::AlertResolution::Recovered);
        let mut reaper = reaper(10);
        reaper.offer(&resolved);
        assert_eq!(reaper.poll_timeout(), None);
    }

    #[test]
    fn an_inferred_death_is_reaped_only_on_demand_and_after_more_than_a_minute() {
        let unresponsive = alert(1, VerdictKind::Unresponsive, Certainty::Inferred);
        for mode in [ReapMode::Off, ReapMode::DryRun, ReapMode::Confirmed] {
            let mut reaper = reaper_in(mode, 10);
            reaper.offer(&unresponsive);
            assert_eq!(reaper.poll_timeout(), None, "{mode:?}");
        }
        let mut reaper = reaper_in(ReapMode::Inferred, 10);
        reaper.offer(&unresponsive);
        reaper.offer(&alert(2, VerdictKind::Expired, Certainty::Confirmed));
        assert_eq!(reaper.poll(second(1)), Some(ConnId(2)));
        assert_eq!(reaper.poll(second(64)), None);
        let due = unresponsive.at + Duration::from_secs(64);
        assert_eq!(reaper.poll(due), Some(ConnId(1)));
    }

    #[test]
    fn the_names_of_the_modes_are_those_of_the_error() {
        for (name, mode) in [
            ("off", ReapMode::Off),
            ("dry-run", ReapMode::DryRun),
            ("confirmed", ReapMode::Confirmed),
            ("inferred", ReapMode::Inferred),
        ] {
            assert_eq!(name.parse(), Ok(mode));
        }
        let error = "all".parse::<ReapMode>().expect_err("no mode");
        assert_eq!(
            error.to_string(),
            "invalid mode \"all\", expected off, dry-run, confirmed or inferred"
        );
    }

    #[test]
    fn nothing_is_reaped_by_default() {
        let mut off = Reaper::new(ReapSettings::default());
        off.offer(&alert(1, VerdictKind::Expired, Certainty::Confirmed));
        assert_eq!(off.poll(second(100)), None);
        assert_eq!(off.poll_timeout(), None);
    }

    #[test]
    fn a_connection_is_reaped_once_even_if_it_is_offered_repeatedly() {
        let mut reaper = reaper(10);
        for _ in 0..3 {
            reaper.offer(&alert(7, VerdictKind::Expired, Certainty::Confirmed));
        }
        assert_eq!(reaper.poll(second(100)), Some(ConnId(7)));
        assert_eq!(reaper.poll(second(100)), None);
    }

    #[test]
    fn connections_beyond_the_rate_wait() {
        let mut reaper = reaper(2);
        for conn in 1..=4 {
            reaper.offer(&alert(conn, VerdictKind::BlackHoled, Certainty::Confirmed));
        }
        assert_eq!(reaper.poll(second(1000)), Some(ConnId(1)));
        assert_eq!(reaper.poll(second(1000)), Some(ConnId(2)));
        assert_eq!(reaper.poll(second(1000)), None);
        assert_eq!(reaper.poll_timeout(), Some(second(1030)));
        assert_eq!(reaper.poll(second(1029)), None);
        assert_eq!(reaper.poll(second(1030)), Some(ConnId(3)));
        assert_eq!(reaper.poll(second(1045)), None);
        assert_eq!(reaper.poll(second(1060)), Some(ConnId(4)));
        assert_eq!(reaper.poll_timeout(), None);
    }

    #[test]
    fn a_rate_of_zero_never_reaps() {
        let mut reaper = reaper(0);
        reaper.offer(&alert(1, VerdictKind::Expired, Certainty::Confirmed));
        assert_eq!(reaper.poll(second(10_000)), None);
        assert_eq!(reaper.poll_timeout(), None);
    }
}
