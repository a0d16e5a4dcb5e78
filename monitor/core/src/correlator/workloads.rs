//! The counts of each listener by workload.

use super::Correlator;
use crate::{
    facts::{Facts, ListenerId, Origin},
    flow::TrackedFlow,
    tally::Turnover,
    time::Ktime,
    workloads::{WorkloadName, Workloads},
};

impl Correlator {
    /// Counts by workload too, of at most `limit` workloads per listener. Must be called before the first
    /// event.
    pub fn with_workloads(mut self, limit: u16) -> Self {
        for listener in &mut self.listeners {
            listener.history.workloads = Some(Workloads::new(limit));
        }
        self
    }

    /// The next cgroup whose workload is needed. The caller must pass it to
    /// [`Correlator::handle_workload`] at some time.
    pub fn poll_cgroup(&mut self) -> Option<u64> {
        let listeners = self.listeners.iter_mut();
        let mut workloads = listeners.filter_map(|it| it.history.workloads.as_mut());
        workloads.find_map(Workloads::poll_cgroup)
    }

    /// Handles the response to [`Correlator::poll_cgroup`]: `None` if the cgroup has no workload, or if it
    /// could not be found.
    pub fn handle_workload(&mut self, cgroup: u64, name: Option<&WorkloadName>) {
        for listener in &mut self.listeners {
            if let Some(workloads) = &mut listener.history.workloads {
                workloads.resolve(cgroup, name, self.now);
            }
        }
    }

    /// Handles the kernel programs' counts of a listener, which are exact. Adds what they had counted at the
    /// last call, at least a second ago, and no record has reported since.
    pub fn handle_turnover(&mut self, at: Ktime, listener: ListenerId, turnover: Turnover) {
        match self.listeners.get_mut(listener.index()) {
            Some(listener) => listener.history.handle_turnover(at, turnover),
            None => self.rejected += 1,
        }
    }

    /// The counts by workload, indexed by [`ListenerId`]; empty without
    /// [`with_workloads`](Self::with_workloads).
    pub fn workloads(&self) -> Vec<&Workloads> {
        let listeners = self.listeners.iter();
        listeners
            .filter_map(|listener| listener.history.workloads.as_ref())
            .collect()
    }

    /// Counts an opening, as the kernel programs count it: not of a connection older than them.
    pub(super) fn count_opened(&mut self, facts: &Facts) {
        if facts.origin == Origin::Establishment
            && let Some(flow) = self.flows.get(facts.conn)
        {
            let history = &mut self.listeners[flow.listener.index()].history;
            history.count(flow.cgroup, |counts| counts.turnover.opened += 1);
        }
    }

    /// Whether these facts show the cgroup of a flow that waits for it. Only a flow that sock_diag found
    /// ever waits.
    pub(super) fn shows_cgroup(&self, facts: &Facts) -> bool {
        let listener = self.listeners.get(facts.listener.index());
        let workloads = listener.and_then(|it| it.history.workloads.as_ref());
        workloads.is_some_and(Workloads::lacks_cgroups)
            && facts.cgroup_id.is_some()
            && facts.established_at.is_none()
            && self
                .flows
                .get(facts.conn)
                .is_some_and(TrackedFlow::lacks_cgroup)
    }
}
