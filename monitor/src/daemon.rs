//! The shell around the core. It owns the kernel side and the clock, feeds records, snapshots and
//! requests to the core, and turns the core's actions into alerts.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    alerting::Sinks,
    api::{control::ControlRequest, http::MetricsRequest},
    config::listeners::ListenerConfig,
    kernel::{
        bpf::loader::{LoadError, Loaded},
        clock,
        host::{netns::NetNsError, own_process::OwnProcess},
        owner_service::OwnerService,
        sock_diag::socket_finder::FindError,
    },
    records::{Now, counted::Counted},
};
use monitor_core::{
    Action, Correlator, KnownHop, Ktime, ListenerId, StormSetup, Transition, reap::ReapSettings,
    storm::StormSettings,
};

pub mod access_log;
mod control;
pub mod frame_stream;
mod housekeeping;
mod intake;
mod losses;
mod outputs;
mod owner_lookup;
mod reaper;
pub mod reconcile;
mod scrape;
pub mod service_manager;
mod standing_alerts;
pub mod state;
mod state_writer;
mod stats_poll;
mod status;
mod status_page;
mod sweep;
mod watchdog;
mod workload_lookup;

use access_log::AccessLog;
use frame_stream::FrameStreamError;
use housekeeping::Housekeeping;
use intake::{Arrival, Intake};
use outputs::{OutputEvent, Outputs};
use reconcile::{SearchProgress, Seeded};
use service_manager::ServiceManager;
use state::StateFile;
use status_page::TrendRecorder;
use watchdog::Watchdog;

/// A record is stamped before it is committed, so a program interrupted in between commits a moment
/// late. The core's clock therefore runs this much behind the real one.
const COMMIT_SLACK: Duration = Duration::from_millis(10);

/// Granularity of the kernel programs' clock, which advances with the scheduler tick: at most 10 ms
/// (HZ=100).
pub const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);

/// Maximum number of listeners in the status of the service.
const SHOWN_LISTENERS: usize = 8;

/// Settings of the daemon other than the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The publish interval of the loaded programs.
    pub publish_interval: Duration,
    pub reap: ReapSettings,
    /// Whether to show the client address that a proxy reports, in alerts too. This is personal data.
    pub client_address: bool,
    /// Where the kubelet keeps the logs of pods.
    pub pod_logs: PathBuf,
    /// Maximum number of workloads per listener in the labels of metrics; `None` without these labels.
    pub max_workloads: Option<u16>,
    /// Whether to keep what the page at `/` shows of the last hour.
    pub status_page: bool,
}

/// New rules for the watched listeners, which must be the same ones in the same order.
pub struct Reload {
    pub listeners: Vec<ListenerConfig>,
    /// Receives the result of applying the rules.
    pub reply: oneshot::Sender<Result<(), LoadError>>,
}

/// What others request from the daemon.
pub struct Requests {
    pub metrics: mpsc::Receiver<MetricsRequest>,
    pub control: mpsc::Receiver<ControlRequest>,
    pub reloads: mpsc::Receiver<Reload>,
    /// Signals that the logs were moved away.
    pub rotated: Signal,
}

enum Request {
    Metrics(MetricsRequest),
    Control(ControlRequest),
    Reload(Reload),
    ReopenLogs,
}

impl Requests {
    /// Waits for the next request; pends forever if none can come.
    async fn next(&mut self) -> Request {
        tokio::select! {
            Some(request) = self.metrics.recv() => Request::Metrics(request),
            Some(request) = self.control.recv() => Request::Control(request),
            Some(reload) = self.reloads.recv() => Request::Reload(reload),
            Some(()) = self.rotated.recv() => Request::ReopenLogs,
            else => std::future::pending().await,
        }
    }
}

/// The running daemon. Dropping it detaches everything.
pub struct Daemon {
    listeners: Vec<ListenerConfig>,
    core: Correlator,
    intake: Intake,
    outputs: Outputs,
    housekeeping: Housekeeping,
    started_at: Instant,
    /// The start on both clocks; it converts later moments for `/metrics`.
    clocks: Now,
    process: OwnProcess,
    /// `None` without the status page.
    trend: Option<TrendRecorder>,
    service_manager: ServiceManager,
    watchdog: Watchdog,
    /// Keeps the programs attached.
    loaded: Loaded,
}

impl Daemon {
    /// Takes ownership of loaded and attached programs. Must be called within a tokio runtime.
    pub fn new(
        mut loaded: Loaded,
        listeners: Vec<ListenerConfig>,
        settings: DaemonSettings,
        sinks: Sinks,
        access_log: Option<AccessLog>,
        state: Option<StateFile>,
        service_manager: ServiceManager,
    ) -> Result<Self, DaemonError> {
        let rules = listeners
            .iter()
            .map(|listener| listener.rules.clone())
            .collect();
        let storms = StormSetup {
            settings: StormSettings {
                // A random seed, so that nobody can choose addresses that slow down the hash tables.
                seed: RandomState::new().hash_one(()),
                ..StormSettings::default()
            },
            baselines: state
                .iter()
                .flat_map(|state| state.baselines().clone())
                .collect(),
            forwarded: settings.client_address,
        };
        let staleness = settings.publish_interval + CLOCK_GRANULARITY;
        let mut core = Correlator::new(rules, staleness).with_storms(&storms);
        if let Some(limit) = settings.max_workloads {
            core = core.with_workloads(limit);
        }
        Ok(Self {
            core,
            intake: Intake::take(&mut loaded, &listeners)?,
            outputs: Outputs::take(&mut loaded, sinks, access_log, &settings)?,
            housekeeping: Housekeeping::take(&mut loaded, &listeners, settings.reap, state)?,
            started_at: Instant::now(),
            clocks: both_clocks(),
            process: OwnProcess::open()?,
            trend: settings
                .status_page
                .then(|| TrendRecorder::new(listeners.len())),
            watchdog: Watchdog::new(&service_manager, Instant::now()),
            service_manager,
            listeners,
            loaded,
        })
    }

    /// Finds the owners of connections, for other parts of the program.
    pub fn owners(&self) -> OwnerService {
        self.outputs.owners.clone()
    }

    /// Sets the middleboxes whose names may explain a learned timeout.
    pub fn set_known_hops(&mut self, known: Vec<KnownHop>) {
        self.core.handle_known_hops(known);
    }

    /// Finds the connections older than the programs, in some microseconds each, and reads the rings
    /// meanwhile. What takes longer than a start may take is found by [`run`](Self::run).
    pub async fn seed(&mut self) -> Result<Seeded, NetNsError> {
        let reconciler = &mut self.intake.reconciler;
        let mut older = reconciler.find_older(&self.listeners, &mut self.core)?;
        while let Some(found) = older.next().await {
            match found {
                SearchProgress::Connections(slice) => self.intake.seed(slice, &mut self.core),
                SearchProgress::MayStart { unsearched } => {
                    self.intake.older = Some(older);
                    return Ok(self.intake.reconciler.seeded(unsearched));
                }
            }
            self.tick();
        }
        self.intake.reconciler.end_seeding(older)
    }

    /// Runs until `stop` resolves.
    pub async fn run(
        mut self,
        mut requests: Requests,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        tokio::pin!(stop);
        self.service_manager.ready(|| self.watched());
        loop {
            let deadline = self.deadline();
            let minute_end = self.trend.as_ref().map(TrendRecorder::due);
            tokio::select! {
                () = &mut stop => {
                    self.service_manager.stopping();
                    self.outputs.flush(&self.core, &self.listeners).await;
                    self.housekeeping.state_writer.write_final(&self.core).await;
                    return Ok(());
                }
                request = requests.next() => self.respond(request),
                arrival = self.intake.next() => {
                    let arrival = arrival.map_err(DaemonError::Runtime)?;
                    self.handle_arrival(arrival).await;
                }
                event = self.outputs.next() => match event.map_err(DaemonError::Runtime)? {
                    OutputEvent::Frames => self.intake.space_drains().await,
                    OutputEvent::Owners(result) => {
                        self.outputs.finish_search(result, &self.listeners);
                    }
                    OutputEvent::Workloads(result) => {
                        self.outputs.workload_lookup.finish(result, &mut self.core);
                    }
                    OutputEvent::WorkloadDue => {}
                    OutputEvent::LineOwners(found) => self.outputs.finish_lines(found),
                },
                chore = self.housekeeping.next() => {
                    let missed_ends = &self.intake.missed_ends;
                    self.housekeeping.handle(chore, &mut self.core, missed_ends);
                }
                () = sleep_until(minute_end) => self.end_minute(),
                () = sleep_until(deadline) => {}
                () = sleep_until(self.watchdog.due()) => {}
                // The rest of a large piece of work alternates with everything else.
                () = tokio::task::yield_now(), if self.is_behind() => {}
            }
            self.tick();
        }
    }

    /// When the next decision is due.
    fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.core.poll_timeout(),
            self.outputs.grouping.poll_timeout(),
            self.housekeeping.reaping.poll_timeout(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        deadline.map(|at| instant(at + COMMIT_SLACK))
    }

    fn respond(&mut self, request: Request) {
        match request {
            // The response includes everything that happened before the request.
            Request::Metrics(request) => {
                self.tick();
                self.respond_to_metrics(request);
            }
            Request::Control(request) => {
                self.tick();
                self.respond_to_control(request);
            }
            Request::Reload(Reload { listeners, reply }) => {
                // The requester may have gone.
                drop(reply.send(self.apply_rules(listeners)));
            }
            Request::ReopenLogs => self.outputs.reopen_logs(),
        }
    }

    async fn handle_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Records => self.intake.space_drains().await,
            Arrival::SweepDue => {}
            Arrival::Older(found) => self.intake.handle_older(found, &mut self.core),
            Arrival::ScanDue => {
                self.notice_losses();
                self.intake.start_scan(&self.listeners, &self.core);
            }
            Arrival::Scanned(result) => {
                self.intake.finish_scan(*result, &mut self.core);
                self.outputs.owner_lookup.forget(&self.core);
                self.outputs.owners.close_unused();
                self.housekeeping.reaping.close_unused();
                self.service_manager.report_watched(|| self.watched());
                log::logger().flush();
            }
        }
    }

    /// Applies new rules to all connections, old and new.
    fn apply_rules(&mut self, listeners: Vec<ListenerConfig>) -> Result<(), LoadError> {
        self.loaded.set_limits(&listeners)?;
        self.intake.restart_sweeps(&listeners);
        // Until the first sweep, each connection has a deadline.
        self.core.expect_sweeps(None);
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        self.core.handle_rules(rules.collect());
        self.housekeeping.stats_poll.restart(&listeners);
        self.listeners = listeners;
        Ok(())
    }

    /// What is watched, for the status of the service.
    fn watched(&self) -> String {
        let names = self
            .listeners
            .iter()
            .map(|listener| listener.rules.name.as_str());
        let shown: Vec<_> = names.take(SHOWN_LISTENERS).collect();
        let more = match self.listeners.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let connections = Counted(self.core.len() as u64, "connection");
        format!("watching {connections} on {}{more}", shown.join(", "))
    }

    /// Whether the last tick left work undone.
    fn is_behind(&self) -> bool {
        self.core.wants_inspection()
            || self.intake.is_behind()
            || self.intake.reconciler.is_behind()
    }

    /// One tick: first the clock, then the rings, then the core's deadlines and actions. In this order,
    /// no deadline is judged before a record older than it. Work on very many connections is spread
    /// over several ticks, so that it does not delay the rings.
    fn tick(&mut self) {
        let sampled = clock::now();
        self.drain();
        if self.watchdog.handle_drained(Instant::now()) {
            self.service_manager.feed_watchdog();
        }
        self.core.handle_timeout(sampled - COMMIT_SLACK);
        self.intake.sweep(&mut self.core);
        let outputs = &mut self.outputs;
        self.intake.reconcile(&mut self.core, |detail, core| {
            outputs.remember_missed(detail, core);
        });
        self.intake.inspect(&mut self.core);
        if self.core.wants_deliveries() {
            self.housekeeping.stats_poll.hurry();
        }
        self.act();
        self.outputs.grouping.handle_timeout(sampled - COMMIT_SLACK);
        self.outputs.emit_grouped(&self.core, &self.listeners);
        self.outputs.workload_lookup.start(&mut self.core);
        self.housekeeping.reaping.tick(sampled, &mut self.core);
        self.show_frames();
    }

    /// Reads what both rings have.
    fn drain(&mut self) {
        let outputs = &mut self.outputs;
        let may_have_lost = self.intake.drain(&mut self.core, |closed, core| {
            outputs.remember_closed(closed, core);
        });
        if may_have_lost {
            self.notice_losses();
        }
    }

    /// Carries out the core's actions.
    fn act(&mut self) {
        let now = both_clocks();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => {
                    self.housekeeping.reaping.offer(&alert);
                    if let Some(trend) = &mut self.trend {
                        trend.handle_alert(&alert, &self.core);
                    }
                    self.outputs.offer(alert, &self.listeners, &now);
                }
                Action::Transition(transition) => self.report_transition(&transition),
                Action::Ended(ended) => self.outputs.log_end(&ended, &self.listeners, &now),
                Action::Reconcile => self.intake.reconciler.compare_with_snapshots(&self.core),
            }
        }
        self.outputs.forget_unended();
    }

    fn report_transition(&mut self, transition: &Transition) {
        log::debug!(
            "socket {}: {}: {}",
            transition.conn.0,
            transition.to.as_str(),
            transition.reason
        );
        self.show_event(transition);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot wait for the kernel's records: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot read what this process uses: {0}")]
    Process(#[from] procfs::ProcError),
    #[error("cannot look up single sockets: {0}")]
    OwnerLookup(#[from] FindError),
}

impl From<FrameStreamError> for DaemonError {
    fn from(error: FrameStreamError) -> Self {
        match error {
            FrameStreamError::Load(error) => Self::Load(error),
            FrameStreamError::Runtime(error) => Self::Runtime(error),
        }
    }
}

/// The name of a listener. Every alert of the core has a listener.
fn name_of(listeners: &[ListenerConfig], id: ListenerId) -> &str {
    let listener = listeners.get(id.index());
    listener.map_or("", |listener| &listener.rules.name)
}

fn both_clocks() -> Now {
    Now {
        at: clock::now(),
        ts: Timestamp::now(),
    }
}

/// Converts to the runtime's clock, which is CLOCK_MONOTONIC too, with another origin.
fn instant(at: Ktime) -> Instant {
    Instant::now() + at.since(clock::now())
}

/// Waits for a task; pends forever if there is none.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
