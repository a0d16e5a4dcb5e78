//! One flow: its state in the table, and how a verdict on it becomes counts and alerts.

use std::{collections::VecDeque, time::Duration};

use super::{
    action::Action,
    alert::ConnectionAlert,
    connection_ages::EstablishedSecond,
    event::CloseHow,
    facts::{ClosingBy, Direction, Facts, InferredHeartbeat, ListenerId, Protocol},
    handshake::ClientAddress,
    history::History,
    interned_handshake::InternedHandshake,
    lifetimes::Lifetimes,
    observation::Observation,
    rules,
    storm::ClientSlot,
    tally::{ConnectionCounts, Tally},
    time::Ktime,
    transition::{State, Transition},
    verdict::{Certainty, Ending, Finding, Review, Reviewed, Verdict, VerdictKind},
    workloads::CgroupSlot,
};

/// The table's entry for a connection. Facts stay in the kernel; only a verdict keeps a copy.
#[derive(Debug)]
pub(super) struct TrackedFlow {
    standing: Option<Box<StandingVerdict>>,
    /// Its strings are released when the flow leaves the table.
    pub(super) handshake: Option<Box<InternedHandshake>>,
    /// Its slot in the storm engine; `None` after the engine has counted its end.
    pub(super) client: Option<ClientSlot>,
    pub(super) first_seen: Ktime,
    /// The deadline of the valid wheel entry; [`Ktime::NEVER`] without one.
    pub(super) armed: Ktime,
    pub(super) generation: u32,
    pub(super) listener: ListenerId,
    pub(super) cgroup: CgroupSlot,
    /// `None` if the establishment was not seen.
    established: Option<EstablishedSecond>,
    protocol: Protocol,
    heartbeat: Option<InferredHeartbeat>,
    phase: Phase,
    at_risk: bool,
    death_recorded: bool,
    /// Whether it is in the inspect queue.
    pub(super) queued: bool,
    /// Whether its socket was missing at the last check.
    pub(super) missing: bool,
    /// Whether wsmon aborted it.
    pub(super) reaped: bool,
}

/// How far a flow is on its way from open to closed. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// It no longer counts as open, but no FIN or close frame was seen, as after a RST.
    Closing,
    /// A FIN or a close frame was seen and reported.
    CloseReported,
}

impl Phase {
    fn of(facts: &Facts) -> Self {
        if facts.closing.is_some() {
            Self::CloseReported
        } else if !facts.is_open() || facts.close.is_some() {
            Self::Closing
        } else {
            Self::Open
        }
    }
}

/// The standing verdict on a connection.
#[derive(Debug)]
struct StandingVerdict {
    verdict: Verdict,
    /// As it was last reported, with the evidence of the last check.
    alert: ConnectionAlert,
}

impl TrackedFlow {
    /// Creates a flow and counts it. What started its close is not reported yet.
    pub(super) fn new(facts: &Facts, history: &mut History) -> Self {
        let mut flow = Self {
            standing: None,
            handshake: None,
            client: None,
            first_seen: facts.at,
            armed: Ktime::NEVER,
            generation: 0,
            listener: facts.listener,
            cgroup: history.enter(facts.cgroup_id),
            established: None,
            protocol: facts.protocol,
            heartbeat: facts.heartbeat,
            phase: Phase::of(facts).min(Phase::Closing),
            at_risk: false,
            death_recorded: false,
            queued: false,
            missing: false,
            reaped: false,
        };
        flow.enter_gauges(history);
        flow.count_age(facts, &mut history.tally);
        flow
    }

    /// Counts the flow by its age as soon as its establishment is known. A flow that sock_diag found
    /// before its record came learns it later.
    fn count_age(&mut self, facts: &Facts, tally: &mut Tally) {
        if self.established.is_none()
            && let Some(established_at) = facts.established_at
        {
            let established = EstablishedSecond::of(established_at);
            tally.ages.add(established);
            self.established = Some(established);
        }
    }

    fn enter_gauges(&self, history: &mut History) {
        history.count(self.cgroup, |counts| *self.gauge(counts) += 1);
        if let Some(gauge) = self.heartbeat_gauge(&mut history.tally) {
            *gauge += 1;
        }
    }

    fn leave_gauges(&self, history: &mut History) {
        history.count(self.cgroup, |counts| *self.gauge(counts) -= 1);
        if let Some(gauge) = self.heartbeat_gauge(&mut history.tally) {
            *gauge -= 1;
        }
    }

    /// The gauge of connections that includes this one.
    fn gauge<'a>(&self, counts: &'a mut ConnectionCounts) -> &'a mut u64 {
        let phases = &mut counts.connections[self.protocol as usize];
        match self.phase {
            Phase::Open => &mut phases.open,
            Phase::Closing | Phase::CloseReported => &mut phases.closing,
        }
    }

    /// The gauge of inferred heartbeats that includes this one.
    fn heartbeat_gauge<'a>(&self, tally: &'a mut Tally) -> Option<&'a mut u64> {
        let heartbeat = self.heartbeat.filter(|_| self.phase == Phase::Open)?;
        Some(&mut tally.heartbeats[heartbeat as usize])
    }

    /// Takes the protocol, the heartbeat and the phase from new facts. Reports, once, what started the close.
    pub(super) fn advance(
        &mut self,
        facts: &Facts,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) {
        self.leave_gauges(history);
        self.join_cgroup(facts, history);
        let before = self.phase;
        self.protocol = facts.protocol;
        self.heartbeat = facts.heartbeat;
        self.phase = before.max(Phase::of(facts));
        self.enter_gauges(history);
        self.count_age(facts, &mut history.tally);
        if let Some(closing) = facts.closing
            && before < self.phase
        {
            let closing = Transition::closing(facts, closing);
            actions.push_back(Action::Transition(closing));
        }
    }

    /// Moves the flow from the unknown ones to its cgroup, as soon as that is known.
    fn join_cgroup(&mut self, facts: &Facts, history: &mut History) {
        if !self.lacks_cgroup() || facts.cgroup_id.is_none() {
            return;
        }
        let unknown = std::mem::replace(&mut self.cgroup, history.enter(facts.cgroup_id));
        if let Some(standing) = &self.standing {
            let kind = standing.verdict.kind as usize;
            history.count(unknown, |counts| counts.zombies[kind] -= 1);
            history.count(self.cgroup, |counts| counts.zombies[kind] += 1);
        }
        history.leave(unknown, facts.at);
    }

    pub(super) fn lacks_cgroup(&self) -> bool {
        self.cgroup == CgroupSlot::default()
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Open | Phase::Closing => State::Open,
            Phase::CloseReported => State::Closing,
        }
    }

    /// The client's address as forwarded by a proxy.
    pub(super) fn forwarded(&self) -> Option<ClientAddress> {
        self.handshake.as_deref()?.client()
    }

    pub(super) fn heartbeat(&self) -> Option<InferredHeartbeat> {
        self.heartbeat
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the protocol is known, not assumed.
    pub(super) fn is_proven(&self) -> bool {
        self.protocol != Protocol::Assumed
    }

    /// Judges new facts. Returns when to check again.
    ///
    /// `now` is the latest time passed to the core: no alert has an earlier timestamp.
    pub(super) fn judge(
        &mut self,
        observation: &Observation<'_>,
        now: Ktime,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) -> Ktime {
        self.advance(observation.facts, history, actions);
        let mut next_check = self.review(observation, now, history, actions);
        let finding = match &self.standing {
            Some(standing) => rules::judge_graver(observation, &standing.verdict),
            None => rules::judge(observation),
        };
        match finding {
            Finding::NotBefore(at) => next_check = next_check.min(at),
            Finding::Holds(verdict) => {
                self.resolve(
                    Ending::Superseded,
                    Some((observation.facts, observation.now)),
                    now,
                    history,
                    actions,
                );
                self.fire(verdict, observation, now, history, actions);
                next_check = self.review(observation, now, history, actions);
            }
        }
        let (at_risk, risk_check) = match self.is_zombie() {
            true => (false, Ktime::NEVER),
            false => rules::at_risk(observation),
        };
        self.set_at_risk(at_risk, &mut history.tally);
        next_check.min(risk_check)
    }

    pub(super) fn is_zombie(&self) -> bool {
        let standing = self.standing.as_ref();
        standing.is_some_and(|standing| standing.verdict.kind.is_zombie())
    }

    /// Whether its state follows from its facts alone.
    pub(super) fn is_healthy(&self) -> bool {
        self.standing.is_none() && !self.at_risk
    }

    /// Whether any verdict stands, zombie or warning.
    pub(super) fn is_judged(&self) -> bool {
        self.standing.is_some()
    }

    /// The standing verdict as last reported, with the evidence of the last check.
    pub(super) fn standing(&self) -> Option<&ConnectionAlert> {
        self.standing.as_ref().map(|standing| &standing.alert)
    }

    /// Removes the flow from all counts. `last` holds its last facts, if the kernel reported them; pass
    /// them to [`TrackedFlow::advance`] first.
    pub(super) fn end(
        mut self,
        ending: Ending,
        last: Option<&Observation<'_>>,
        now: Ktime,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) {
        if let (Ending::Closed(how), Some(observation)) = (ending, last) {
            // The end of a subflow is not the end of its connection.
            if observation.facts.close.is_none() && !observation.facts.is_subflow {
                let silence = rules::silence_before_close(observation);
                if closed_by_path(how, observation.facts) && !self.death_recorded {
                    history.idle_gaps.kill(silence);
                    let ended_at = observation
                        .facts
                        .closing
                        .map_or(observation.now, |closing| closing.at);
                    note_age(ended_at, silence, observation, &mut history.lifetimes);
                }
                self.record_death(silence, observation, &mut history.tally);
            }
        }
        self.set_at_risk(false, &mut history.tally);
        let ending = match ending {
            Ending::Closed(_) | Ending::Gone if self.reaped => Ending::Reaped,
            _ => ending,
        };
        self.resolve(
            ending,
            last.map(|observation| (observation.facts, observation.now)),
            now,
            history,
            actions,
        );
        self.leave_gauges(history);
        history.leave(self.cgroup, now);
        if let Some(established) = self.established {
            history.tally.ages.remove(established);
        }
    }

    /// Reviews the standing verdict, if any.
    fn review(
        &mut self,
        observation: &Observation<'_>,
        now: Ktime,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) -> Ktime {
        let Some(standing) = &mut self.standing else {
            return Ktime::NEVER;
        };
        match rules::review(
            observation,
            &standing.verdict,
            standing.alert.subject.facts.rx.last_packet,
        ) {
            Review::Recovered => {
                self.resolve(
                    Ending::Recovered,
                    Some((observation.facts, observation.now)),
                    now,
                    history,
                    actions,
                );
                Ktime::NEVER
            }
            Review::Stands(Reviewed {
                certainty,
                limit,
                next_check,
            }) => {
                if certainty > standing.verdict.certainty {
                    let verdict = Verdict {
                        certainty,
                        limit,
                        ..standing.verdict
                    };
                    let at = standing.alert.at.max(observation.now).max(now);
                    self.report(verdict, at, observation, history, actions);
                } else {
                    let subject = &mut standing.alert.subject;
                    subject.facts = observation.evidence();
                    subject.send_queue = observation.unsent.map(|unsent| unsent.bytes);
                }
                next_check
            }
        }
    }

    fn fire(
        &mut self,
        verdict: Verdict,
        observation: &Observation<'_>,
        now: Ktime,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) {
        let kind = verdict.kind as usize;
        history.tally.detected[kind][verdict.certainty as usize] += 1;
        history.count(self.cgroup, |counts| counts.zombies[kind] += 1);
        let at = observation.now.max(now);
        self.report(verdict, at, observation, history, actions);
    }

    /// Reports a verdict that begins or becomes more certain.
    fn report(
        &mut self,
        verdict: Verdict,
        at: Ktime,
        observation: &Observation<'_>,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) {
        let silence = rules::silence_before(observation, &verdict);
        // A verdict is confirmed at most once.
        if verdict.is_confirmed_zombie() {
            history.tally.confirmed_zombies += 1;
        }
        if verdict.certainty == Certainty::Confirmed && verdict.kind.is_death() {
            // A proxy may answer for an unresponsive client, so the silence proves nothing.
            if verdict.kind != VerdictKind::Unresponsive && !self.death_recorded {
                history.idle_gaps.kill(silence);
                if verdict.kind == VerdictKind::BlackHoled {
                    note_age(verdict.since, silence, observation, &mut history.lifetimes);
                }
            }
            self.record_death(silence, observation, &mut history.tally);
        }
        let alert = ConnectionAlert::firing(self.listener, at, &verdict, observation, silence);
        actions.push_back(Action::Alert(alert.clone().into()));
        self.standing = Some(Box::new(StandingVerdict { verdict, alert }));
    }

    fn resolve(
        &mut self,
        ending: Ending,
        last: Option<(&Facts, Ktime)>,
        now: Ktime,
        history: &mut History,
        actions: &mut VecDeque<Action>,
    ) {
        let Some(standing) = self.standing.take() else {
            return;
        };
        let StandingVerdict { verdict, alert } = *standing;
        let kind = verdict.kind as usize;
        history.count(self.cgroup, |counts| counts.zombies[kind] -= 1);
        if verdict.is_confirmed_zombie() {
            history.tally.confirmed_zombies -= 1;
        }
        if matches!(
            ending,
            Ending::Recovered | Ending::Dismissed | Ending::Superseded
        ) {
            history.tally.recovered[kind] += 1;
        }
        let (facts, seen_at) = last.unzip();
        let at = alert.at.max(seen_at.unwrap_or_default()).max(now);
        history.past_verdicts.add(
            alert.subject.facts.conn,
            verdict.kind,
            verdict.certainty,
            ending.into(),
        );
        let resolved = alert.resolved(at, &verdict, ending, facts);
        actions.push_back(Action::Alert(resolved.into()));
    }

    fn record_death(
        &mut self,
        silence: Duration,
        observation: &Observation<'_>,
        tally: &mut Tally,
    ) {
        if self.death_recorded {
            return;
        }
        self.death_recorded = true;
        tally.idle_at_death.observe(silence);
        if let Some(established_at) = observation.facts.established_at {
            tally
                .age_at_death
                .observe(observation.now.since(established_at));
        }
    }

    fn set_at_risk(&mut self, at_risk: bool, tally: &mut Tally) {
        match (self.at_risk, at_risk) {
            (false, true) => tally.at_risk += 1,
            (true, false) => tally.at_risk -= 1,
            _ => {}
        }
        self.at_risk = at_risk;
    }
}

fn note_age(
    ended_at: Ktime,
    silence: Duration,
    observation: &Observation<'_>,
    lifetimes: &mut Lifetimes,
) {
    if let Some(established_at) = observation.facts.established_at {
        lifetimes.kill(ended_at, ended_at.since(established_at), silence);
    }
}

/// Whether the path or the peer ended the connection without a close frame.
fn closed_by_path(how: CloseHow, facts: &Facts) -> bool {
    match how {
        CloseHow::RstReceived | CloseHow::Timeout => true,
        CloseHow::Fin => facts
            .closing
            .is_some_and(|closing| closing.by == ClosingBy::Fin(Direction::Rx)),
        CloseHow::CloseFrame | CloseHow::RstSent | CloseHow::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnId;

    #[test]
    fn a_healthy_flow_costs_64_bytes_with_its_key() {
        assert_eq!(size_of::<(ConnId, TrackedFlow)>(), 64);
    }
}
