//! The counts of a listener by workload, for the labels of some metrics.
//!
//! A connection belongs to the cgroup of its socket, and the shell finds the workload of a cgroup: a
//! name, nothing more is known of it here. Several cgroups may have the same workload. What happens in a
//! cgroup before the answer is held back, because a counter must not move from one series to another.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{tally::ConnectionCounts, time::Ktime};

/// The workload of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadName {
    /// Empty outside of Kubernetes.
    namespace: Box<str>,
    name: Box<str>,
}

impl WorkloadName {
    /// The names are hostile input: cut to the length of a file name, and without control characters.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: label(namespace),
            name: label(name),
        }
    }
}

fn label(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(LONGEST_NAME);
    let printable = |letter: char| match letter.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => letter,
    };
    text[..end].chars().map(printable).collect()
}

/// One series: a workload, or the connections that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSeries<'a> {
    pub namespace: &'a str,
    pub workload: &'a str,
    /// Since when it counts; `None` for the whole time.
    pub since: Option<Ktime>,
    pub counts: Cow<'a, ConnectionCounts>,
}

/// The cgroup in a slot that a flow or an open look-up refers to: `release` frees it only after both ended.
fn in_use(cgroups: &mut [Option<Cgroup>], index: usize) -> &mut Cgroup {
    cgroups[index].as_mut().expect("a slot in use")
}

/// The counts of a listener by workload.
#[derive(Debug)]
pub struct Workloads {
    /// Maximum number of named workloads.
    limit: usize,
    /// The cgroups with a connection in the table, or without an answer; `None` where a slot is free.
    cgroups: Vec<Option<Cgroup>>,
    free: Vec<CgroupSlot>,
    slots: BTreeMap<u64, CgroupSlot>,
    /// Cgroups to look up.
    unresolved: VecDeque<u64>,
    named: BTreeMap<WorkloadName, SeriesIndex>,
    /// By [`SeriesIndex`].
    series: Vec<Series>,
    /// Connections in the table that wait for their cgroup to become known.
    without_cgroup: u64,
    over_limit: u64,
}

/// The place of a flow's cgroup in the table, in two bytes of the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupSlot(u16);

impl CgroupSlot {
    /// The cgroup is unknown.
    const UNKNOWN: Self = Self(0);
    /// The table has no room for the cgroup.
    const OTHER: Self = Self(1);
    const FIRST: usize = 2;

    fn at(index: usize) -> Self {
        // Lossless: there are at most `MAX_CGROUPS`.
        Self((index + Self::FIRST) as u16)
    }

    fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(Self::FIRST)
    }
}

#[derive(Debug)]
struct Cgroup {
    id: u64,
    /// Connections in the table.
    flows: u32,
    workload: Workload,
}

#[derive(Debug)]
enum Workload {
    Unresolved(Box<HeldBack>),
    Series(SeriesIndex),
}

/// What happened in a cgroup before its workload is known.
#[derive(Debug, Default)]
struct HeldBack {
    counts: ConnectionCounts,
    entered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeriesIndex(u16);

impl SeriesIndex {
    const UNKNOWN: Self = Self(0);
    const OTHER: Self = Self(1);
    const UNNAMED: usize = 2;

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug, Default)]
struct Series {
    counts: ConnectionCounts,
    /// Its cgroups with a connection in the table.
    cgroups: u32,
    /// When the last of them left.
    idle_since: Ktime,
    /// When its workload got this place; `None` for the series without a workload.
    since: Option<Ktime>,
}

impl Series {
    fn begun(now: Ktime) -> Self {
        Self {
            since: Some(now),
            ..Self::default()
        }
    }
}

impl Workloads {
    /// `limit`: the maximum number of named workloads.
    pub(super) fn new(limit: u16) -> Self {
        let unnamed = (0..SeriesIndex::UNNAMED).map(|_| Series::default());
        Self {
            limit: usize::from(limit.min(u16::MAX - SeriesIndex::UNNAMED as u16)),
            cgroups: Vec::new(),
            free: Vec::new(),
            slots: BTreeMap::new(),
            unresolved: VecDeque::new(),
            named: BTreeMap::new(),
            series: unnamed.collect(),
            without_cgroup: 0,
            over_limit: 0,
        }
    }

    /// All series: of the workloads in the order of their names, of the connections whose workload is
    /// unknown, and of those without room. Their gauges add up to the listener's at any time, their
    /// counters as soon as every cgroup has its workload, until a workload is forgotten.
    pub fn series(&self) -> impl Iterator<Item = WorkloadSeries<'_>> {
        let named = self.named.iter().map(|(name, index)| {
            let series = &self.series[index.index()];
            WorkloadSeries {
                namespace: &name.namespace,
                workload: &name.name,
                since: series.since,
                counts: Cow::Borrowed(&series.counts),
            }
        });
        let mut unknown = self.series[SeriesIndex::UNKNOWN.index()].counts.clone();
        for cgroup in self.cgroups.iter().flatten() {
            if let Workload::Unresolved(held) = &cgroup.workload {
                unknown.add_gauges(&held.counts);
            }
        }
        let other = &self.series[SeriesIndex::OTHER.index()].counts;
        named.chain([
            WorkloadSeries {
                namespace: "",
                workload: "unknown",
                since: None,
                counts: Cow::Owned(unknown),
            },
            WorkloadSeries {
                namespace: "",
                workload: "other",
                since: None,
                counts: Cow::Borrowed(other),
            },
        ])
    }

    /// Connections that were counted in `other`.
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// Whether a connection in the table waits for its cgroup to become known.
    pub(super) fn lacks_cgroups(&self) -> bool {
        self.without_cgroup > 0
    }

    /// The next cgroup to look up.
    pub(super) fn poll_cgroup(&mut self) -> Option<u64> {
        self.unresolved.pop_front()
    }

    /// Adds a connection to the table.
    pub(super) fn enter(&mut self, cgroup: Option<u64>) -> CgroupSlot {
        let slot = match cgroup {
            Some(id) => self.slot_of(id),
            None => CgroupSlot::UNKNOWN,
        };
        match slot.index() {
            Some(index) => {
                let cgroup = in_use(&mut self.cgroups, index);
                cgroup.flows += 1;
                match &mut cgroup.workload {
                    Workload::Unresolved(held) => held.entered += 1,
                    Workload::Series(SeriesIndex::OTHER) => self.over_limit += 1,
                    Workload::Series(_) => {}
                }
            }
            None if slot == CgroupSlot::OTHER => self.over_limit += 1,
            None => self.without_cgroup += 1,
        }
        slot
    }

    /// Removes a connection from the table.
    pub(super) fn leave(&mut self, slot: CgroupSlot, now: Ktime) {
        let Some(index) = slot.index() else {
            self.without_cgroup -= u64::from(slot == CgroupSlot::UNKNOWN);
            return;
        };
        let cgroup = in_use(&mut self.cgroups, index);
        cgroup.flows -= 1;
        if cgroup.flows == 0
            && let Workload::Series(series) = cgroup.workload
        {
            self.release(slot, series, now);
        }
    }

    /// The counts to which a connection contributes.
    pub(super) fn counts_mut(&mut self, slot: CgroupSlot) -> &mut ConnectionCounts {
        let series = match slot.index() {
            Some(index) => {
                let cgroup = in_use(&mut self.cgroups, index);
                match &mut cgroup.workload {
                    Workload::Unresolved(held) => return &mut held.counts,
                    Workload::Series(series) => *series,
                }
            }
            None if slot == CgroupSlot::OTHER => SeriesIndex::OTHER,
            None => SeriesIndex::UNKNOWN,
        };
        &mut self.series[series.index()].counts
    }

    /// The counts of the connections without a workload.
    pub(super) fn unknown_mut(&mut self) -> &mut ConnectionCounts {
        &mut self.series[SeriesIndex::UNKNOWN.index()].counts
    }

    /// Sets the workload of a cgroup; `None` if it has none or could not be found.
    pub(super) fn resolve(&mut self, id: u64, name: Option<&WorkloadName>, now: Ktime) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let series = match name {
            Some(name) => self.series_of(name, now),
            None => SeriesIndex::UNKNOWN,
        };
        let index = slot.index().expect("a cgroup has a slot");
        let cgroup = in_use(&mut self.cgroups, index);
        let Workload::Unresolved(held) = &mut cgroup.workload else {
            return;
        };
        let into = &mut self.series[series.index()];
        into.counts.add(&held.counts);
        into.cgroups += 1;
        if series == SeriesIndex::OTHER {
            self.over_limit += held.entered;
        }
        cgroup.workload = Workload::Series(series);
        if cgroup.flows == 0 {
            self.release(slot, series, now);
        }
    }

    fn slot_of(&mut self, id: u64) -> CgroupSlot {
        if let Some(slot) = self.slots.get(&id) {
            return *slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.cgroups.len() >= MAX_CGROUPS => return CgroupSlot::OTHER,
            None => {
                self.cgroups.push(None);
                CgroupSlot::at(self.cgroups.len() - 1)
            }
        };
        let index = slot.index().expect("a cgroup has a slot");
        self.cgroups[index] = Some(Cgroup {
            id,
            flows: 0,
            workload: Workload::Unresolved(Box::default()),
        });
        self.slots.insert(id, slot);
        self.unresolved.push_back(id);
        slot
    }

    /// Frees the slot of a cgroup without connections.
    fn release(&mut self, slot: CgroupSlot, series: SeriesIndex, now: Ktime) {
        let place = slot.index().and_then(|index| self.cgroups.get_mut(index));
        if let Some(cgroup) = place.and_then(Option::take) {
            self.slots.remove(&cgroup.id);
            self.free.push(slot);
            let series = &mut self.series[series.index()];
            series.cgroups -= 1;
            series.idle_since = now;
        }
    }

    /// The series of a workload, which may take the place of one that has been without connections for
    /// long.
    fn series_of(&mut self, name: &WorkloadName, now: Ktime) -> SeriesIndex {
        if let Some(index) = self.named.get(name) {
            return *index;
        }
        let index = if self.named.len() < self.limit {
            // Lossless: the limit fits.
            let index = SeriesIndex(self.series.len() as u16);
            self.series.push(Series::begun(now));
            index
        } else {
            let Some((oldest, index)) = self.most_idle(now) else {
                return SeriesIndex::OTHER;
            };
            self.named.remove(&oldest);
            self.series[index.index()] = Series::begun(now);
            index
        };
        self.named.insert(name.clone(), index);
        index
    }

    fn most_idle(&self, now: Ktime) -> Option<(WorkloadName, SeriesIndex)> {
        let idle = self.named.iter().filter_map(|(name, index)| {
            let series = &self.series[index.index()];
            let is_idle = series.cgroups == 0 && now.since(series.idle_since) >= FORGOTTEN_AFTER;
            is_idle.then_some((series.idle_since, name, *index))
        });
        let (_, name, index) = idle.min_by_key(|(idle_since, ..)| *idle_since)?;
        Some((name.clone(), index))
    }
}

/// Cgroups per listener that can have a connection at the same time: more than a host has pods.
const MAX_CGROUPS: usize = 16_384;
/// How long a workload has been without connections when another may take its place.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Bytes: the longest name of a file, so of a unit or a pod.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests;
