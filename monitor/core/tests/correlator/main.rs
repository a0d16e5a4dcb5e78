//! The core against a simulated kernel: its alerts are those of a full scan and never early. They
//! do not depend on how often the time advances, can be replayed, and come to an end.

mod garbage;
mod handshakes;
mod kernel;
mod oracle;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use monitor_core::{
    Action, Alert, AlertResolution, Certainty, CloseHow, ConnId, ConnectionVerdict, Correlator,
    Event, Facts, Ktime, ListenerId, ListenerRules, Status, Subject, VerdictKind, WorkloadName,
    loss::Loss, rules::pace_of_pongs,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use garbage::{CONNS, Garbage, garbage};
use kernel::{Moment, Op, STALENESS, Script};
use oracle::ReportedAlert;

/// How much later than the naive scan the core may report: the interval of the checks for
/// conditions that no event announces, and a step of the scan.
fn lateness(rules: &ListenerRules) -> Duration {
    pace_of_pongs(rules.ping_timeout) + SCAN_STEP
}

/// Six connections for some minutes, with a check per second, need a fraction of this.
const MAX_CHECKS: usize = 20_000;
const SCAN_STEP: Duration = Duration::from_millis(10);
const TAIL: Duration = Duration::from_secs(20);

/// The shell without its kernel: merges a timeline with the core's deadlines.
struct Shell {
    core: Correlator,
    snapshots: BTreeMap<ConnId, Facts>,
    actions: Vec<Action>,
    checks: usize,
    /// If all snapshots are swept: how often, and when next.
    sweep: Option<(Duration, Ktime)>,
}

impl Shell {
    fn new() -> Self {
        let core = Correlator::new(kernel::rules(), STALENESS).with_workloads(2);
        Self {
            core,
            snapshots: BTreeMap::new(),
            actions: Vec::new(),
            checks: 0,
            sweep: None,
        }
    }

    fn sweeping(every: Duration, first: Ktime) -> Self {
        let mut shell = Self::new();
        shell.core.expect_sweeps(Some(every));
        shell.sweep = Some((every, first));
        shell
    }

    /// Advances the time at the core's deadlines and at every moment of `extra`.
    fn run(&mut self, timeline: &[Moment], end: Ktime, extra: &BTreeSet<Ktime>) {
        let mut extra = extra.iter().copied().peekable();
        let mut timeline = timeline.iter().peekable();
        loop {
            let deadline = self.core.poll_timeout().unwrap_or(Ktime::NEVER);
            let show = extra.peek().map_or(deadline, |at| deadline.min(*at));
            let show = self.sweep.map_or(show, |(_, at)| show.min(at));
            if let Some(moment) = timeline.next_if(|moment| moment.at <= show.min(end)) {
                self.take_in(moment);
            } else if show <= end {
                extra.next_if(|at| *at <= show);
                self.show(show);
            } else {
                break;
            }
        }
    }

    fn take_in(&mut self, moment: &Moment) {
        match &moment.truth {
            Some(truth) if moment.published => {
                self.snapshots.insert(moment.conn, truth.clone());
            }
            Some(_) => {}
            None => {
                self.snapshots.remove(&moment.conn);
            }
        }
        for event in &moment.events {
            self.core.handle_event(event.clone());
        }
        self.act();
    }

    fn show(&mut self, now: Ktime) {
        self.core.handle_timeout(now);
        if let Some((every, at)) = &mut self.sweep
            && *at <= now
        {
            *at = now + *every;
            for facts in self.snapshots.values() {
                self.core.handle_swept(facts);
            }
        }
        while let Some(conn) = self.core.poll_inspect() {
            self.checks += 1;
            assert!(self.checks < MAX_CHECKS, "a busy loop at {now}");
            let facts = self.snapshots.get(&conn).cloned().map(Box::new);
            self.core.handle_snapshot(conn, facts);
        }
        self.act();
    }

    fn act(&mut self) {
        self.actions
            .extend(std::iter::from_fn(|| self.core.poll_action()));
    }

    /// Follows the deadlines until none is left, and returns their number.
    fn settle(&mut self, most: usize) -> Option<usize> {
        for step in 0..most {
            let Some(at) = self.core.poll_timeout() else {
                return Some(step);
            };
            self.show(at);
        }
        None
    }

    /// The alerts on connections.
    fn alerts(&self) -> impl Iterator<Item = (&Alert, &ConnectionVerdict)> {
        self.actions.iter().filter_map(|action| match action {
            Action::Alert(alert) => match &alert.subject {
                Subject::Connection(verdict) => Some((alert, &**verdict)),
                _ => None,
            },
            Action::Transition(_) | Action::Ended(_) | Action::Reconcile => None,
        })
    }

    /// The reported alerts about zombies.
    fn emitted(&self) -> BTreeMap<ConnId, Vec<ReportedAlert>> {
        let mut emitted: BTreeMap<ConnId, Vec<ReportedAlert>> = BTreeMap::new();
        for (alert, verdict) in self.alerts().filter(|(_, it)| it.kind.is_zombie()) {
            emitted
                .entry(verdict.facts.conn)
                .or_default()
                .push(ReportedAlert {
                    at: alert.at,
                    kind: verdict.kind,
                    certainty: verdict.certainty,
                    firing: alert.is_firing(),
                });
        }
        emitted
    }
}

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let op = prop_oneof![
        6 => Just(Op::Send),
        6 => Just(Op::Ping),
        3 => Just(Op::Hear),
        2 => Just(Op::Break),
        2 => Just(Op::Heal),
        2 => Just(Op::Deafen),
        1 => Just(Op::Wake),
    ];
    let last = select(vec![Op::Send, Op::CloseFrame, Op::Fin, Op::RstReceived]);
    let pause = || prop_oneof![1u64..400, 400u64..3_500, 3_500u64..14_000];
    let ops = (vec((pause(), op), 0..14), (pause(), last));
    // Most have no loss. The others must have tried 7 or 8 times.
    let loss =
        prop_oneof![4 => Just(0), 1 => Just(4_000), 1 => Just(5_200)].prop_map(Loss::from_late);
    let script = (1u64..150, loss, ops).prop_map(|(rtt, loss, (mut ops, last))| {
        ops.push(last);
        Script { rtt, loss, ops }
    });
    vec(script, 1..6)
}

/// How often all snapshots are swept, and when first, counted from the first establishment.
fn sweeps() -> impl Strategy<Value = (Duration, Duration)> {
    (100u64..12_000, 0.0..=1.0).prop_map(|(every, first)| {
        let every = Duration::from_millis(every);
        (every, every.mul_f64(first))
    })
}

fn key(reported_alert: &ReportedAlert) -> (VerdictKind, Certainty, bool) {
    (
        reported_alert.kind,
        reported_alert.certainty,
        reported_alert.firing,
    )
}

/// The socket at the time `at`.
fn truth_at(timeline: &[Moment], conn: ConnId, at: Ktime) -> Option<&Facts> {
    let mut past = timeline
        .iter()
        .filter(|moment| moment.conn == conn && moment.at <= at);
    past.next_back().and_then(|moment| moment.truth.as_ref())
}

/// The same, or the socket just before its end if that was at `at` too: a reset is reported before
/// the end that it causes.
fn alive_at(timeline: &[Moment], conn: ConnId, at: Ktime) -> Option<&Facts> {
    truth_at(timeline, conn, at).or_else(|| {
        let mut now = timeline
            .iter()
            .filter(|moment| moment.conn == conn && moment.at == at);
        now.rfind(|moment| moment.truth.is_some())
            .and_then(|moment| moment.truth.as_ref())
    })
}

fn agrees_with_a_full_scan(
    scripts: &[Script],
    shell: impl FnOnce(Ktime) -> Shell,
) -> Result<(), TestCaseError> {
    let (timeline, end) = kernel::run(scripts, TAIL);
    let mut shell = shell(timeline[0].at);
    shell.run(&timeline, end, &BTreeSet::new());
    let core = shell.emitted();
    let rules = kernel::rules();
    let naive = oracle::full_scan(&rules, &timeline, SCAN_STEP, end);
    for (conn, expected) in &naive {
        let lateness = lateness(&rules[kernel::listener(*conn)]);
        let emitted = core.get(conn).map_or(&[][..], Vec::as_slice);
        let emitted = as_seen_in_steps(emitted, expected);
        let due = expected
            .iter()
            .filter(|reported_alert| reported_alert.at + lateness < end)
            .count();
        prop_assert!(
            emitted.len() >= due && emitted.len() <= expected.len(),
            "{conn:?}\nreported {emitted:#?}\nexpected {expected:#?}"
        );
        for (emitted, expected) in emitted.iter().zip(expected) {
            prop_assert_eq!(key(emitted), key(expected), "{:?}", conn);
            prop_assert!(
                emitted.at <= expected.at + lateness,
                "{:?} {:?}",
                emitted,
                expected
            );
            prop_assert!(
                emitted.at + SCAN_STEP >= expected.at,
                "{:?} {:?}",
                emitted,
                expected
            );
        }
    }
    Ok(())
}

/// The reports of the core, without suspicions that were confirmed between two steps of the scan.
fn as_seen_in_steps(emitted: &[ReportedAlert], expected: &[ReportedAlert]) -> Vec<ReportedAlert> {
    let mut seen: Vec<ReportedAlert> = Vec::new();
    for (index, reported_alert) in emitted.iter().enumerate() {
        let next = emitted.get(index + 1);
        let missed = expected.get(seen.len()).is_some_and(|scanned| {
            key(scanned) != key(reported_alert)
                && reported_alert.certainty == Certainty::Suspected
                && next.is_some_and(|next| {
                    key(next) == key(scanned) && next.at <= reported_alert.at + SCAN_STEP
                })
        });
        if !missed {
            seen.push(*reported_alert);
        }
    }
    seen
}

/// With a ping timeout of 30 s the recheck is rarer than once a second.
#[test]
fn a_pong_right_after_the_timeout_of_a_single_ping_is_noticed_within_the_pace_of_pongs() {
    let idle = Script {
        rtt: 1,
        loss: Loss::default(),
        ops: vec![(1, Op::Send)],
    };
    let patient = Script {
        rtt: 1,
        loss: Loss::default(),
        ops: vec![
            (1, Op::Deafen),
            (1, Op::Ping),
            (7_353, Op::Heal),
            (13_495, Op::Hear),
            (5_956, Op::Hear),
            (3_030, Op::Wake),
            (166, Op::Send),
            (400, Op::Send),
            (702, Op::Send),
        ],
    };
    agrees_with_a_full_scan(&[idle, patient], |_| Shell::new())
        .expect("the reports of a full scan");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_core_reports_what_a_full_scan_of_the_truth_reports(scripts in scripts()) {
        agrees_with_a_full_scan(&scripts, |_| Shell::new())?;
    }

    #[test]
    fn the_core_reports_the_same_if_the_snapshots_are_swept(
        scripts in scripts(),
        (every, first) in sweeps(),
    ) {
        agrees_with_a_full_scan(&scripts, |start| Shell::sweeping(every, start + first))?;
    }

    #[test]
    fn no_alert_is_early(scripts in scripts(), sweeps in option::of(sweeps())) {
        let (timeline, end) = kernel::run(&scripts, TAIL);
        let mut shell = match sweeps {
            Some((every, first)) => Shell::sweeping(every, timeline[0].at + first),
            None => Shell::new(),
        };
        shell.run(&timeline, end, &BTreeSet::new());
        let rules = kernel::rules();
        for (alert, verdict) in shell.alerts() {
            let (conn, kind) = (verdict.facts.conn, verdict.kind);
            let truth = truth_at(&timeline, conn, alert.at);
            match alert.status {
                Status::Firing => {
                    let truth = alive_at(&timeline, conn, alert.at);
                    let truth = truth.expect("an alert for a socket that exists");
                    let rules = &rules[usize::from(alert.listener.0)];
                    let is_true = oracle::is_true(kind, verdict.certainty, truth, rules, alert.at);
                    prop_assert!(is_true, "{:?}", alert);
                    prop_assert!(alert.since <= alert.at);
                }
                Status::Resolved(AlertResolution::Recovered) => {
                    let truth = truth.expect("a recovery of a socket that exists");
                    prop_assert!(oracle::recovered(kind, alert.since, truth), "{:?}", alert);
                }
                Status::Resolved(AlertResolution::Superseded | AlertResolution::Reaped) => {}
                Status::Resolved(AlertResolution::Closed(_)) => prop_assert!(truth.is_none()),
            }
        }
    }

    #[test]
    fn the_frequency_of_timeouts_does_not_matter(
        scripts in scripts(),
        pace in 1u64..3_000,
    ) {
        let (timeline, end) = kernel::run(&scripts, TAIL);
        let mut rare = Shell::new();
        rare.run(&timeline, end, &BTreeSet::new());
        let start = timeline[0].at;
        let dense = (0..).map(|i| start + Duration::from_millis(pace) * i).take_while(|at| *at < end);
        let mut often = Shell::new();
        often.run(&timeline, end, &dense.collect());
        prop_assert_eq!(&rare.actions, &often.actions);
        prop_assert_eq!(rare.core.tallies(), often.core.tallies());

        let mut again = Shell::new();
        again.run(&timeline, end, &BTreeSet::new());
        prop_assert_eq!(rare.actions, again.actions, "a replay differs");
    }

    #[test]
    fn following_the_deadlines_comes_to_an_end(scripts in scripts()) {
        let (timeline, end) = kernel::run(&scripts, Duration::ZERO);
        let mut shell = Shell::new();
        shell.run(&timeline, end, &BTreeSet::new());
        // Ten minutes of checks every second for flows that have pinged, and a margin.
        prop_assert!(shell.settle(scripts.len() * 1_000).is_some());
    }

    #[test]
    fn garbage_does_no_harm(inputs in vec(garbage(), 0..120)) {
        let mut shell = Shell::new();
        for input in inputs {
            match input {
                Garbage::Event(event) => shell.core.handle_event(event),
                Garbage::Snapshot(facts) => {
                    shell.snapshots.insert(facts.conn, *facts);
                }
                Garbage::Unasked(conn, facts) => shell.core.handle_snapshot(conn, facts),
                Garbage::Clock(now) => shell.show(now),
            }
            shell.act();
            if let Some(cgroup) = shell.core.poll_cgroup() {
                let name = WorkloadName::new("shop", &format!("chat-{}", cgroup / 2));
                shell.core.handle_workload(cgroup, Some(&name).filter(|_| cgroup > 0));
            }
            assert_gauges_add_up(&shell.core);
        }
        for conn in 0..CONNS {
            let at = Ktime(u64::MAX / 2);
            let facts = Box::new(socket::facts(ConnId(conn), ListenerId(0), at));
            shell.core.handle_event(Event::Closed { facts, how: CloseHow::Fin });
        }
        assert_gauges_add_up(&shell.core);
        prop_assert!(shell.core.is_empty());
        for tally in shell.core.tallies() {
            prop_assert_eq!(tally.counts.zombies.iter().sum::<u64>(), 0);
            prop_assert_eq!(tally.at_risk, 0);
            prop_assert_eq!(tally.handshakes_stuck, 0);
        }
        // Only entries of removed flows are left, each due once.
        prop_assert!(shell.settle(500).is_some());
    }
}

fn assert_gauges_add_up(core: &Correlator) {
    let phases = core
        .tallies()
        .into_iter()
        .flat_map(|tally| tally.counts.connections);
    let connections: u64 = phases.map(|phases| phases.open + phases.closing).sum();
    assert_eq!(connections, core.len() as u64);
    let tallies = core.tallies().into_iter();
    let stuck: u64 = tallies.map(|tally| tally.handshakes_stuck).sum();
    assert!(stuck <= core.unanswered().len() as u64);
    for (workloads, tally) in core.workloads().into_iter().zip(core.tallies()) {
        let mut sum = [0; VerdictKind::ALL.len()];
        let mut open = 0;
        for series in workloads.series() {
            let counts = series.counts;
            open += counts
                .connections
                .map(|phases| phases.open + phases.closing)
                .iter()
                .sum::<u64>();
            sum = std::array::from_fn(|kind| sum[kind] + counts.zombies[kind]);
        }
        let phases = tally.counts.connections.iter();
        assert_eq!(
            open,
            phases
                .map(|phases| phases.open + phases.closing)
                .sum::<u64>()
        );
        assert_eq!(sum, tally.counts.zombies);
    }
    for (listener, tally) in (0..).map(ListenerId).zip(core.tallies()) {
        let confirmed = core.standing_verdicts().filter(|alert| {
            let verdict = &alert.subject;
            let is_confirmed = verdict.certainty == Certainty::Confirmed;
            alert.listener == listener && verdict.kind.is_zombie() && is_confirmed
        });
        assert_eq!(tally.confirmed_zombies, confirmed.count() as u64);
        // A warning may stand on a connection at risk; a zombie is past the risk.
        let zombies = VerdictKind::zombies().map(|kind| tally.counts.zombies[kind as usize]);
        assert!(zombies.sum::<u64>() + tally.at_risk <= connections);
        for &kind in VerdictKind::ALL {
            let ended_or_standing =
                tally.recovered[kind as usize] + tally.counts.zombies[kind as usize];
            assert!(tally.detected(kind) >= ended_or_standing);
        }
    }
}
