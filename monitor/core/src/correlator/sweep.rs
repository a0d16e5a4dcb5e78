//! Sweeps: if every snapshot is passed in at regular intervals, a healthy flow needs no deadline.
//!
//! Reading a single snapshot costs a system call, and a cache miss for its flow in the table. Of a
//! million connections with a heartbeat, hardly one per sweep has a deadline before the next sweep, and
//! its facts alone show that.

use std::time::Duration;

use super::Correlator;
use crate::{
    facts::Facts,
    listener::Listener,
    observation::{FactsSource, Observation},
    rules,
    time::Ktime,
    verdict::Finding,
};

impl Correlator {
    /// Announces that every snapshot will be passed to [`Correlator::handle_swept`] at least this often.
    /// If that is less often than before, the caller must call [`Correlator::handle_rules`] next; after
    /// `None`, it must pass in one last sweep.
    pub fn expect_sweeps(&mut self, at_least_every: Option<Duration>) {
        self.sweeps = at_least_every;
    }

    /// Handles a snapshot that the core did not request. It is judged like a requested one, unless
    /// judging it cannot change anything before the next sweep.
    pub fn handle_swept(&mut self, facts: &Facts) {
        let Some(Listener { rules, loss, .. }) = self.listeners.get(facts.listener.index()) else {
            self.rejected += 1;
            return;
        };
        // Only the table has `first_seen` and what is unread. `can_wait` excludes rules that need the
        // first; a change of the other is an event.
        let (source, loss) = (FactsSource::Snapshot, loss.loss());
        let observation = Observation::new(facts, source, self.now, rules, loss, self.staleness);
        if !self.can_wait(&observation) || self.shows_cgroup(facts) || self.shows_heartbeat(facts) {
            self.judge(facts.conn, facts, FactsSource::Snapshot);
        }
    }

    /// Whether judging now could only set a deadline after the next sweep. Flows with a standing
    /// verdict, or at risk, may get a wrong answer, but they have a deadline in the wheel.
    fn can_wait(&self, observation: &Observation<'_>) -> bool {
        let facts = observation.facts;
        let ends = !facts.is_open() || facts.close.is_some() || facts.closing.is_some();
        if ends || observation.is_in_doubt() || observation.needs_first_seen() {
            return false;
        }
        let Finding::NotBefore(deadline) = rules::judge(observation) else {
            return false;
        };
        // The at-risk check affects only a gauge, so it may be late.
        let tolerance = observation.path.idle_timeout().unwrap_or_default() / 10;
        let (at_risk, risk) = rules::at_risk(observation);
        let deadline = deadline.min(risk + tolerance);
        !at_risk && self.is_swept_before(deadline, observation.now)
    }

    /// Whether the facts have news of a heartbeat that is counted. Only TLS connections are looked up.
    fn shows_heartbeat(&self, facts: &Facts) -> bool {
        facts.heartbeat.is_some()
            && self
                .flows
                .get(facts.conn)
                .is_some_and(|flow| flow.heartbeat() != facts.heartbeat)
    }

    /// Whether a sweep after `now` is sure to come before `deadline`.
    pub(super) fn is_swept_before(&self, deadline: Ktime, now: Ktime) -> bool {
        self.sweeps.is_some_and(|every| deadline > now + every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Action, Alert, Certainty, ConnId, Event, Hop, ListenerRules, OnExpiry, Status, VerdictKind,
        facts::{InferredHeartbeat, Protocol},
    };

    const STALENESS: Duration = Duration::from_millis(260);
    const SWEEP: Duration = Duration::from_secs(22);

    fn s(at: u64) -> Ktime {
        Ktime(at * 1_000_000_000)
    }

    fn core() -> Correlator {
        let hop = Hop::new("lb", Duration::from_secs(60), OnExpiry::Silent);
        let mut core = Correlator::new(vec![ListenerRules::new("web", Some(hop))], STALENESS);
        core.expect_sweeps(Some(SWEEP));
        core
    }

    fn opened(core: &mut Correlator) -> Facts {
        let facts = Facts::just_opened(1, s(1));
        core.handle_timeout(s(1));
        core.handle_event(Event::Opened(Box::new(facts.clone())));
        facts
    }

    fn alerts(core: &mut Correlator) -> Vec<Alert> {
        let actions = std::iter::from_fn(|| core.poll_action());
        actions
            .filter_map(|action| match action {
                Action::Alert(alert) => Some(alert),
                _ => None,
            })
            .collect()
    }

    /// A ping with an immediate pong.
    fn beat(facts: &mut Facts, at: Ktime) {
        for activity in [&mut facts.rx, &mut facts.tx] {
            activity.last_packet = Some(at);
            activity.last_frame = Some(at);
        }
        facts.ping_rtt = Some(Duration::from_millis(1));
        facts.at = at;
    }

    #[test]
    fn a_flow_with_a_heartbeat_has_no_deadline_and_is_never_inspected() {
        let mut core = core();
        let mut facts = opened(&mut core);
        for at in 1..=600 {
            if at % 30 == 0 {
                beat(&mut facts, s(at));
            }
            core.handle_timeout(s(at));
            if at % 20 == 0 {
                core.handle_swept(&facts);
            }
            assert_eq!(core.poll_timeout(), None, "at {at} s");
            assert_eq!(core.poll_inspect(), None);
        }
        assert_eq!(alerts(&mut core), []);
        assert_eq!(core.tallies()[0].at_risk, 0);
    }

    #[test]
    fn a_sweep_counts_what_was_learned_of_a_heartbeat() {
        let mut core = core();
        let mut facts = opened(&mut core);
        facts.protocol = Protocol::Opaque;
        for (at, heartbeat, counts) in [
            (20, InferredHeartbeat::Unlearned, [0, 1, 0]),
            (40, InferredHeartbeat::Learned, [1, 0, 0]),
        ] {
            beat(&mut facts, s(at));
            facts.heartbeat = Some(heartbeat);
            core.handle_timeout(s(at));
            core.handle_swept(&facts);
            assert_eq!(core.tallies()[0].heartbeats, counts);
            assert_eq!(core.poll_timeout(), None);
        }
    }

    #[test]
    fn a_flow_has_its_own_deadline_after_the_last_sweep() {
        let mut core = core();
        let mut facts = opened(&mut core);
        beat(&mut facts, s(30));
        core.handle_timeout(s(31));
        core.expect_sweeps(None);
        core.handle_swept(&facts);
        let deadline = core.poll_timeout().expect("a deadline");
        assert!(deadline <= s(91), "{deadline}");
    }

    #[test]
    fn sweeps_find_a_silent_flow_as_soon_as_inspections_would() {
        for phase in 0..20 {
            let mut core = core();
            let mut facts = opened(&mut core);
            beat(&mut facts, s(2));
            for at in (3 + phase..90).step_by(20) {
                while let Some(due) = core.poll_timeout().filter(|due| *due < s(at)) {
                    core.handle_timeout(due);
                    while let Some(conn) = core.poll_inspect() {
                        core.handle_snapshot(conn, Some(Box::new(facts.clone())));
                    }
                }
                core.handle_timeout(s(at));
                core.handle_swept(&facts);
            }
            let alerts = alerts(&mut core);
            assert_eq!(alerts.len(), 1, "{alerts:?}");
            let expired = (VerdictKind::Expired, Certainty::Suspected);
            assert_eq!(alerts[0].subject.verdict(), Some(expired));
            assert_eq!(alerts[0].status, Status::Firing);
            let late = alerts[0].at.since(s(62));
            assert!(
                late > STALENESS && late < Duration::from_millis(261),
                "{late:?}"
            );
        }
    }

    #[test]
    fn a_sweep_finds_a_lone_ping_in_time() {
        let mut core = core();
        let mut facts = opened(&mut core);
        beat(&mut facts, s(30));
        core.handle_timeout(s(31));
        core.handle_swept(&facts);
        facts.pings_unanswered = 1;
        facts.first_try = Some(s(32));
        facts.tx.last_packet = Some(s(32));
        facts.rx.last_packet = Some(s(32));
        core.handle_timeout(s(51));
        core.handle_swept(&facts);
        assert_eq!(core.poll_timeout(), Some(s(62)));
    }

    #[test]
    fn a_snapshot_of_an_unknown_flow_or_listener_changes_nothing() {
        let mut core = core();
        core.handle_timeout(s(100));
        let mut facts = Facts::just_opened(1, s(1));
        core.handle_swept(&facts);
        assert!(!core.knows(ConnId(1)));
        assert_eq!((core.poll_timeout(), core.rejected()), (None, 0));
        facts.listener.0 = 7;
        core.handle_swept(&facts);
        assert_eq!(core.rejected(), 1);
    }
}
