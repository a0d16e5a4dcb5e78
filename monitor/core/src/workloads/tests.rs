use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    CloseHow, ConnId, Correlator, Event, Facts, Hop, ListenerId, ListenerRules, OnExpiry, Tally,
    facts::{Origin, Protocol},
    tally::Turnover,
};

const LIMIT: u64 = 6;

fn s(at: u64) -> Ktime {
    Ktime(at * 1_000_000_000)
}

fn name(number: u64) -> WorkloadName {
    WorkloadName::new("shop", &format!("web-{number}"))
}

/// A core that counts by workload, with a silent hop of 6 s.
struct Bench {
    core: Correlator,
    now: u64,
    facts: BTreeMap<ConnId, Facts>,
}

impl Bench {
    fn new(limit: u16) -> Self {
        let hop = Hop::new("lb", Duration::from_secs(LIMIT), OnExpiry::Silent);
        let rules = vec![ListenerRules::new("web", Some(hop))];
        Self {
            core: Correlator::new(rules, Duration::from_millis(260)).with_workloads(limit),
            now: 1,
            facts: BTreeMap::new(),
        }
    }

    fn open(&mut self, conn: u64, cgroup: Option<u64>) {
        let facts = Facts {
            cgroup_id: cgroup,
            ..Facts::just_opened(conn, s(self.now))
        };
        self.facts.insert(facts.conn, facts.clone());
        self.core.handle_event(Event::Opened(Box::new(facts)));
    }

    /// A connection that sock_diag finds.
    fn find(&mut self, conn: u64, cgroup: Option<u64>) {
        let facts = Facts {
            established_at: None,
            origin: Origin::SockDiag,
            cgroup_id: cgroup,
            protocol: Protocol::Assumed,
            ..Facts::just_opened(conn, s(self.now))
        };
        self.facts.insert(facts.conn, facts.clone());
        self.core.handle_event(Event::Seeded(Box::new(facts)));
    }

    fn close(&mut self, conn: u64, how: CloseHow) {
        let known = self.facts.remove(&ConnId(conn));
        let facts = Facts {
            at: s(self.now),
            ..known.unwrap_or_else(|| Facts::just_opened(conn, s(self.now)))
        };
        let facts = Box::new(facts);
        self.core.handle_event(Event::Closed { facts, how });
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        self.core.handle_timeout(s(self.now));
        self.answer();
    }

    fn answer(&mut self) {
        while let Some(conn) = self.core.poll_inspect() {
            let facts = self.facts.get(&conn).map(|facts| Facts {
                at: s(self.now),
                ..facts.clone()
            });
            self.core.handle_snapshot(conn, facts.map(Box::new));
        }
        while self.core.poll_action().is_some() {}
    }

    /// Answers every question about a cgroup: odd ones have a workload.
    fn resolve(&mut self) {
        while let Some(cgroup) = self.core.poll_cgroup() {
            let name = (cgroup % 2 == 1).then(|| name(cgroup / 4));
            self.core.handle_workload(cgroup, name.as_ref());
        }
    }

    fn workloads(&self) -> &Workloads {
        self.core.workloads()[0]
    }

    fn tally(&self) -> &Tally {
        self.core.tallies()[0]
    }

    fn counts(&self, workload: &str) -> ConnectionCounts {
        let mut series = self.workloads().series();
        let found = series.find(|series| series.workload == workload);
        found
            .map(|series| series.counts.into_owned())
            .unwrap_or_default()
    }

    fn open_in(&self, workload: &str) -> u64 {
        self.counts(workload)
            .connections
            .iter()
            .map(|it| it.open)
            .sum()
    }

    fn sum(&self) -> ConnectionCounts {
        let mut sum = ConnectionCounts::default();
        for series in self.workloads().series() {
            sum.add(&series.counts);
        }
        sum
    }
}

#[test]
fn connections_of_several_cgroups_add_up_to_their_workload() {
    let mut bench = Bench::new(10);
    for (conn, cgroup) in [(1, 5), (2, 7), (3, 7), (4, 9)] {
        bench.open(conn, Some(cgroup));
    }
    assert_eq!(
        (
            bench.open_in("unknown"),
            bench.counts("unknown").turnover.opened
        ),
        (4, 0)
    );
    bench.resolve();
    assert_eq!((bench.open_in("web-1"), bench.open_in("web-2")), (3, 1));
    bench.close(2, CloseHow::Fin);
    bench.close(3, CloseHow::Timeout);
    bench.close(1, CloseHow::Fin);
    bench.open(5, Some(5));
    bench.resolve();
    let counts = bench.counts("web-1");
    assert_eq!((counts.turnover.opened, counts.durations.count()), (4, 3));
    assert_eq!(counts.turnover.closed[CloseHow::Fin as usize], 2);
    assert_eq!(bench.sum(), bench.tally().counts);
}

#[test]
fn a_connection_that_ends_before_its_cgroup_is_known_is_counted_in_its_workload() {
    let mut bench = Bench::new(10);
    bench.open(1, Some(5));
    bench.close(1, CloseHow::Fin);
    assert_eq!(bench.sum().turnover, Turnover::default());
    bench.resolve();
    assert_eq!(bench.counts("web-1"), bench.tally().counts);
    assert_eq!(bench.counts("web-1").turnover.opened, 1);
    assert!(bench.workloads().slots.is_empty(), "the slot is free");
}

#[test]
fn an_older_connection_and_its_verdict_move_to_the_workload_with_the_first_packet() {
    let mut bench = Bench::new(10);
    for conn in 1..=2 {
        bench.find(conn, None);
    }
    bench.wait(LIMIT + 1);
    let zombies = |bench: &Bench, of| bench.counts(of).zombies.iter().sum::<u64>();
    assert_eq!(
        (bench.open_in("unknown"), zombies(&bench, "unknown")),
        (2, 2)
    );
    for facts in bench.facts.values_mut() {
        facts.cgroup_id = Some(5);
    }
    // One is inspected at its deadline, the other one is swept although nothing is wrong with it.
    bench.core.handle_snapshot(
        ConnId(1),
        bench.facts.get(&ConnId(1)).cloned().map(Box::new),
    );
    bench.core.expect_sweeps(Some(Duration::from_secs(1)));
    let swept = bench.facts[&ConnId(2)].clone();
    bench.core.handle_swept(&swept);
    bench.resolve();
    assert_eq!(
        (bench.open_in("unknown"), zombies(&bench, "unknown")),
        (0, 0)
    );
    assert_eq!((bench.open_in("web-1"), zombies(&bench, "web-1")), (2, 2));
    assert_eq!(
        bench.counts("web-1").turnover.opened,
        0,
        "older ones did not open"
    );
}

#[test]
fn a_swept_connection_without_a_deadline_joins_its_workload() {
    let mut bench = Bench::new(10);
    bench.find(1, None);
    bench.core.expect_sweeps(Some(Duration::from_secs(1)));
    let facts = Facts {
        cgroup_id: Some(5),
        ..bench.facts[&ConnId(1)].clone()
    };
    bench.core.handle_swept(&facts);
    bench.resolve();
    assert_eq!(bench.open_in("web-1"), 1);
    assert!(!bench.workloads().lacks_cgroups());
}

#[test]
fn ten_thousand_pods_stay_within_the_limit_and_the_rest_is_counted() {
    const PODS: u64 = 10_000;
    let mut bench = Bench::new(200);
    for pod in 0..PODS {
        bench.open(pod, Some(4 * pod + 1));
        bench.resolve();
    }
    assert_eq!(bench.workloads().series().count(), 200 + 2);
    assert_eq!(bench.workloads().over_limit(), PODS - 200);
    assert_eq!(bench.open_in("other"), PODS - 200);
    assert_eq!(bench.sum(), bench.tally().counts);
    for pod in 0..PODS {
        bench.close(pod, CloseHow::Fin);
    }
    // A new pod finds a place only when an old one has been without connections for an hour.
    bench.open(PODS, Some(4 * PODS + 1));
    bench.resolve();
    assert_eq!(bench.open_in("other"), 1);
    bench.close(PODS, CloseHow::Fin);
    bench.wait(3_600);
    bench.open(PODS, Some(4 * PODS + 1));
    bench.resolve();
    assert_eq!(bench.open_in(&format!("web-{PODS}")), 1);
    assert_eq!(bench.counts("web-0"), ConnectionCounts::default());
    let since = |workload: &str| {
        let mut series = bench.workloads().series();
        let found = series.find(|series| series.workload == workload);
        found.and_then(|series| series.since)
    };
    assert_eq!(since(&format!("web-{PODS}")), Some(s(bench.now)));
    assert!(since("web-7") < Some(s(bench.now)), "{:?}", since("web-7"));
    assert_eq!((since("other"), since("unknown")), (None, None));
    assert_eq!(bench.workloads().series().count(), 200 + 2);
    assert_eq!(
        (
            bench.workloads().cgroups.len(),
            bench.workloads().slots.len()
        ),
        (10_000, 1)
    );
}

#[test]
fn cgroups_without_room_are_counted_as_other() {
    let mut bench = Bench::new(1);
    let many = MAX_CGROUPS as u64 + 3;
    for conn in 0..many {
        bench.open(conn, Some(conn));
    }
    assert_eq!(
        (bench.open_in("other"), bench.workloads().over_limit()),
        (3, 3)
    );
    assert_eq!(bench.workloads().cgroups.len(), MAX_CGROUPS);
    for conn in 0..many {
        bench.close(conn, CloseHow::Fin);
    }
    bench.resolve();
    assert_eq!(bench.sum(), bench.tally().counts);
    assert!(bench.workloads().slots.is_empty());
}

#[test]
fn what_the_kernel_counted_and_no_record_reported_is_unknown() {
    let mut bench = Bench::new(10);
    bench.open(1, Some(5));
    bench.resolve();
    let counted = |opened| Turnover {
        opened,
        ..Turnover::default()
    };
    let mut report = |at, opened| {
        bench
            .core
            .handle_turnover(s(at), ListenerId(0), counted(opened));
        bench.counts("unknown").turnover.opened
    };
    assert_eq!(report(10, 3), 0, "the records may be on their way");
    assert_eq!(report(10, 3), 0);
    assert_eq!(report(11, 4), 2, "they were lost");
    assert_eq!(report(12, 4), 3);
    assert_eq!(report(13, 4), 3);
    assert_eq!(bench.tally().counts.turnover.opened, 4);
    assert_eq!(bench.sum(), bench.tally().counts);
}

#[test]
fn names_are_cut_and_have_no_control_characters() {
    let long = "ä".repeat(4_096);
    let name = WorkloadName::new(&long, "a\n\"b\"\u{1b}[0m\0");
    assert_eq!(name.namespace.len(), 254);
    assert_eq!(&*name.name, "a\u{fffd}\"b\"\u{fffd}[0m\u{fffd}");
}

#[derive(Clone, Debug)]
enum Step {
    Open(u64, Option<u64>),
    Find(u64, Option<u64>),
    /// The cgroup of a connection becomes known.
    Show(u64, u64),
    Close(u64, CloseHow),
    Gone(u64),
    Wait(u64),
    Resolve,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let conn = 0..12_u64;
    let cgroup = option::of(0..20_u64);
    let how = proptest::sample::select(CloseHow::ALL);
    prop_oneof![
        4 => (conn.clone(), cgroup.clone()).prop_map(|(conn, cgroup)| Step::Open(conn, cgroup)),
        2 => (conn.clone(), cgroup).prop_map(|(conn, cgroup)| Step::Find(conn, cgroup)),
        2 => (conn.clone(), 0..20_u64).prop_map(|(conn, cgroup)| Step::Show(conn, cgroup)),
        3 => (conn.clone(), how).prop_map(|(conn, how)| Step::Close(conn, how)),
        1 => conn.prop_map(Step::Gone),
        2 => (0..10_u64).prop_map(Step::Wait),
        2 => Just(Step::Resolve),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    #[test]
    fn series_add_up_to_the_listener_and_no_counter_decreases(
        limit in 1..4_u16,
        steps in vec(step(), 0..120),
    ) {
        let mut bench = Bench::new(limit);
        let mut before = BTreeMap::<String, ConnectionCounts>::new();
        for step in steps {
            match step {
                Step::Open(conn, cgroup) => bench.open(conn, cgroup),
                Step::Find(conn, cgroup) => bench.find(conn, cgroup),
                Step::Show(conn, cgroup) => {
                    if let Some(facts) = bench.facts.get_mut(&ConnId(conn)) {
                        facts.cgroup_id.get_or_insert(cgroup);
                        let facts = Box::new(facts.clone());
                        bench.core.handle_snapshot(ConnId(conn), Some(facts));
                    }
                }
                Step::Close(conn, how) => bench.close(conn, how),
                Step::Gone(conn) => {
                    bench.facts.remove(&ConnId(conn));
                    let at = s(bench.now);
                    bench.core.handle_event(Event::Gone { conn: ConnId(conn), at });
                }
                Step::Wait(seconds) => bench.wait(seconds),
                Step::Resolve => bench.resolve(),
                Step::Lose => {
                    let mut counted = bench.tally().counts.turnover;
                    counted.opened += 1;
                    bench.core.handle_turnover(s(bench.now), ListenerId(0), counted);
                }
            }
            bench.answer();

            let (sum, tally) = (bench.sum(), &bench.tally().counts);
            prop_assert_eq!(sum.connections, tally.connections);
            prop_assert_eq!(sum.zombies, tally.zombies);
            prop_assert!(sum.turnover.opened <= tally.turnover.opened);
            let named = bench.workloads().series().count() - SeriesIndex::UNNAMED;
            prop_assert!(named <= usize::from(limit));
            for series in bench.workloads().series() {
                let now = series.counts.into_owned();
                if let Some(before) = before.insert(series.workload.to_owned(), now.clone()) {
                    prop_assert_eq!(before.turnover.beyond(&now.turnover), Turnover::default());
                    prop_assert!(before.durations.count() <= now.durations.count());
                }
            }
        }
        bench.resolve();
        prop_assert_eq!(bench.sum(), bench.tally().counts.clone());
    }
}
