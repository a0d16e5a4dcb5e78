//! The history of a listener's connections.

use std::time::Duration;

use super::{
    idle_gaps::IdleGaps,
    lifetimes::Lifetimes,
    past_verdicts::PastVerdicts,
    tally::{ConnectionCounts, Tally, Turnover},
    time::Ktime,
    workloads::{CgroupSlot, Workloads},
};

/// Totals of the verdicts on a listener's connections and of their ends.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) tally: Tally,
    /// `None` unless the counts are wanted by workload.
    pub(super) workloads: Option<Workloads>,
    /// What the kernel programs had counted at an earlier moment.
    counted: Option<(Ktime, Turnover)>,
    pub(super) idle_gaps: IdleGaps,
    pub(super) lifetimes: Lifetimes,
    /// Of the connections in the table.
    pub(super) past_verdicts: PastVerdicts,
}

impl History {
    /// Changes the counts of the listener and, in the same way, those of the workload of a connection.
    pub(super) fn count(&mut self, cgroup: CgroupSlot, change: impl Fn(&mut ConnectionCounts)) {
        change(&mut self.tally.counts);
        if let Some(workloads) = &mut self.workloads {
            change(workloads.counts_mut(cgroup));
        }
    }

    /// Counts what the kernel programs had counted by the last call and what did not become known since,
    /// because a record was lost. Its workload is unknown.
    pub(super) fn handle_turnover(&mut self, at: Ktime, turnover: Turnover) {
        let (counted_at, counted) = *self.counted.get_or_insert((at, turnover));
        if at.since(counted_at) < LATEST_RECORD {
            return;
        }
        self.counted = Some((at, turnover));
        let lost = counted.beyond(&self.tally.counts.turnover);
        self.tally.counts.turnover.add(&lost);
        if let Some(workloads) = &mut self.workloads {
            workloads.unknown_mut().turnover.add(&lost);
        }
    }

    pub(super) fn enter(&mut self, cgroup: Option<u64>) -> CgroupSlot {
        let workloads = self.workloads.as_mut();
        workloads.map_or(CgroupSlot::default(), |workloads| workloads.enter(cgroup))
    }

    pub(super) fn leave(&mut self, cgroup: CgroupSlot, now: Ktime) {
        if let Some(workloads) = &mut self.workloads {
            workloads.leave(cgroup, now);
        }
    }
}

/// A program may be interrupted between counting and reporting.
const LATEST_RECORD: Duration = Duration::from_secs(1);
