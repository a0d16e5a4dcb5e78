//! The cgroups whose workload the core wants to know.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use tokio::task::{JoinError, JoinHandle};

use super::finished;
use crate::kernel::owner_service::{CgroupOwner, OwnerService};
use monitor_core::{Correlator, WorkloadName, background::Owner};

/// Cgroups in one search, for which the lookup of an alert may have to wait.
const BATCH: usize = 512;
/// How often a search is repeated that may find more later, and after which time. A walk rests at most 19
/// times as long as it takes, so a second is enough.
const TRIES: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Finds the workloads of cgroups.
#[derive(Debug)]
pub(super) struct WorkloadLookup {
    owners: OwnerService,
    running: Option<JoinHandle<Vec<CgroupOwner>>>,
    /// The cgroups of the running search.
    searched: Vec<CgroupLookup>,
    /// Other cgroups, in the order in which they are due.
    waiting: VecDeque<CgroupLookup>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CgroupLookup {
    cgroup: u64,
    due: Instant,
    tries: u32,
}

/// The result of a search, for [`WorkloadLookup::finish`].
pub(super) struct WorkloadSearchResult(Result<Vec<CgroupOwner>, JoinError>);

impl WorkloadLookup {
    pub(super) fn new(owners: OwnerService) -> Self {
        Self {
            owners,
            running: None,
            searched: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Starts a search for the workloads that the core needs, if none is running.
    pub(super) fn start(&mut self, core: &mut Correlator) {
        let now = Instant::now();
        while let Some(cgroup) = core.poll_cgroup() {
            self.push(cgroup, now);
        }
        if self.running.is_some() {
            return;
        }
        let cgroups = self.take_due(now);
        if !cgroups.is_empty() {
            let owners = self.owners.clone();
            self.running = Some(tokio::spawn(
                async move { owners.of_cgroups(cgroups).await },
            ));
        }
    }

    /// When the next search can start.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.waiting.front().filter(|_| self.running.is_none());
        next.map(|lookup| lookup.due)
    }

    /// Waits for the current search; pends forever if there is none.
    pub(super) async fn searched(&mut self) -> WorkloadSearchResult {
        WorkloadSearchResult(finished(&mut self.running).await)
    }

    /// Passes the result of a search to the core.
    pub(super) fn finish(
        &mut self,
        WorkloadSearchResult(result): WorkloadSearchResult,
        core: &mut Correlator,
    ) {
        self.running = None;
        let found = result.unwrap_or_else(|error| {
            log::error!("a search for workloads ended early: {error}");
            Vec::new()
        });
        for (cgroup, name) in self.answers(found, Instant::now()) {
            core.handle_workload(cgroup, name.as_ref());
        }
    }

    fn push(&mut self, cgroup: u64, now: Instant) {
        // Retries are due later than what comes now, and only few wait for one.
        let place = self.waiting.partition_point(|waiting| waiting.due <= now);
        let lookup = CgroupLookup {
            cgroup,
            due: now,
            tries: 0,
        };
        self.waiting.insert(place, lookup);
    }

    /// The cgroups of a search that starts now.
    fn take_due(&mut self, now: Instant) -> Vec<u64> {
        let due = self.waiting.partition_point(|waiting| waiting.due <= now);
        self.searched = self.waiting.drain(..due.min(BATCH)).collect();
        self.searched.iter().map(|lookup| lookup.cgroup).collect()
    }

    /// The workloads of a search's cgroups. `found` is in its order, and empty if it failed. Cgroups that
    /// are searched again have no answer yet.
    fn answers(
        &mut self,
        found: Vec<CgroupOwner>,
        now: Instant,
    ) -> Vec<(u64, Option<WorkloadName>)> {
        let mut answers = Vec::new();
        let mut found = found.into_iter();
        for lookup in mem::take(&mut self.searched) {
            let found = found.next();
            let name = found.as_ref().and_then(|found| workload(&found.owner));
            // The directory of a new pod's logs may not be there yet.
            let is_nameless = |owner: &Owner| owner.pod.is_some() && owner.pod_name.is_none();
            let is_incomplete = name.is_none()
                && found.is_none_or(|found| found.is_incomplete || is_nameless(&found.owner));
            if is_incomplete && lookup.tries + 1 < TRIES {
                self.waiting.push_back(CgroupLookup {
                    due: now + RETRY_AFTER,
                    tries: lookup.tries + 1,
                    ..lookup
                });
            } else {
                answers.push((lookup.cgroup, name));
            }
        }
        answers
    }
}

/// The workload of a pod; outside of Kubernetes the container, by the digits that engines show, or else
/// the systemd unit. A pod whose names are unknown has none: its containers come and go.
fn workload(owner: &Owner) -> Option<WorkloadName> {
    if owner.pod.is_some() {
        let namespace = owner.pod_namespace.as_deref()?;
        return Some(WorkloadName::new(namespace, owner.workload.as_deref()?));
    }
    let container = owner
        .container
        .as_deref()
        .and_then(|id| id.get(..CONTAINER_DIGITS));
    let name = container.or(owner.unit.as_deref())?;
    Some(WorkloadName::new("", name))
}

const CONTAINER_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_workload_is_a_pods_a_container_or_a_unit() {
        let unit = Owner {
            unit: some("chat.service"),
            ..Owner::default()
        };
        let container = Owner {
            unit: some("docker-0123456789abcdef.scope"),
            container: some("0123456789abcdef"),
            ..Owner::default()
        };
        let unnamed = Owner {
            pod: some("2c48913c"),
            ..container.clone()
        };
        let pod = Owner {
            pod_namespace: some("shop"),
            pod_name: some("chat-6d4cf56db6-x7k2p"),
            workload: some("chat"),
            ..unnamed.clone()
        };
        for (owner, expected) in [
            (&Owner::default(), None),
            (&unit, Some(("", "chat.service"))),
            (&container, Some(("", "0123456789ab"))),
            (&unnamed, None),
            (&pod, Some(("shop", "chat"))),
        ] {
            let expected = expected.map(|(namespace, name)| WorkloadName::new(namespace, name));
            assert_eq!(workload(owner), expected, "{owner:?}");
        }
    }

    fn found(owner: Owner, is_incomplete: bool) -> CgroupOwner {
        CgroupOwner {
            owner,
            is_incomplete,
        }
    }

    fn lookup() -> WorkloadLookup {
        let owners = OwnerService::open(Path::new("/nowhere"));
        WorkloadLookup::new(owners.expect("a netlink socket"))
    }

    #[test]
    fn a_lookup_that_was_put_off_is_repeated_and_at_last_answered() {
        let mut lookup = lookup();
        let mut now = Instant::now();
        lookup.push(7, now);
        let chat = Owner {
            unit: some("chat.service"),
            ..Owner::default()
        };
        let name = WorkloadName::new("", "chat.service");
        for attempt in 1..=TRIES {
            assert_eq!(lookup.due(), Some(now), "attempt {attempt}");
            assert_eq!(lookup.take_due(now), [7]);
            let answers = lookup.answers(vec![found(Owner::default(), true)], now);
            match attempt {
                TRIES => assert_eq!(answers, [(7, None)]),
                _ => assert_eq!(answers, []),
            }
            // What comes meanwhile does not wait behind it. Its walk was cut after it was found.
            lookup.push(8, now);
            assert_eq!(lookup.take_due(now), [8]);
            let answers = lookup.answers(vec![found(chat.clone(), true)], now);
            assert_eq!(answers, [(8, Some(name.clone()))]);
            now += RETRY_AFTER;
        }
        assert_eq!(lookup.due(), None);
    }

    #[test]
    fn a_pod_whose_directory_is_not_there_yet_is_looked_up_again() {
        let mut lookup = lookup();
        let now = Instant::now();
        lookup.push(7, now);
        assert_eq!(lookup.take_due(now), [7]);
        let unnamed = Owner {
            pod: some("2c48913c"),
            ..Owner::default()
        };
        assert_eq!(lookup.answers(vec![found(unnamed.clone(), false)], now), []);
        assert_eq!(lookup.take_due(now + RETRY_AFTER), [7]);
        let named = Owner {
            pod_namespace: some("shop"),
            pod_name: some("chat-0"),
            workload: some("chat"),
            ..unnamed
        };
        let name = WorkloadName::new("shop", "chat");
        let answers = lookup.answers(vec![found(named, false)], now);
        assert_eq!(answers, [(7, Some(name))]);
    }

    #[test]
    fn a_search_has_a_bound_and_one_that_failed_is_repeated() {
        const LAST: u64 = BATCH as u64;
        let mut lookup = lookup();
        let now = Instant::now();
        for cgroup in 0..=LAST {
            lookup.push(cgroup, now);
        }
        assert_eq!(lookup.take_due(now).len(), BATCH);
        assert_eq!(lookup.answers(Vec::new(), now), []);
        assert_eq!(lookup.take_due(now), [LAST]);
        let nothing = found(Owner::default(), false);
        assert_eq!(lookup.answers(vec![nothing], now), [(LAST, None)]);
        assert!(lookup.take_due(now).is_empty());
        assert_eq!(lookup.take_due(now + RETRY_AFTER).len(), BATCH);
    }
}
