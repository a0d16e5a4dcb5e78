//! The naive monitor: it evaluates the truth about every socket all the time.

use std::{collections::BTreeMap, time::Duration};

use monitor_core::{
    Certainty, ConnId, Facts, Ktime, ListenerRules, OnExpiry, VerdictKind, facts::Direction,
};

use crate::kernel::{Moment, STALENESS};

/// One report of a monitor about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportedAlert {
    pub at: Ktime,
    pub kind: VerdictKind,
    pub certainty: Certainty,
    pub firing: bool,
}

/// The reports about zombies. Evaluates every socket after every change and at least every `step`,
/// up to `end`. Leaves out connections on which a monitor that reads copies may correctly differ.
pub(crate) fn full_scan(
    rules: &[ListenerRules],
    timeline: &[Moment],
    step: Duration,
    end: Ktime,
) -> BTreeMap<ConnId, Vec<ReportedAlert>> {
    let mut emitted = BTreeMap::new();
    let mut by_conn: BTreeMap<ConnId, Vec<&Moment>> = BTreeMap::new();
    for moment in timeline {
        by_conn.entry(moment.conn).or_default().push(moment);
    }
    for (conn, moments) in by_conn {
        let mut scan = FullScan::default();
        for (index, moment) in moments.iter().enumerate() {
            let until = moments.get(index + 1).map_or(end, |next| next.at);
            let Some(truth) = &moment.truth else {
                scan.close(moment.at);
                break;
            };
            let rules = &rules[usize::from(truth.listener.0)];
            let mut at = moment.at;
            while at < until {
                scan.observe(truth, rules, at);
                at = at + step;
            }
            // For conditions that were true for less than a step.
            scan.observe(truth, rules, Ktime(until.0 - 1));
        }
        if !scan.contested {
            emitted.insert(conn, scan.emitted);
        }
    }
    emitted
}

/// True if an alert of this kind and certainty describes a socket right now. A confirmed verdict
/// may have been suspected in a state that has passed: the flow has sent since, or begun to close.
pub(crate) fn is_true(
    kind: VerdictKind,
    certainty: Certainty,
    t: &Facts,
    r: &ListenerRules,
    now: Ktime,
) -> bool {
    match (kind, certainty) {
        (VerdictKind::BlackHoled, Certainty::Suspected) => black_holed(t, r, now).is_some(),
        (VerdictKind::BlackHoled, Certainty::Confirmed) => {
            is_stuck(t, r, now) && is_confirmed(kind, t, r, now)
        }
        (_, Certainty::Confirmed) => is_confirmed(kind, t, r, now),
        // No connection here uses TLS.
        (_, Certainty::Inferred) => false,
        (VerdictKind::Expired, _) => expired(t, r, now).is_some(),
        (VerdictKind::Unresponsive, _) => unresponsive(t, r, now).is_some(),
        (VerdictKind::Expiring, _) => r.path.tightest().is_some_and(|hop| {
            let idle = now.since(t.last_activity().unwrap());
            hop.on_expiry == OnExpiry::Fin && idle >= hop.idle_timeout.unwrap() / 20 * 19
        }),
        (
            VerdictKind::HalfClosed
            | VerdictKind::Stalled
            | VerdictKind::Backlogged
            | VerdictKind::Quiet,
            _,
        ) => false,
    }
}

/// How long after the bytes the last try must have left.
const LATE: Duration = Duration::from_secs(5);
/// How long a monitor waits for the answer to what has just left.
const ANSWER: Duration = Duration::from_secs(1);

#[derive(Default)]
struct FullScan {
    standing: Option<(VerdictKind, Certainty, Ktime)>,
    emitted: Vec<ReportedAlert>,
    /// A second rule came true within the staleness after `expired`: which of them applies depends
    /// on the age of the copy. Or a rule came true right after an acknowledgement, or not long
    /// enough for an answer to come: a monitor may wait for that.
    contested: bool,
}

impl FullScan {
    fn observe(&mut self, t: &Facts, r: &ListenerRules, now: Ktime) {
        if let Some(last) = self.emitted.last()
            && last.firing
            && last.kind == VerdictKind::Expired
            && now.since(last.at) <= STALENESS
        {
            self.contested |= black_holed(t, r, now).is_some() || unresponsive(t, r, now).is_some();
        }
        if let Some((kind, certainty, since)) = self.standing {
            if recovered(kind, since, t) {
                self.standing = None;
                self.contested |= self.was_short(now);
                self.say(now, kind, certainty, false);
            } else if certainty == Certainty::Suspected && is_confirmed(kind, t, r, now) {
                self.standing = Some((kind, Certainty::Confirmed, since));
                self.say(now, kind, Certainty::Confirmed, true);
            }
        }
        if self.standing.is_some() {
            return;
        }
        if let Some(certainty) = expired(t, r, now) {
            self.fire(now, VerdictKind::Expired, certainty, now);
        } else if let Some(certainty) = black_holed(t, r, now) {
            // A copy may not show it.
            self.contested |= !tried_late(t, LATE + STALENESS) && t.retransmits >= 5;
            self.fire(
                now,
                VerdictKind::BlackHoled,
                certainty,
                t.unacked_since.unwrap(),
            );
        } else if let Some(certainty) = unresponsive(t, r, now) {
            let first = t.first_try.unwrap();
            self.contested |= t
                .ack_progress_at
                .is_some_and(|at| now.since(at) <= STALENESS);
            self.fire(now, VerdictKind::Unresponsive, certainty, first);
        }
    }

    fn was_short(&self, now: Ktime) -> bool {
        self.emitted.last().is_some_and(|last| {
            let waits = matches!(
                last.kind,
                VerdictKind::BlackHoled | VerdictKind::Unresponsive
            );
            waits && now.since(last.at) <= ANSWER + STALENESS
        })
    }

    fn fire(&mut self, now: Ktime, kind: VerdictKind, certainty: Certainty, since: Ktime) {
        self.standing = Some((kind, certainty, since));
        self.say(now, kind, certainty, true);
    }

    fn close(&mut self, now: Ktime) {
        if let Some((kind, certainty, _)) = self.standing {
            self.contested |= self.was_short(now);
            self.say(now, kind, certainty, false);
        }
    }

    fn say(&mut self, at: Ktime, kind: VerdictKind, certainty: Certainty, firing: bool) {
        self.emitted.push(ReportedAlert {
            at,
            kind,
            certainty,
            firing,
        });
    }
}

fn expired(t: &Facts, r: &ListenerRules, now: Ktime) -> Option<Certainty> {
    let hop = r.path.tightest()?;
    let limit = hop.idle_timeout?;
    if !matches!(hop.on_expiry, OnExpiry::Silent | OnExpiry::RstOnNextPacket) || !t.is_open() {
        return None;
    }
    let idle = now.since(t.last_activity()?);
    let silent = idle > limit && t.unacked_bytes == 0;
    let certainty = if is_confirmed(VerdictKind::Expired, t, r, now) {
        Certainty::Confirmed
    } else {
        Certainty::Suspected
    };
    (silent || spoke_into_silence(t, r)).then_some(certainty)
}

fn black_holed(t: &Facts, r: &ListenerRules, now: Ktime) -> Option<Certainty> {
    let certainty = if is_confirmed(VerdictKind::BlackHoled, t, r, now) {
        Certainty::Confirmed
    } else {
        Certainty::Suspected
    };
    (!t.rst_rx && is_stuck(t, r, now)).then_some(certainty)
}

/// True if this many tries may all have been lost by chance.
fn may_be_chance(t: &Facts, tries: u32) -> bool {
    let loss = t.loss.ratio();
    loss > 0.05 && loss.powi(tries as i32) > 1e-6
}

fn is_stuck(t: &Facts, r: &ListenerRules, now: Ktime) -> bool {
    let Some(stalled) = t.unacked_since.map(|since| now.since(since)) else {
        return false;
    };
    let fast = spoke_into_silence(t, r) && t.retransmits >= 2 && stalled.as_secs() >= 1;
    fast || t.retransmits >= 5 && stalled.as_secs() >= 7 && tried_late(t, LATE - STALENESS)
}

/// True if the last packet left after the bytes had waited for `late`.
fn tried_late(t: &Facts, late: Duration) -> bool {
    let last = t.unacked_since.zip(t.tx.last_packet);
    last.is_some_and(|(since, last)| last.since(since) >= late)
}

fn unresponsive(t: &Facts, r: &ListenerRules, now: Ktime) -> Option<Certainty> {
    let first = t.first_try?;
    if !is_acked(t, first) || !t.is_open() {
        return None;
    }
    if is_confirmed(VerdictKind::Unresponsive, t, r, now) {
        return Some(Certainty::Confirmed);
    }
    let second = t.second_try.is_some_and(|at| now.since(at) >= grace(t));
    (second || now.since(first) >= r.ping_timeout).then_some(Certainty::Suspected)
}

fn is_acked(t: &Facts, sent: Ktime) -> bool {
    t.unacked_bytes == 0 || t.ack_progress_at.is_some_and(|at| at >= sent)
}

/// How long a pong may take without loss.
fn grace(t: &Facts) -> Duration {
    Duration::from_secs(1).max(t.ping_rtt.unwrap_or_default() * 4)
}

fn is_confirmed(kind: VerdictKind, t: &Facts, r: &ListenerRules, now: Ktime) -> bool {
    let second = Duration::from_secs(1);
    match kind {
        VerdictKind::Expired => {
            let tries = t.unanswered_transmissions;
            tries >= 2
                && !may_be_chance(t, tries)
                && now.since(t.unanswered_since.unwrap()) >= second
        }
        VerdictKind::BlackHoled => !may_be_chance(t, 1 + t.retransmits),
        VerdictKind::HalfClosed
        | VerdictKind::Stalled
        | VerdictKind::Backlogged
        | VerdictKind::Expiring
        | VerdictKind::Quiet => false,
        VerdictKind::Unresponsive => {
            let rtt = t.ping_rtt.unwrap_or_default();
            let (mut waited, mut wait) = (Duration::ZERO, rtt + Duration::from_millis(200));
            for tries in 2..20 {
                if may_be_chance(t, tries - 1) {
                    waited += wait;
                    wait *= 2;
                }
            }
            let grace = grace(t).max(waited);
            t.first_try
                .zip(t.second_try)
                .is_some_and(|(first, second)| {
                    now.since(first) >= r.unresponsive_floor
                        && now.since(second) >= grace
                        && is_acked(t, second)
                })
        }
    }
}

pub(crate) fn recovered(kind: VerdictKind, since: Ktime, t: &Facts) -> bool {
    let after = |at: Option<Ktime>| at.is_some_and(|at| at > since);
    !t.rst_rx
        && match kind {
            VerdictKind::Expired => after(t.rx.last_packet),
            VerdictKind::BlackHoled => t.unacked_bytes == 0 || after(t.ack_progress_at),
            VerdictKind::Unresponsive => t.first_try.is_none() || after(t.first_try),
            // In use again, or past the limit of a hop that does not exist here.
            VerdictKind::Expiring => true,
            VerdictKind::HalfClosed
            | VerdictKind::Stalled
            | VerdictKind::Backlogged
            | VerdictKind::Quiet => false,
        }
}

fn spoke_into_silence(t: &Facts, r: &ListenerRules) -> bool {
    let Some((gap, limit)) = t.last_idle_gap.zip(r.path.idle_timeout()) else {
        return false;
    };
    gap.ended_by == Direction::Tx
        && gap.to.since(gap.from) > limit
        && t.rx.last_packet.is_none_or(|heard| heard < gap.to)
}
