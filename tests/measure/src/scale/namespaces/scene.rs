//! One scene from start to end, with its measurements.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::Daemon;

use super::{
    super::{
        resources::{CpuTime, peak_bytes, resident_bytes},
        stage::{STOP_LIMIT, lost},
        verdicts::{self, Verdict},
    },
    population::{LATE_CONNECTIONS, Layout, Population},
    scan_log::{LoggedScan, ScanCounts, ScanLog},
};
use crate::progress::Progress;

const READY_LIMIT: Duration = Duration::from_secs(120);

/// Ten thousand namespaces are searched in the background for a few minutes.
const SEARCH_LIMIT: Duration = Duration::from_secs(600);

/// A new listening socket and new connections are reported by the kernel.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);

/// Scans may be four minutes apart, and a verdict of `stalled` takes two that are 30 s apart.
const SCANS_LIMIT: Duration = Duration::from_secs(600);

/// Between these lie two intervals.
const ENOUGH_SCANS: usize = 3;

/// How often the metrics are read while a count is awaited, and the log of the scans.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often the verdicts are read while some are awaited.
const VERDICTS_INTERVAL: Duration = Duration::from_secs(1);

/// The verdict on a connection whose server does not read.
const STALLED: &str = "stalled";

/// What happens in one scene.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    /// The least time for which scans are watched. If it is zero, the first one at the start is enough.
    pub(super) steady: Duration,
    /// Connections that stall, at most one in each served namespace.
    pub(super) stalled: usize,
}

/// Measurements of one scene. Times are in seconds.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) plan: Plan,
    pub(super) set_up: f64,
    /// From the start of the daemon.
    pub(super) ready: f64,
    /// From the start of the daemon until it knows all older connections; `None` if it never does.
    pub(super) all_known: Option<f64>,
    pub(super) known: f64,
    pub(super) listening: f64,
    /// Until the namespace that began to listen is counted, and until its connections are.
    pub(super) late_listening: Option<f64>,
    pub(super) late_known: Option<f64>,
    /// Those of the steady time.
    pub(super) scans: Vec<LoggedScan>,
    /// Of one core, in that time.
    pub(super) daemon_share: f64,
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
    pub(super) stalled: usize,
    /// From the stall until all of them have a verdict.
    pub(super) stalled_found: Option<f64>,
    pub(super) missed: Vec<SocketAddr>,
    pub(super) wrong: Vec<String>,
    pub(super) lost: Vec<(String, f64)>,
    pub(super) untracked: f64,
}

impl Measured {
    /// What must not happen on any machine, as text.
    pub(super) fn failures(&self) -> Vec<String> {
        let layout = self.plan.layout;
        let mut failures = Vec::new();
        let mut check = |holds: bool, words: String| {
            if !holds {
                let Layout {
                    namespaces, served, ..
                } = layout;
                failures.push(format!("{namespaces} namespaces, {served} served: {words}"));
            }
        };
        let (known, connections) = (self.known, layout.served_connections());
        check(
            self.all_known.is_some(),
            format!("{known} of {connections} older connections are known"),
        );
        let listening = self.listening;
        check(
            listening == layout.served as f64,
            format!("{listening} listening sockets are known"),
        );
        check(
            self.late_listening.is_some(),
            "a namespace that began to listen is unknown".to_owned(),
        );
        check(
            self.late_known.is_some(),
            "the connections of a namespace that began to listen are unknown".to_owned(),
        );
        check(
            self.scans.iter().any(|it| layout.has_skipped(&it.counts)),
            "no scan has skipped the namespaces without a known connection".to_owned(),
        );
        let missed = self.missed.len();
        check(missed == 0, format!("{missed} stalled connections missed"));
        let wrong = self.wrong.iter().take(3).cloned().collect::<Vec<_>>();
        let (count, wrong) = (self.wrong.len(), wrong.join("; "));
        check(count == 0, format!("{count} wrong verdicts: {wrong}"));
        for (series, number) in &self.lost {
            check(false, format!("{number} in {series}"));
        }
        let untracked = self.untracked;
        check(
            untracked == 0.0,
            format!("{untracked} connections untracked"),
        );
        failures
    }

    /// Seconds from each scan to the next.
    pub(super) fn intervals(&self) -> Vec<f64> {
        let pairs = self.scans.windows(2);
        let intervals = pairs.map(|pair| (pair[1].at - pair[0].at).as_secs_f64());
        intervals.collect()
    }

    /// CPU time of each scan in seconds.
    pub(super) fn costs(&self) -> Vec<f64> {
        let costs = self.scans.iter().map(|scan| scan.counts.cost.as_secs_f64());
        costs.collect()
    }

    pub(super) fn last_scan(&self) -> Option<ScanCounts> {
        self.scans.last().map(|scan| scan.counts)
    }
}

pub(super) fn play(plan: Plan, wsmon: &Path, progress: &mut Progress<'_>) -> Result<Measured> {
    let layout = plan.layout;
    let name = format!("{} network namespaces", layout.namespaces);
    let begin = Instant::now();
    let mut population = Population::open(layout, progress)?;
    let set_up = begin.elapsed().as_secs_f64();

    progress.at(&format!("{name}: starting wsmon"));
    let older = layout.served_connections();
    let begin = Instant::now();
    let mut daemon = start(layout, population.port(), wsmon)?;
    let ready = begin.elapsed().as_secs_f64();
    progress.at(&format!("{name}: searching for older connections"));
    let known = |count: usize| ("wsmon_connections", count as f64);
    let all_known = wait_for_sum(&daemon, known(older), begin, SEARCH_LIMIT, progress)?;
    let metrics = daemon.metrics()?;
    let (known_older, listening) = (
        metrics.sum("wsmon_connections", &[]),
        metrics.sum("wsmon_listener_sockets", &[]),
    );

    progress.at(&format!("{name}: one more begins to listen"));
    let begin = Instant::now();
    population.open_late()?;
    let sockets = ("wsmon_listener_sockets", (layout.served + 1) as f64);
    let late_listening = wait_for_sum(&daemon, sockets, begin, REPORTED_WITHIN, progress)?;
    let late = known(older + LATE_CONNECTIONS);
    let late_known = wait_for_sum(&daemon, late, begin, REPORTED_WITHIN, progress)?;

    progress.at(&format!("{name}: scanning"));
    let stalled = population.stall(plan.stalled)?;
    let steady = Steady::watch(plan, &daemon, &stalled, progress)?;
    let metrics = daemon.metrics()?;
    let (resident_bytes, peak_bytes) = (resident_bytes(daemon.id())?, peak_bytes(daemon.id())?);
    let status = daemon.terminate(STOP_LIMIT)?;
    ensure!(
        status.success(),
        "wsmon ended with {status}:\n{}",
        daemon.log()
    );
    progress.at(&format!("{name}: removing them"));
    drop(population);

    let judged = |verdict: &Verdict| verdict.kind == STALLED && stalled.contains(&verdict.peer);
    let is_found = |peer: &&SocketAddr| steady.verdicts.iter().any(|it| it.peer == **peer);
    let wrong = steady.verdicts.iter().filter(|verdict| !judged(verdict));
    Ok(Measured {
        plan,
        set_up,
        ready,
        all_known,
        known: known_older,
        listening,
        late_listening,
        late_known,
        scans: steady.scans,
        daemon_share: steady.daemon_share,
        resident_bytes,
        peak_bytes,
        stalled: stalled.len(),
        stalled_found: steady.stalled_found,
        missed: stalled.iter().filter(|it| !is_found(it)).copied().collect(),
        wrong: wrong
            .map(|it| format!("{} on {}", it.kind, it.peer))
            .collect(),
        lost: lost(&metrics),
        untracked: metrics.sum("wsmon_untracked_connections_total", &[]),
    })
}

fn start(layout: Layout, port: u16, wsmon: &Path) -> Result<Daemon> {
    let room = (layout.served_connections() + LATE_CONNECTIONS).max(1_024);
    let (port, room) = (port.to_string(), room.to_string());
    let arguments = ["--port", &port, "--max-connections", &room, "-vv"];
    Ok(Daemon::start_within(READY_LIMIT, wsmon, arguments)?)
}

/// Waits until all series of a metric have this sum. Returns the seconds since `begin`; `None` if it takes
/// longer than `limit`.
fn wait_for_sum(
    daemon: &Daemon,
    (metric, expected): (&str, f64),
    begin: Instant,
    limit: Duration,
    progress: &Progress<'_>,
) -> Result<Option<f64>> {
    let waiting = Instant::now();
    loop {
        if daemon.metrics()?.sum(metric, &[]) == expected {
            return Ok(Some(begin.elapsed().as_secs_f64()));
        }
        if waiting.elapsed() > limit {
            return Ok(None);
        }
        progress.sleep(POLL_INTERVAL)?;
    }
}

/// The time in which scans are watched.
struct Steady {
    scans: Vec<LoggedScan>,
    daemon_share: f64,
    stalled_found: Option<f64>,
    /// Those that stand at the end.
    verdicts: Vec<Verdict>,
}

impl Steady {
    /// Until the stalled connections have their verdicts and enough scans were done, and at least as long as
    /// planned.
    fn watch(
        plan: Plan,
        daemon: &Daemon,
        stalled: &[SocketAddr],
        progress: &Progress<'_>,
    ) -> Result<Self> {
        let (begin, cpu) = (Instant::now(), CpuTime::of(daemon.id())?);
        let mut log = ScanLog::default();
        let (mut earlier, mut enough) = (0, 1);
        if !plan.steady.is_zero() {
            // Those at the start are not part of it.
            log.update(&daemon.log());
            (earlier, enough) = (log.scans.len(), ENOUGH_SCANS);
        }
        let mut stalled_found = None;
        let mut verdicts_at = begin;
        loop {
            log.update(&daemon.log());
            if stalled_found.is_none() && verdicts_at <= Instant::now() {
                let verdicts = verdicts::standing(daemon.control())?;
                let mut peers = stalled.iter();
                let all_found = peers.all(|peer| verdicts.iter().any(|it| it.peer == *peer));
                stalled_found = all_found.then(|| begin.elapsed().as_secs_f64());
                verdicts_at = Instant::now() + VERDICTS_INTERVAL;
            }
            let elapsed = begin.elapsed();
            let scans = &log.scans[earlier..];
            let is_done = stalled_found.is_some()
                && scans.len() >= enough
                && scans.iter().any(|it| plan.layout.has_skipped(&it.counts))
                && elapsed >= plan.steady;
            if is_done || elapsed > plan.steady.max(SCANS_LIMIT) {
                break;
            }
            progress.sleep(POLL_INTERVAL)?;
        }
        let cpu = CpuTime::of(daemon.id())?.since(cpu).process;
        Ok(Self {
            scans: log.scans.split_off(earlier),
            daemon_share: cpu.as_secs_f64() / begin.elapsed().as_secs_f64(),
            stalled_found,
            verdicts: verdicts::standing(daemon.control())?,
        })
    }
}
