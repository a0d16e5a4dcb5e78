//! Windows of one workload, alternately without and with an observer, so that other load on the
//! machine affects both equally.
//!
//! ```text
//! A  B B  A  C C  A  D D  A …      A alone, B C D with one observer each
//! ```
//!
//! Each window with an observer is compared with the adjacent window without one. In between, the
//! observer starts or ends, and the traffic settles.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    observer::{Observer, Seen},
    traffic::Traffic,
    workload::Workload,
};
use crate::{progress::Progress, statistics::quantile};

/// After an observer has started or ended.
const SETTLE: Duration = Duration::from_millis(300);

/// Measurements of one workload.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) workload: Workload,
    /// Throughput per second without an observer, for each window.
    pub(super) alone: Vec<f64>,
    /// The share of all CPUs' time that was not idle in these windows.
    pub(super) busy: Vec<f64>,
    pub(super) rows: Vec<Row>,
}

/// Measurements of one observer.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) observer: Observer,
    /// Throughput with it divided by throughput without it, for each pair of windows.
    pub(super) ratios: Vec<f64>,
    /// What it has seen, for each pair of windows.
    seen: Vec<Seen>,
}

impl Row {
    /// The share of the traffic that it has seen.
    pub(super) fn seen(&self) -> Option<f64> {
        let shares: Vec<f64> = self.seen.iter().map(|seen| seen.share).collect();
        quantile(&shares, 0.5)
    }

    /// Its own count of losses.
    pub(super) fn lost(&self) -> f64 {
        self.seen.iter().map(|seen| seen.lost).sum()
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) pairs: usize,
    pub(super) window: Duration,
}

pub(super) fn compare(
    workload: Workload,
    observers: &[Observer],
    extent: Extent,
    wsmon: &Path,
    progress: &mut Progress<'_>,
) -> Result<Comparison> {
    progress.at(&format!("{}: opening connections", workload.name()));
    let traffic = Traffic::start(workload)
        .with_context(|| format!("cannot start the workload `{}`", workload.name()))?;
    progress.sleep(SETTLE * 3)?;
    let mut comparison = Comparison {
        workload,
        alone: Vec::new(),
        busy: Vec::new(),
        rows: observers
            .iter()
            .map(|observer| Row::new(*observer))
            .collect(),
    };
    let mut before = comparison.alone(&traffic, extent, progress)?;
    let rounds = extent.pairs.div_ceil(2);
    for round in 0..rounds {
        for index in 0..observers.len() {
            // Rotates the order, so that each observer has each of the others as a neighbour.
            let index = (index + round) % observers.len();
            let observer = observers[index];
            progress.at(&format!(
                "{}: round {} of {rounds}, {}",
                workload.name(),
                round + 1,
                observer.name()
            ));
            let mut watch = observer.start(wsmon, &traffic)?;
            progress.sleep(SETTLE)?;
            watch.begin(traffic.count()? * workload.frames_each())?;
            let first = throughput(&traffic, extent, progress)?;
            let second = throughput(&traffic, extent, progress)?;
            let seen = watch.end(traffic.count()? * workload.frames_each())?;
            progress.sleep(SETTLE)?;
            let after = comparison.alone(&traffic, extent, progress)?;
            let row = &mut comparison.rows[index];
            row.ratios.extend([first / before, second / after]);
            row.seen.extend(seen);
            before = after;
        }
    }
    Ok(comparison)
}

impl Row {
    fn new(observer: Observer) -> Self {
        Self {
            observer,
            ratios: Vec::new(),
            seen: Vec::new(),
        }
    }
}

impl Comparison {
    fn alone(&mut self, traffic: &Traffic, extent: Extent, progress: &Progress<'_>) -> Result<f64> {
        let before = CpuTime::read()?;
        let throughput = throughput(traffic, extent, progress)?;
        self.busy.push(CpuTime::read()?.busy_since(before));
        self.alone.push(throughput);
        Ok(throughput)
    }
}

/// Throughput per second over one window.
fn throughput(traffic: &Traffic, extent: Extent, progress: &Progress<'_>) -> Result<f64> {
    let (begin, before) = (Instant::now(), traffic.count()?);
    progress.sleep(extent.window)?;
    let (end, after) = (Instant::now(), traffic.count()?);
    Ok((after - before) as f64 / (end - begin).as_secs_f64())
}

/// The time of all CPUs together, in the kernel's ticks (`/proc/stat`).
#[derive(Clone, Copy)]
struct CpuTime {
    all: u64,
    idle: u64,
}

impl CpuTime {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let first = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest time is part of user.
        let ticks = first.split_whitespace().skip(1).take(8).map(str::parse);
        let ticks = ticks
            .collect::<Result<Vec<u64>, _>>()
            .with_context(|| format!("no times of the CPUs: {first}"))?;
        Ok(Self {
            all: ticks.iter().sum(),
            idle: ticks.iter().skip(3).take(2).sum(),
        })
    }

    fn busy_since(self, before: Self) -> f64 {
        let all = (self.all - before.all).max(1) as f64;
        1.0 - (self.idle - before.idle) as f64 / all
    }
}
