//! The shell around the core: it owns the kernel side and the clock, and turns records, snapshots
//! and questions into calls on the core, and the core's actions into alerts.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::{Duration, Instant},
};

use tokio::{
    io::unix::AsyncFd,
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    config::listeners::Listener,
    daemon::reaper::Reaping,
    daemon::reconcile::{Reconciler, Seeded, SocketScan},
    daemon::state::StateFile,
    kernel::{
        clock,
        loader::{LoadError, Loaded},
        maps::{Drops, Ring, Snapshots, Stats},
        netns::NetNsError,
        socket_finder::FindError,
    },
    records::frame_stream::{FrameStream, FrameStreamError},
    sink::{
        Sinks,
        control::{self as control_socket, EventViewers, History},
        http::MetricsRequest,
    },
};
use monitor_core::{
    Action, Correlator, Grouping, KnownHop, Ktime, ListenerId, Notice, StormSetup, Transition,
    reap::ReapSettings, storm::StormSettings,
};

mod control;
mod drain;
mod losses;
mod owner_lookup;
pub mod reaper;
pub mod reconcile;
mod scrape;
pub mod state;
mod state_writer;
mod stats_poll;
mod sweep;

use drain::Vital;
use losses::Degradation;
use owner_lookup::OwnerLookup;
use state_writer::StateWriter;
use stats_poll::StatsPoll;
use sweep::Sweeps;

/// A record is stamped before it is committed: a program that was interrupted in between commits
/// a moment late. Time is shown to the core this much behind the clock.
const COMMIT_SLACK: Duration = Duration::from_millis(10);

/// The kernel programs read a clock that ticks with the scheduler: at most 10 ms (HZ=100).
pub const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);

/// A scan of all sockets costs more than 1 µs each: it is repeated so that it takes a 66th of a CPU's
/// time, within these bounds.
const SCAN_SHARE: u32 = 66;
const MIN_SCAN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_SCAN_INTERVAL: Duration = Duration::from_secs(240);

/// Records wake the daemon at most once in this time. The ring holds about 21,000 of them.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// Connections that are looked at in one tick: some milliseconds.
const INSPECTIONS_AT_ONCE: usize = 4096;

/// What the daemon does beside watching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// That of the loaded programs.
    pub publish_interval: Duration,
    pub reap: ReapSettings,
    /// Whether a client is who a proxy says, in alerts too: personal data.
    pub client_address: bool,
}

/// New rules for the listeners that are watched: the same ones in the same order.
pub struct Reload {
    pub listeners: Vec<Listener>,
    /// Hears whether they came into force.
    pub reply: oneshot::Sender<Result<(), LoadError>>,
}

/// The running daemon. Dropping it detaches everything.
pub struct Daemon {
    listeners: Vec<Listener>,
    core: Correlator,
    /// Between the core's alerts and the line-based outputs.
    grouping: Grouping,
    vitals: AsyncFd<Ring>,
    handshakes: AsyncFd<Ring>,
    /// Vitals that are read and not yet reported. Empty between drains; it keeps its room.
    waiting: Vec<Vital>,
    snapshots: Snapshots,
    stats: Stats,
    drops: Drops,
    sinks: Sinks,
    owner_lookup: OwnerLookup,
    reaping: Reaping,
    stats_poll: StatsPoll,
    sweeps: Sweeps,
    state_writer: StateWriter,
    reconciler: Reconciler,
    frame_stream: FrameStream,
    events: EventViewers,
    history: History,
    undecodable: u64,
    undecodable_handshakes: u64,
    /// Connections older than the programs that found no room.
    untracked_at_start: u64,
    degradation: Degradation,
    kernel_release: String,
    /// Keeps the programs attached.
    loaded: Loaded,
}

impl Daemon {
    /// Takes over loaded and attached programs. Must be called within a tokio runtime.
    pub fn new(
        mut loaded: Loaded,
        listeners: Vec<Listener>,
        settings: DaemonSettings,
        sinks: Sinks,
        state: Option<StateFile>,
    ) -> Result<Self, DaemonError> {
        let vitals = Ring::vitals(&mut loaded)?
            .watched()
            .map_err(DaemonError::Runtime)?;
        let handshakes = Ring::handshakes(&mut loaded)?
            .watched()
            .map_err(DaemonError::Runtime)?;
        let rules = listeners
            .iter()
            .map(|listener| listener.rules.clone())
            .collect();
        let storms = StormSetup {
            settings: StormSettings {
                // Nobody can choose addresses that make its tables slow.
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
        Ok(Self {
            core: Correlator::new(rules, staleness).with_storms(&storms),
            state_writer: StateWriter::new(state),
            owner_lookup: OwnerLookup::new(settings.client_address)?,
            reaping: Reaping::new(settings.reap),
            stats_poll: StatsPoll::of(&listeners),
            sweeps: Sweeps::of(&listeners),
            grouping: Grouping::default(),
            vitals,
            handshakes,
            waiting: Vec::new(),
            snapshots: Snapshots::take(&mut loaded)?,
            stats: Stats::take(&mut loaded)?,
            drops: Drops::take(&mut loaded)?,
            sinks,
            reconciler: Reconciler::default(),
            frame_stream: FrameStream::take(&mut loaded)?,
            events: EventViewers::default(),
            history: History::default(),
            undecodable: 0,
            undecodable_handshakes: 0,
            untracked_at_start: 0,
            degradation: Degradation::default(),
            kernel_release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            listeners,
            loaded,
        })
    }

    /// Middleboxes whose names may explain a timeout that is learned.
    pub fn set_known_hops(&mut self, known: Vec<KnownHop>) {
        self.core.handle_known_hops(known);
    }

    /// Finds the connections that are older than the programs. Blocks for some microseconds each; the
    /// rings are read all the while.
    pub fn seed(&mut self) -> Result<Seeded, NetNsError> {
        let older = self
            .reconciler
            .find_older(&self.listeners, &mut self.core)?;
        while let Some(slice) = older.next() {
            self.reconciler
                .seed(slice, &mut self.snapshots, &mut self.core);
            self.tick();
        }
        let seeded = self.reconciler.end_seeding(older)?;
        self.untracked_at_start += seeded.untracked as u64;
        Ok(seeded)
    }

    /// Runs until `stop` resolves. `rotated` says that the alert log has been moved away.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<MetricsRequest>,
        mut controls: mpsc::Receiver<control_socket::ControlRequest>,
        mut rotated: Signal,
        mut reloads: mpsc::Receiver<Reload>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        tokio::pin!(stop);
        let mut scan: Option<SocketScan> = None;
        // At once: some of the connections that were seeded may have closed meanwhile.
        let mut scan_at = Instant::now();
        let mut drained = scan_at;
        loop {
            let deadlines = [
                self.core.poll_timeout(),
                self.grouping.poll_timeout(),
                self.reaping.poll_timeout(),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            let deadline = deadline.map(|at| instant(at + COMMIT_SLACK));
            tokio::select! {
                () = &mut stop => {
                    self.grouping.flush();
                    self.emit_notices();
                    self.write_final_state().await;
                    return Ok(());
                }
                Some(()) = rotated.recv() => self.sinks.reopen(),
                ready = readable(&mut self.vitals, &mut self.handshakes) => {
                    ready.map_err(DaemonError::Runtime)?;
                    // In a rush one drain serves many records; a lone one is not kept waiting.
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                ready = self.frame_stream.ready() => {
                    ready.map_err(DaemonError::Runtime)?;
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                () = sleep_until(deadline) => {}
                // What is left of a large piece of work takes turns with everything else.
                () = tokio::task::yield_now(), if self.is_behind() => {}
                Some(request) = controls.recv() => {
                    self.tick();
                    self.respond_to_control(request);
                }
                Some(request) = requests.recv() => {
                    // The answer holds what had happened when it was asked for.
                    self.tick();
                    self.respond(request);
                }
                Some(Reload { listeners, reply }) = reloads.recv() => {
                    // Whoever asked may be gone by now; that is its affair.
                    drop(reply.send(self.apply_rules(listeners)));
                }
                () = tokio::time::sleep_until(self.stats_poll.next.into()) => self.poll_stats(),
                () = sleep_until(self.sweeps.due()) => {}
                () = sleep_until(self.state_writer.due()) => self.write_state(),
                written = self.state_writer.written() => self.state_writer.finish_write(written),
                () = tokio::time::sleep_until(scan_at.into()), if scan.is_none() => {
                    self.notice_losses();
                    scan = Some(self.reconciler.start_scan(&self.listeners));
                }
                result = finished(&mut scan) => {
                    scan = None;
                    let cost = self.reconciler.finish(result, &mut self.core);
                    let interval = cost.unwrap_or_default() * SCAN_SHARE;
                    scan_at = Instant::now() + interval.clamp(MIN_SCAN_INTERVAL, MAX_SCAN_INTERVAL);
                    self.owner_lookup.forget(&self.core);
                    log::logger().flush();
                }
            }
            self.tick();
        }
    }

    /// Goes on under new rules, with every connection it has.
    fn apply_rules(&mut self, listeners: Vec<Listener>) -> Result<(), LoadError> {
        self.loaded.set_limits(&listeners)?;
        self.sweeps = Sweeps::of(&listeners);
        self.snapshots.restart_sweep();
        // Until the first of them, each connection has a deadline.
        self.core.expect_sweeps(None);
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        self.core.handle_rules(rules.collect());
        self.stats_poll = StatsPoll::of(&listeners);
        self.listeners = listeners;
        Ok(())
    }

    /// Whether the last tick left something undone.
    fn is_behind(&self) -> bool {
        self.core.wants_inspection() || self.reconciler.is_behind()
    }

    /// One tick: the clock, then the rings, then the core's deadlines and wishes. In this order a
    /// deadline is never judged without a record that is older than it. What concerns very many
    /// connections is done over several ticks, so that no ring waits for all of it.
    fn tick(&mut self) {
        let sampled = clock::now();
        self.drain();
        self.core.handle_timeout(sampled - COMMIT_SLACK);
        self.sweep();
        self.reconciler.step(&mut self.snapshots, &mut self.core);
        for _ in 0..INSPECTIONS_AT_ONCE {
            let Some(conn) = self.core.poll_inspect() else {
                break;
            };
            match self.snapshots.get(conn) {
                Ok(facts) => self.core.handle_snapshot(conn, facts.map(Box::new)),
                Err(error) => {
                    self.undecodable += 1;
                    log::warn!("socket {}: {error}", conn.0);
                    self.core.handle_snapshot(conn, None);
                }
            }
        }
        if self.core.wants_deliveries() {
            self.stats_poll.hurry();
        }
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => {
                    let listener = name_of(&self.listeners, alert.listener);
                    self.sinks.follow(&alert, listener);
                    self.reaping.offer(&alert);
                    self.grouping.offer(alert);
                }
                Action::ListenerAlert(alert) => {
                    let listener = name_of(&self.listeners, alert.listener);
                    self.sinks.follow_listener(&alert, listener);
                    self.grouping.pass(Notice::Listener(alert));
                }
                Action::Storm(alert) => {
                    let listener = name_of(&self.listeners, alert.listener);
                    self.sinks.follow_storm(&alert, listener);
                    self.grouping.pass(Notice::Storm(alert));
                }
                Action::Transition(transition) => self.transition(&transition),
                Action::Reconcile => self.reconciler.compare_with_snapshots(&self.core),
            }
        }
        self.grouping.handle_timeout(sampled - COMMIT_SLACK);
        self.emit_notices();
        self.reaping
            .tick(sampled, &mut self.core, &mut self.owner_lookup.finder);
        self.show_frames();
    }

    fn emit_notices(&mut self) {
        let mut notices: Vec<_> = std::iter::from_fn(|| self.grouping.poll_notice()).collect();
        self.owner_lookup.complete(&mut notices, &self.core);
        for notice in &notices {
            let listener = name_of(&self.listeners, notice.listener());
            self.sinks.emit(notice, listener);
        }
    }

    /// A connection went from one state to the next.
    fn transition(&mut self, transition: &Transition) {
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
    #[error("cannot ask about single sockets: {0}")]
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

/// The name of a listener; every alert of the core has one.
fn name_of(listeners: &[Listener], id: ListenerId) -> &str {
    let listener = listeners.get(usize::from(id.0));
    listener.map_or("", |listener| &listener.rules.name)
}

/// The runtime's clock is CLOCK_MONOTONIC as well, with another origin.
fn instant(at: Ktime) -> Instant {
    Instant::now() + at.since(clock::now())
}

/// Waits until one of the rings has records. Cleared before the drain: a record committed after it
/// wakes us again.
async fn readable(vitals: &mut AsyncFd<Ring>, handshakes: &mut AsyncFd<Ring>) -> io::Result<()> {
    tokio::select! {
        ready = vitals.readable_mut() => ready?.clear_ready(),
        ready = handshakes.readable_mut() => ready?.clear_ready(),
    }
    Ok(())
}

/// Waits for a task that may not have been started.
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
