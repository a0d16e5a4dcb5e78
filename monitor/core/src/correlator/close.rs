//! How connections leave the correlator's table.

use std::time::Duration;

use super::{Action, Correlator};
use crate::{
    action::Ended,
    event::CloseHow,
    facts::{ConnId, Facts},
    flow::TrackedFlow,
    listener::Listener,
    observation::{FactsSource, Observation},
    pending::UpgradeAttempt,
    time::Ktime,
    transition::{Reason, State, Transition},
    verdict::Ending,
};

impl Correlator {
    pub(super) fn close(&mut self, facts: &Facts, how: CloseHow) {
        if !self.admit(facts) {
            return;
        }
        if let Some(attempt) = self.take_attempt(facts.conn) {
            self.give_up(&attempt, facts.at);
        }
        let client = self.client_of(facts);
        let Some(mut flow) = self.remove(facts.conn) else {
            return;
        };
        let id = flow.listener;
        let Listener {
            rules,
            history,
            loss,
            storm,
        } = &mut self.listeners[id.index()];
        let (source, loss) = (FactsSource::Event, loss.loss());
        let observation = Observation {
            first_seen: flow.first_seen,
            ..Observation::new(facts, source, facts.at, rules, loss, self.staleness)
        };
        if storm.disconnect(&mut flow) {
            storm.depart(&observation, Some(how), client, &history.tally);
        }
        flow.advance(facts, history, &mut self.actions);
        let (from, protocol) = (flow.state(), flow.protocol());
        history.tally.count_close(facts);
        history.count(flow.cgroup, |counts| counts.count_close(facts, how));
        let (ending, last) = (Ending::Closed(how), Some(&observation));
        flow.end(ending, last, self.now, history, &mut self.actions);
        let verdicts = history.past_verdicts.take(facts.conn);
        self.actions.push_back(Action::Transition(Transition {
            conn: facts.conn,
            listener: id,
            endpoints: Some([facts.local, facts.peer]),
            at: facts.at,
            from: Some(from),
            to: State::Closed,
            reason: Reason::Ended { how },
        }));
        self.actions.push_back(Action::Ended(Box::new(Ended {
            conn: facts.conn,
            listener: id,
            protocol,
            at: facts.at,
            how,
            verdicts,
        })));
        self.report_storm(id);
    }

    /// Ends a connection whose last facts are unknown.
    pub(super) fn forget(&mut self, conn: ConnId, ending: Ending, at: Ktime) {
        let attempt = self.take_ended(conn, ending, at);
        if let Some(attempt) = &attempt {
            self.give_up(attempt, at);
        }
        let attempt_state = attempt.as_ref().and_then(UpgradeAttempt::state);
        let flow = self.remove(conn);
        let (listener, from, reason) = match (&flow, attempt) {
            (Some(flow), _) => {
                let from = attempt_state.unwrap_or(flow.state());
                (flow.listener, Some(from), ending.reason())
            }
            (None, Some(attempt)) if ending == Ending::Dismissed && attempt.is_unanswered() => {
                (attempt.listener, attempt_state, Reason::NoAnswer)
            }
            (None, Some(attempt)) => (attempt.listener, attempt_state, ending.reason()),
            (None, None) => return,
        };
        let ended = flow.map(|mut flow| {
            let Listener { history, storm, .. } = &mut self.listeners[listener.index()];
            storm.disconnect(&mut flow);
            let protocol = flow.protocol();
            flow.end(ending, None, self.now.max(at), history, &mut self.actions);
            Ended {
                conn,
                listener,
                protocol,
                at,
                how: CloseHow::Unknown,
                verdicts: history.past_verdicts.take(conn),
            }
        });
        // If an upgrade is pending again, only an earlier use of the connection is over.
        if self.pending.get(conn).is_none() {
            self.actions.push_back(Action::Transition(Transition {
                conn,
                listener,
                endpoints: None,
                at,
                from,
                to: State::Closed,
                reason,
            }));
        }
        if ending == Ending::Gone
            && let Some(ended) = ended
        {
            self.actions.push_back(Action::Ended(Box::new(ended)));
        }
    }

    /// Removes a flow from the table and releases its handshake.
    fn remove(&mut self, conn: ConnId) -> Option<TrackedFlow> {
        let mut flow = self.flows.remove(conn)?;
        self.recv_queues.forget(conn);
        if let Some(interned) = flow.handshake.take() {
            interned.release(&mut self.interner);
        }
        Some(flow)
    }

    /// Handles a missing socket. It vanished between the deadline and the check, so its `Closed` is
    /// normally on the way.
    pub(super) fn miss(&mut self, conn: ConnId) {
        let Some(flow) = self.flows.get_mut(conn) else {
            return;
        };
        if flow.missing {
            self.forget(conn, Ending::Gone, self.now);
        } else {
            flow.missing = true;
            self.arm(conn, self.now + GRACE_FOR_CLOSED);
        }
    }

    /// Takes the attempt that ends with this connection from the table. A dismissal may refer to an
    /// earlier attempt, or to the use of the connection before a pending upgrade.
    fn take_ended(&mut self, conn: ConnId, ending: Ending, at: Ktime) -> Option<UpgradeAttempt> {
        let attempt = self.pending.get(conn)?;
        let goes_on = match ending {
            Ending::Dismissed if self.flows.contains(conn) => attempt.at >= at,
            Ending::Dismissed => attempt.at > at,
            Ending::Recovered
            | Ending::Superseded
            | Ending::Reaped
            | Ending::Closed(_)
            | Ending::Gone => false,
        };
        if goes_on {
            return None;
        }
        self.take_attempt(conn)
    }
}

/// How long a socket may be missing before it counts as gone.
const GRACE_FOR_CLOSED: Duration = Duration::from_secs(5);
