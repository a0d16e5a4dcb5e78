//! One crowd of connections from start to end, with its measurements.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Alert, Daemon, Metrics};

use super::{
    crowd::{Crowd, Death},
    resources::{CpuTime, resident_bytes, slab_bytes},
    verdicts::{self, Judgement},
    worker::PORT,
};
use crate::progress::Progress;

/// Prometheus scrapes every 15 s or less often by default.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

/// How often the counter of verdicts is read while they are due.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// Verdicts later than this count as missed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A burst of alerts is reported within ten seconds (docs/alert-log.md).
const REPORTED_WITHIN: Duration = Duration::from_secs(15);

/// With a million connections the first scan covers two million sockets.
const READY_LIMIT: Duration = Duration::from_secs(120);

pub(super) const STOP_LIMIT: Duration = Duration::from_secs(30);

const LOST: &str = "wsmon_events_lost_total";

/// `wsmon list --limit`: a screenful.
const SCREEN: &str = "40";

/// What happens to one crowd.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) ping_every: Duration,
    /// The idle limit of the path.
    pub(super) limit: Duration,
    /// How long the daemon's CPU share is measured.
    pub(super) steady: Duration,
    /// How long the kernel may take to free wsmon's memory.
    pub(super) settle: Duration,
    /// Connections that fall silent one by one.
    pub(super) fading: usize,
    /// Connections that fall silent at the same moment.
    pub(super) at_once: usize,
}

/// Measurements of one crowd. Times are in seconds.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) plan: Plan,
    pub(super) set_up: f64,
    /// The daemon's resident memory before the first connection.
    pub(super) daemon_empty_bytes: u64,
    pub(super) daemon_bytes: u64,
    /// Slab memory freed when wsmon ended.
    pub(super) kernel_bytes: u64,
    /// Of one core.
    pub(super) daemon_share: f64,
    /// Of one core, for the scans of the host's sockets; part of the above.
    pub(super) reconcile_share: f64,
    pub(super) pings_per_second: f64,
    pub(super) scrapes: Vec<f64>,
    pub(super) list_screen: f64,
    pub(super) list_all: f64,
    /// From each limit to the verdict, by the verdict's own time.
    pub(super) fading: Vec<f64>,
    /// From each limit until `/metrics`, read continuously, counts its verdict.
    pub(super) at_once: Vec<f64>,
    /// CPU time of the daemon from the last deaths until then.
    pub(super) verdicts_cpu: f64,
    pub(super) missed: usize,
    pub(super) wrong: Vec<String>,
    /// Verdicts reported in the alert log; the number of lines is separate.
    pub(super) reported: f64,
    pub(super) alert_lines: usize,
    /// Losses that wsmon reports, by series.
    pub(super) lost: Vec<(String, f64)>,
    /// Sum of these until every connection was open.
    pub(super) lost_in_set_up: f64,
    pub(super) untracked: f64,
    pub(super) recovered: f64,
    /// Time until a second daemon, started with all these connections open, is ready.
    pub(super) second_ready: f64,
    pub(super) second_found: f64,
    /// The largest delay of a ping in the crowd.
    pub(super) most_late: f64,
}

impl Measured {
    /// What must not happen on any machine, as text.
    pub(super) fn failures(&self) -> Vec<String> {
        let plan = self.plan;
        let deaths = (plan.fading + plan.at_once) as f64;
        let mut failures = Vec::new();
        let mut check = |holds: bool, words: String| {
            if !holds {
                failures.push(format!("{} connections: {words}", plan.connections));
            }
        };
        check(
            self.most_late < (plan.limit - plan.ping_every).as_secs_f64(),
            format!(
                "void: pings were up to {:.1} s late, the machine was too busy",
                self.most_late
            ),
        );
        check(self.missed == 0, format!("{} deaths missed", self.missed));
        let wrong = self.wrong.iter().take(3).cloned().collect::<Vec<_>>();
        let (count, wrong) = (self.wrong.len(), wrong.join("; "));
        check(count == 0, format!("{count} wrong verdicts: {wrong}"));
        check(
            self.reported == deaths,
            format!("the alert log has {} verdicts, not {deaths}", self.reported),
        );
        for (series, number) in &self.lost {
            check(false, format!("{number} in {series}"));
        }
        for (what, number) in [
            ("connections untracked", self.untracked),
            ("verdicts taken back", self.recovered),
        ] {
            check(number == 0.0, format!("{number} {what}"));
        }
        check(
            self.second_found == plan.connections as f64,
            format!("a daemon started later found {}", self.second_found),
        );
        failures
    }
}

pub(super) fn play(plan: Plan, wsmon: &Path, progress: &mut Progress<'_>) -> Result<Measured> {
    let name = format!("{} connections", plan.connections);
    progress.at(&format!("{name}: starting wsmon"));
    let mut daemon = start(plan, wsmon)?;
    let daemon_empty_bytes = resident_bytes(daemon.id())?;
    let mut crowd = Crowd::new(plan.connections)?;
    let set_up = crowd.open(plan.ping_every, progress)?.as_secs_f64();
    let opened = daemon.metrics()?;
    let known = opened.sum("wsmon_connections", &[]);
    ensure!(
        known == plan.connections as f64,
        "wsmon knows {known} of {name}"
    );

    progress.at(&format!("{name}: at rest"));
    let steady = Steady::measure(plan, &daemon, progress)?;
    let daemon_bytes = resident_bytes(daemon.id())?;
    progress.at(&format!("{name}: listing"));
    let list_screen = list(wsmon, &daemon, &["--limit", SCREEN])?;
    let list_all = list(wsmon, &daemon, &["--limit", "0"])?;

    progress.at(&format!("{name}: falling silent"));
    let fading = crowd.fade(plan.fading, plan.ping_every, progress)?;
    let at_once = crowd.die(plan.at_once)?;
    let cpu = CpuTime::of(daemon.id())?;
    progress.at(&format!("{name}: waiting for the verdicts"));
    let counted = count_verdicts(plan, &daemon, &at_once, progress)?;
    let verdicts_cpu = CpuTime::of(daemon.id())?.since(cpu).process.as_secs_f64();
    let deaths: Vec<Death> = fading.iter().chain(&at_once).copied().collect();
    let alerts = collect_alerts(&daemon, deaths.len(), progress)?;
    let judgement: Judgement =
        verdicts::judge(&deaths, plan.limit, &verdicts::standing(daemon.control())?);
    let metrics = daemon.metrics()?;
    let most_late = crowd.most_late()?.as_secs_f64();

    progress.at(&format!("{name}: without wsmon"));
    let with = slab_bytes()?;
    end(&mut daemon)?;
    let without = settled_slab_bytes(plan.settle, progress)?;
    progress.at(&format!("{name}: starting a second wsmon"));
    let begin = Instant::now();
    let mut second = start(plan, wsmon)?;
    let second_ready = begin.elapsed().as_secs_f64();
    let second_found = second.metrics()?.sum("wsmon_connections", &[]);
    end(&mut second)?;
    progress.at(&format!("{name}: hanging up"));
    drop(crowd);

    Ok(Measured {
        plan,
        set_up,
        daemon_empty_bytes,
        daemon_bytes,
        kernel_bytes: with.saturating_sub(without),
        daemon_share: steady.daemon_share,
        reconcile_share: steady.reconcile_share,
        pings_per_second: steady.pings_per_second,
        scrapes: steady.scrapes,
        list_screen,
        list_all,
        fading: judgement.latencies(&fading),
        at_once: verdicts::counted(&at_once, plan.limit, &counted),
        verdicts_cpu,
        missed: judgement.missed.len(),
        wrong: judgement.wrong,
        reported: alerts.iter().map(Alert::count).sum(),
        alert_lines: alerts.len(),
        lost: lost(&metrics),
        lost_in_set_up: opened.sum(LOST, &[]),
        untracked: metrics.sum("wsmon_untracked_connections_total", &[]),
        recovered: metrics.sum("wsmon_zombies_recovered_total", &[]),
        second_ready,
        second_found,
        most_late,
    })
}

/// The daemon's load while only heartbeats pass.
struct Steady {
    daemon_share: f64,
    reconcile_share: f64,
    pings_per_second: f64,
    scrapes: Vec<f64>,
}

impl Steady {
    fn measure(plan: Plan, daemon: &Daemon, progress: &Progress<'_>) -> Result<Self> {
        let pings = |metrics: &Metrics| metrics.sum("wsmon_pings_total", &[]);
        let before = pings(&daemon.metrics()?);
        let (begin, cpu) = (Instant::now(), CpuTime::of(daemon.id())?);
        let mut scrapes = Vec::new();
        let mut metrics = Metrics::default();
        while begin.elapsed() < plan.steady {
            progress.sleep(SCRAPE_INTERVAL.min(plan.steady))?;
            let begin = Instant::now();
            metrics = daemon.metrics()?;
            scrapes.push(begin.elapsed().as_secs_f64());
        }
        let (cpu, seconds) = (
            CpuTime::of(daemon.id())?.since(cpu),
            begin.elapsed().as_secs_f64(),
        );
        Ok(Self {
            daemon_share: cpu.process.as_secs_f64() / seconds,
            reconcile_share: cpu.other_threads().as_secs_f64() / seconds,
            pings_per_second: (pings(&metrics) - before) / seconds,
            scrapes,
        })
    }
}

fn start(plan: Plan, wsmon: &Path) -> Result<Daemon> {
    let limit = format!("{}ms", plan.limit.as_millis());
    let (port, room) = (PORT.to_string(), plan.connections.max(1_024).to_string());
    let arguments = ["--port", &port, "--lb-timeout", &limit, "--max-connections"];
    let arguments = arguments.into_iter().chain([room.as_str()]);
    Ok(Daemon::start_within(READY_LIMIT, wsmon, arguments)?)
}

fn end(daemon: &mut Daemon) -> Result<()> {
    let status = daemon.terminate(STOP_LIMIT)?;
    ensure!(
        status.success(),
        "wsmon ended with {status}:\n{}",
        daemon.log()
    );
    Ok(())
}

/// The losses that wsmon reports, by series.
pub(super) fn lost(metrics: &Metrics) -> Vec<(String, f64)> {
    metrics
        .iter()
        .filter(|(series, value)| series.name == LOST && *value > 0.0)
        .map(|(series, value)| (series.to_string(), value))
        .collect()
}

/// Duration of `wsmon list` in seconds.
fn list(wsmon: &Path, daemon: &Daemon, arguments: &[&str]) -> Result<f64> {
    let mut command = Command::new(wsmon);
    command.args(["list", "--control"]).arg(daemon.control());
    command.args(arguments).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().context("cannot start wsmon list")?;
    ensure!(status.success(), "wsmon list failed: {status}");
    Ok(begin.elapsed().as_secs_f64())
}

/// Reads the counter of verdicts from the first limit of the connections that died at once, until
/// it has counted all of them or their time is over. Returns moments on the monotonic clock, and
/// the count at each.
fn count_verdicts(
    plan: Plan,
    daemon: &Daemon,
    last: &[Death],
    progress: &Progress<'_>,
) -> Result<Vec<(Duration, f64)>> {
    let moments = last.iter().map(|death| death.last_packet);
    let (first, last) = (moments.clone().min(), moments.max());
    let (first, last) = first.zip(last).context("nobody died")?;
    progress.sleep((first + plan.limit).saturating_sub(monotonic()))?;
    let mut counted = Vec::new();
    while monotonic() < last + plan.limit + TIMEOUT {
        let found = daemon.metrics()?.sum("wsmon_zombies_detected_total", &[]);
        // Connections that died one by one did so earlier.
        let found = found - plan.fading as f64;
        counted.push((monotonic(), found));
        if found >= plan.at_once as f64 {
            break;
        }
        progress.sleep(COUNT_INTERVAL)?;
    }
    Ok(counted)
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The alerts, once they cover this many verdicts or the time is over.
fn collect_alerts(daemon: &Daemon, verdicts: usize, progress: &Progress<'_>) -> Result<Vec<Alert>> {
    let begin = Instant::now();
    let mut alerts: Vec<Alert> = Vec::new();
    loop {
        alerts.extend(daemon.alerts().try_iter().filter(Alert::is_firing_zombie));
        let reported: f64 = alerts.iter().map(Alert::count).sum();
        if reported >= verdicts as f64 || begin.elapsed() > REPORTED_WITHIN {
            return Ok(alerts);
        }
        progress.sleep(COUNT_INTERVAL)?;
    }
}

/// The kernel takes its time to free the memory of a million sockets.
fn settled_slab_bytes(at_most: Duration, progress: &Progress<'_>) -> Result<u64> {
    const AT_LEAST: Duration = Duration::from_secs(3);
    let begin = Instant::now();
    let mut before = slab_bytes()?;
    loop {
        progress.sleep(Duration::from_secs(1))?;
        let now = slab_bytes()?;
        let steady = now.abs_diff(before) * 2_000 < now;
        if (begin.elapsed() > AT_LEAST && steady) || begin.elapsed() > at_most {
            return Ok(now);
        }
        before = now;
    }
}
