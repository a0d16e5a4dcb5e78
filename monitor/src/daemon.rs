//! The shell around the core. It owns the kernel side and the clock, feeds records, snapshots and
//! requests to the core, and turns the core's actions into alerts.

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
    kernel::{
        clock,
        loader::{LoadError, Loaded},
        maps::{Drops, Ring, Snapshots, Stats},
        netns::NetNsError,
        socket_finder::FindError,
    },
    sink::{
        Sinks,
        control::{self as control_socket, EventViewers, History},
        http::MetricsRequest,
    },
};
use monitor_core::{
    Action, Correlator, Grouping, KnownHop, Ktime, ListenerId, StormSetup, Transition,
    reap::ReapSettings, storm::StormSettings,
};

mod control;
mod drain;
pub mod frame_stream;
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
use frame_stream::{FrameStream, FrameStreamError};
use losses::Degradation;
use owner_lookup::OwnerLookup;
use reaper::Reaping;
use reconcile::{Reconciler, Seeded, SocketScan};
use state::StateFile;
use state_writer::StateWriter;
use stats_poll::StatsPoll;
use sweep::Sweeps;

/// A record is stamped before it is committed, so a program interrupted in between commits a moment
/// late. The core's clock therefore runs this much behind the real one.
const COMMIT_SLACK: Duration = Duration::from_millis(10);

/// Granularity of the kernel programs' clock, which advances with the scheduler tick: at most 10 ms
/// (HZ=100).
pub const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);

/// A scan of all sockets costs more than 1 µs per socket. The interval between scans keeps their cost
/// at 1/66 of a CPU, within these bounds.
const SCAN_SHARE: u32 = 66;
const MIN_SCAN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_SCAN_INTERVAL: Duration = Duration::from_secs(240);

/// Minimum time between two drains. The ring holds about 21,000 records.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum number of connections to inspect in one tick, which takes some milliseconds.
const INSPECTIONS_AT_ONCE: usize = 4096;

/// Settings of the daemon other than the listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The publish interval of the loaded programs.
    pub publish_interval: Duration,
    pub reap: ReapSettings,
    /// Whether to show the client address that a proxy reports, in alerts too. This is personal data.
    pub client_address: bool,
}

/// New rules for the watched listeners, which must be the same ones in the same order.
pub struct Reload {
    pub listeners: Vec<Listener>,
    /// Receives the result of applying the rules.
    pub reply: oneshot::Sender<Result<(), LoadError>>,
}

/// The running daemon. Dropping it detaches everything.
pub struct Daemon {
    listeners: Vec<Listener>,
    core: Correlator,
    /// Groups the core's alerts for the line-based outputs.
    grouping: Grouping,
    vitals: AsyncFd<Ring>,
    handshakes: AsyncFd<Ring>,
    /// Vitals that were read and not yet reported. Empty between drains; kept for its capacity.
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
    /// Connections older than the programs for which the snapshot map had no room.
    untracked_at_start: u64,
    degradation: Degradation,
    kernel_release: String,
    /// Keeps the programs attached.
    loaded: Loaded,
}

impl Daemon {
    /// Takes ownership of loaded and attached programs. Must be called within a tokio runtime.
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

    /// Sets the middleboxes whose names may explain a learned timeout.
    pub fn set_known_hops(&mut self, known: Vec<KnownHop>) {
        self.core.handle_known_hops(known);
    }

    /// Finds the connections older than the programs. Blocks for some microseconds per connection and
    /// reads the rings meanwhile.
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

    /// Runs until `stop` resolves. `rotated` signals that the alert log was moved away.
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
        // Scan immediately: some of the seeded connections may have closed meanwhile.
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
                    self.emit_alerts();
                    self.write_final_state().await;
                    return Ok(());
                }
                Some(()) = rotated.recv() => self.sinks.reopen(),
                ready = readable(&mut self.vitals, &mut self.handshakes) => {
                    ready.map_err(DaemonError::Runtime)?;
                    // In a burst one drain serves many records; a single record is not delayed.
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                ready = self.frame_stream.ready() => {
                    ready.map_err(DaemonError::Runtime)?;
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                () = sleep_until(deadline) => {}
                // The rest of a large piece of work alternates with everything else.
                () = tokio::task::yield_now(), if self.is_behind() => {}
                Some(request) = controls.recv() => {
                    self.tick();
                    self.respond_to_control(request);
                }
                Some(request) = requests.recv() => {
                    // The response includes everything that happened before the request.
                    self.tick();
                    self.respond(request);
                }
                Some(Reload { listeners, reply }) = reloads.recv() => {
                    // The requester may have gone.
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

    /// Applies new rules to all connections, old and new.
    fn apply_rules(&mut self, listeners: Vec<Listener>) -> Result<(), LoadError> {
        self.loaded.set_limits(&listeners)?;
        self.sweeps = Sweeps::of(&listeners);
        self.snapshots.restart_sweep();
        // Until the first sweep, each connection has a deadline.
        self.core.expect_sweeps(None);
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        self.core.handle_rules(rules.collect());
        self.stats_poll = StatsPoll::of(&listeners);
        self.listeners = listeners;
        Ok(())
    }

    /// Whether the last tick left work undone.
    fn is_behind(&self) -> bool {
        self.core.wants_inspection() || self.reconciler.is_behind()
    }

    /// One tick: first the clock, then the rings, then the core's deadlines and actions. In this order,
    /// no deadline is judged before a record older than it. Work on very many connections is spread
    /// over several ticks, so that it does not delay the rings.
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
                Action::Transition(transition) => self.transition(&transition),
                Action::Reconcile => self.reconciler.compare_with_snapshots(&self.core),
            }
        }
        self.grouping.handle_timeout(sampled - COMMIT_SLACK);
        self.emit_alerts();
        self.reaping
            .tick(sampled, &mut self.core, &mut self.owner_lookup.finder);
        self.show_frames();
    }

    fn emit_alerts(&mut self) {
        let mut alerts: Vec<_> = std::iter::from_fn(|| self.grouping.poll_alert()).collect();
        self.owner_lookup.complete(&mut alerts, &self.core);
        for alert in &alerts {
            self.sinks
                .emit(alert, name_of(&self.listeners, alert.listener));
        }
    }

    /// Reports a connection's change of state.
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
fn name_of(listeners: &[Listener], id: ListenerId) -> &str {
    let listener = listeners.get(usize::from(id.0));
    listener.map_or("", |listener| &listener.rules.name)
}

/// Converts to the runtime's clock, which is CLOCK_MONOTONIC too, with another origin.
fn instant(at: Ktime) -> Instant {
    Instant::now() + at.since(clock::now())
}

/// Waits until one of the rings has records. Readiness is cleared before the drain, so a record
/// committed after it wakes the daemon again.
async fn readable(vitals: &mut AsyncFd<Ring>, handshakes: &mut AsyncFd<Ring>) -> io::Result<()> {
    tokio::select! {
        ready = vitals.readable_mut() => ready?.clear_ready(),
        ready = handshakes.readable_mut() => ready?.clear_ready(),
    }
    Ok(())
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
