//! The shell around the core: it owns the kernel side and the clock, and turns records, snapshots
//! and questions into calls on the core, and the core's actions into alerts.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::{Duration, Instant},
};

use monitor_common::drop::DropReason;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    core::{
        Action, Closed, Correlator, Event, Grouping, KnownHop, Ktime, ListenerId, Notice,
        StormSetup, Transition, reap::ReapSettings, storm::StormSettings,
    },
    kernel::{
        clock,
        decode::{self, DecodeError},
        load::{LoadError, Loaded},
        lookup::FindError,
        maps::{Drops, Ring, Snapshots, Stats},
        netns::NetNsError,
    },
    listeners::Listener,
    reaper::Reaping,
    reconcile::{Look, Reconciler, Seeded},
    sink::{
        Sinks,
        control::{self as control_socket, EventViewers, History},
        http::Question,
        metrics::{self, Losses, ProgramRuns, Scrape},
    },
    state::StateFile,
    tap::{FrameTap, TapError},
};

mod background;
mod control;
mod silences;
mod state;
mod sweep;

use background::Inquiry;
use silences::Pace;
use state::Keeper;
use sweep::Sweeps;

/// A record is stamped before it is committed: a program that was interrupted in between commits
/// a moment late. Time is shown to the core this much behind the clock.
const COMMIT_SLACK: Duration = Duration::from_millis(10);

/// The kernel programs read a clock that ticks with the scheduler: at most 10 ms (HZ=100).
pub const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);

/// A look at all sockets costs about 2 µs each: it is repeated so that it takes a fiftieth of a CPU's time,
/// within these bounds.
const LOOK_SHARE: u32 = 50;
const MIN_LOOK_INTERVAL: Duration = Duration::from_secs(10);
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(120);

/// Records wake the daemon at most once in this time. The ring holds about 21,000 of them.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// Vitals that wait in memory while handshakes are drained.
const VITALS_AT_ONCE: usize = 1024;

/// Connections that are looked at in one turn: some milliseconds.
const INSPECTIONS_AT_ONCE: usize = 4096;

/// Records in one drain after which the ring may well have been full.
const BIG_DRAIN: usize = 4096;

/// How long a loss keeps `wsmon_degraded` up.
const DEGRADED_FOR: Duration = Duration::from_secs(300);

/// What a record of the vitals ring says, and the last words of a connection in it.
type Vital = (Result<Event, DecodeError>, Option<Box<Closed>>);

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
    pub answer: oneshot::Sender<Result<(), LoadError>>,
}

/// The running daemon. Dropping it detaches everything.
pub struct Daemon {
    listeners: Vec<Listener>,
    core: Correlator,
    /// Between the core's alerts and those who are told line by line.
    grouping: Grouping,
    vitals: AsyncFd<Ring>,
    handshakes: AsyncFd<Ring>,
    /// Vitals that are read and not yet told. Empty between drains; it keeps its room.
    waiting: Vec<Vital>,
    snapshots: Snapshots,
    stats: Stats,
    drops: Drops,
    sinks: Sinks,
    inquiry: Inquiry,
    reaping: Reaping,
    silences: Pace,
    sweeps: Sweeps,
    keeper: Keeper,
    reconciler: Reconciler,
    tap: FrameTap,
    events: EventViewers,
    history: History,
    undecodable: u64,
    undecodable_handshakes: u64,
    /// Connections older than the programs that found no room.
    no_room_at_start: u64,
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
            keeper: Keeper::new(state),
            inquiry: Inquiry::new(settings.client_address)?,
            reaping: Reaping::new(settings.reap),
            silences: Pace::of(&listeners),
            sweeps: Sweeps::of(&listeners),
            grouping: Grouping::default(),
            vitals,
            handshakes,
            waiting: Vec::with_capacity(VITALS_AT_ONCE),
            snapshots: Snapshots::take(&mut loaded)?,
            stats: Stats::take(&mut loaded)?,
            drops: Drops::take(&mut loaded)?,
            sinks,
            reconciler: Reconciler::default(),
            tap: FrameTap::take(&mut loaded)?,
            events: EventViewers::default(),
            history: History::default(),
            undecodable: 0,
            undecodable_handshakes: 0,
            no_room_at_start: 0,
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
    pub fn know_hops(&mut self, known: Vec<KnownHop>) {
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
            self.turn();
        }
        let seeded = self.reconciler.end_seeding(older)?;
        self.no_room_at_start += seeded.untracked as u64;
        Ok(seeded)
    }

    /// Runs until `stop` resolves. `rotated` says that the alert log has been moved away.
    pub async fn run(
        mut self,
        mut questions: mpsc::Receiver<Question>,
        mut controls: mpsc::Receiver<control_socket::Question>,
        mut rotated: Signal,
        mut reloads: mpsc::Receiver<Reload>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        tokio::pin!(stop);
        let mut look: Option<Look> = None;
        // At once: some of the connections that were seeded may have closed meanwhile.
        let mut look_at = Instant::now();
        let mut drained = look_at;
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
                    self.tell();
                    self.keep_state_at_the_end().await;
                    return Ok(());
                }
                Some(()) = rotated.recv() => self.sinks.reopen(),
                ready = readable(&mut self.vitals, &mut self.handshakes) => {
                    ready.map_err(DaemonError::Runtime)?;
                    // In a rush one drain serves many records; a lone one is not kept waiting.
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                ready = self.tap.ready() => {
                    ready.map_err(DaemonError::Runtime)?;
                    tokio::time::sleep_until((drained + DRAIN_INTERVAL).into()).await;
                    drained = Instant::now();
                }
                () = sleep_until(deadline) => {}
                // What is left of a large piece of work takes turns with everything else.
                () = tokio::task::yield_now(), if self.is_behind() => {}
                Some(question) = controls.recv() => {
                    self.turn();
                    self.answer_control(question);
                }
                Some(question) = questions.recv() => {
                    // The answer holds what had happened when it was asked for.
                    self.turn();
                    self.answer(question);
                }
                Some(Reload { listeners, answer }) = reloads.recv() => {
                    // Whoever asked may be gone by now; that is its affair.
                    drop(answer.send(self.adopt(listeners)));
                }
                () = tokio::time::sleep_until(self.silences.next.into()) => self.read_silences(),
                () = sleep_until(self.sweeps.due()) => {}
                () = sleep_until(self.keeper.due()) => self.keep_state(),
                written = self.keeper.written() => self.keeper.take_back(written),
                () = tokio::time::sleep_until(look_at.into()), if look.is_none() => {
                    self.notice_losses();
                    look = Some(self.reconciler.look(&self.listeners));
                }
                looked = finished(&mut look) => {
                    look = None;
                    let cost = self.reconciler.finish(looked, &mut self.core);
                    let pace = cost.unwrap_or_default() * LOOK_SHARE;
                    look_at = Instant::now() + pace.clamp(MIN_LOOK_INTERVAL, MAX_LOOK_INTERVAL);
                    self.inquiry.forget(&self.core);
                }
            }
            self.turn();
        }
    }

    /// Goes on under new rules, with every connection it has.
    fn adopt(&mut self, listeners: Vec<Listener>) -> Result<(), LoadError> {
        self.loaded.set_limits(&listeners)?;
        self.sweeps = Sweeps::of(&listeners);
        self.snapshots.restart_sweep();
        // Until the first of them, each connection has a deadline.
        self.core.expect_sweeps(None);
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        self.core.handle_rules(rules.collect());
        self.silences = Pace::of(&listeners);
        self.listeners = listeners;
        Ok(())
    }

    /// Whether the last turn left something undone.
    fn is_behind(&self) -> bool {
        self.core.wants_inspection() || self.reconciler.is_behind()
    }

    /// One turn: the clock, then the rings, then the core's deadlines and wishes. In this order a
    /// deadline is never judged without a record that is older than it. What concerns very many
    /// connections is done over several turns, so that no ring waits for all of it.
    fn turn(&mut self) {
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
            self.silences.hurry();
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
        self.tell();
        self.reaping
            .turn(sampled, &mut self.core, &mut self.inquiry.finder);
        self.show_frames();
    }

    fn tell(&mut self) {
        let mut notices: Vec<_> = std::iter::from_fn(|| self.grouping.poll_notice()).collect();
        self.inquiry.complete(&mut notices, &self.core);
        for notice in &notices {
            let listener = name_of(&self.listeners, notice.listener());
            self.sinks.tell(notice, listener);
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

    /// Empties both rings. A record that makes no sense is counted and never stops the loop.
    fn drain(&mut self) {
        let mut records = 0;
        loop {
            // Vitals are read before the handshakes and told after them: so the end of a handshake
            // is never told before its beginning.
            self.read_vitals();
            self.drain_handshakes();
            if self.waiting.is_empty() {
                break;
            }
            records += self.waiting.len();
            let mut waiting = std::mem::take(&mut self.waiting);
            for (event, closed) in waiting.drain(..) {
                if let Some(closed) = closed {
                    self.remember(*closed);
                }
                self.tell_vital(event);
            }
            self.waiting = waiting;
        }
        if records >= BIG_DRAIN {
            self.notice_losses();
        }
    }

    fn read_vitals(&mut self) {
        let ring = self.vitals.get_mut();
        let read = std::iter::from_fn(|| {
            ring.next(|record| (decode::vital(record), decode::closed(record)))
        });
        self.waiting.extend(read.take(VITALS_AT_ONCE));
    }

    fn drain_handshakes(&mut self) {
        let ring = self.handshakes.get_mut();
        while let Some(event) = ring.next(decode::handshake) {
            match event {
                Ok(event) => self.core.handle_event(event),
                Err(error) => {
                    self.undecodable_handshakes += 1;
                    log::warn!("a record of the handshakes ring: {error}");
                }
            }
        }
    }

    fn tell_vital(&mut self, event: Result<Event, DecodeError>) {
        match event {
            Ok(event) => {
                // The kernel removed its snapshot too, unless it was seeded a moment ago.
                if let Some(conn) = event.ends()
                    && let Err(error) = self.reconciler.forget(conn, &mut self.snapshots)
                {
                    log::warn!("socket {}: {error}", conn.0);
                }
                self.core.handle_event(event);
            }
            Err(error) => {
                self.undecodable += 1;
                log::warn!("a record of the vitals ring: {error}");
            }
        }
    }

    /// Tells the core of vitals that the ring had no room for.
    fn notice_losses(&mut self) -> Losses {
        let losses = self.losses();
        if let Some(records) = self.degradation.new_vitals_lost(&losses) {
            let at = clock::now();
            self.core.handle_event(Event::Lost { records, at });
        }
        self.degradation.update(&losses, clock::now());
        losses
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may be gone by now; that is its affair.
        match question {
            Question::Ready(answer) => drop(answer.send(true)),
            Question::Metrics(answer) => match self.scrape() {
                Ok(text) => drop(answer.send(text)),
                Err(error) => log::error!("cannot answer a scrape: {error}"),
            },
        }
    }

    fn scrape(&mut self) -> Result<String, ScrapeError> {
        let losses = self.notice_losses();
        let stats = self.stats.read()?;
        self.tell_silences(&stats);
        Ok(metrics::render(&Scrape {
            listeners: &self.listeners,
            stats: &stats,
            tallies: self.core.tally(),
            losses: &losses,
            degraded: self.degradation.is_degraded(clock::now()),
            frame_viewers: self.tap.viewers(),
            rings: [
                ("vitals", self.vitals.get_ref().fill()),
                ("handshakes", self.handshakes.get_ref().fill()),
                ("samples", self.tap.ring_fill()),
            ],
            tracked: self.core.len(),
            max_connections: self.snapshots.max_entries(),
            programs: &self.program_runs(),
            kernel: &self.kernel_release,
        })?)
    }

    fn losses(&self) -> Losses {
        Losses {
            kernel: DropReason::ALL.map(|reason| {
                self.drops.read(reason).unwrap_or_else(|error| {
                    log::warn!("cannot read the drop counters: {error}");
                    0
                })
            }),
            no_room_at_start: self.no_room_at_start,
            undecodable: self.undecodable + self.core.rejected(),
            undecodable_handshakes: self.undecodable_handshakes,
            untold: self.sinks.untold(),
        }
    }

    /// The kernel counts runs only while `kernel.bpf_stats_enabled` is on.
    fn program_runs(&self) -> Vec<ProgramRuns> {
        let enabled = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
            .is_ok_and(|value| value.trim() == "1");
        if !enabled {
            return Vec::new();
        }
        let mut programs: Vec<_> = self
            .loaded
            .programs()
            .map(|(name, info)| ProgramRuns {
                name: name.to_owned(),
                runs: info.run_count(),
                seconds: info.run_time().as_secs_f64(),
            })
            .collect();
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        programs
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot wait for the kernel's records: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot ask about single sockets: {0}")]
    Inquiry(#[from] FindError),
}

impl From<TapError> for DaemonError {
    fn from(error: TapError) -> Self {
        match error {
            TapError::Load(error) => Self::Load(error),
            TapError::Runtime(error) => Self::Runtime(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Map(#[from] aya::maps::MapError),
    #[error(transparent)]
    Encode(#[from] prometheus::Error),
}

/// Remembers what was lost, and when last.
#[derive(Debug, Default)]
struct Degradation {
    seen: Losses,
    vitals_told: u64,
    last_loss: Option<Ktime>,
}

impl Degradation {
    fn update(&mut self, losses: &Losses, now: Ktime) {
        if losses.total() > self.seen.total() {
            self.last_loss = Some(now);
            self.seen = losses.clone();
        }
    }

    /// Vitals that were lost since this was last asked.
    fn new_vitals_lost(&mut self, losses: &Losses) -> Option<u64> {
        let lost = losses.kernel[DropReason::VitalsFull as usize];
        let new = lost.saturating_sub(self.vitals_told);
        self.vitals_told = lost;
        (new > 0).then_some(new)
    }

    fn is_degraded(&self, now: Ktime) -> bool {
        self.last_loss
            .is_some_and(|last| now.since(last) < DEGRADED_FOR)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_rises_with_a_loss_and_falls_five_minutes_after_the_last() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        let start = Ktime(1_000_000_000);
        degradation.update(&losses, start);
        assert!(!degradation.is_degraded(start));
        losses.kernel[DropReason::SnapshotsFull as usize] = 1;
        degradation.update(&losses, start);
        degradation.update(&losses, start + Duration::from_secs(299));
        assert!(degradation.is_degraded(start + Duration::from_secs(299)));
        assert!(!degradation.is_degraded(start + Duration::from_secs(300)));
    }

    #[test]
    fn a_lost_vital_is_told_to_the_core_once() {
        let mut degradation = Degradation::default();
        let mut losses = Losses::default();
        losses.kernel[DropReason::VitalsFull as usize] = 5;
        assert_eq!(degradation.new_vitals_lost(&losses), Some(5));
        assert_eq!(degradation.new_vitals_lost(&losses), None);
    }
}
