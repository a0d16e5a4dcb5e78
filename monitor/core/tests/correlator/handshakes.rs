//! Opening handshakes from two rings: every attempt is followed to its end, whatever is lost and
//! however the rings are interleaved.

mod script;

use std::{collections::BTreeMap, time::Duration};

use monitor_core::{
    Action, CloseHow, ConnId, Correlator, Event, Facts, Ktime, ListenerId, State, Transition,
};
use proptest::{collection::vec, prelude::*};

use crate::{kernel, socket::facts};
use script::{Last, Record, Script, expected, records, request, response, scripts, time, waiting};

/// The shell. In each turn it reads the vitals, then the handshakes, which may be further ahead by
/// then; it reports the handshakes first.
struct Shell {
    core: Correlator,
    snapshots: BTreeMap<ConnId, Facts>,
    transitions: BTreeMap<ConnId, Vec<Transition>>,
}

impl Shell {
    fn new() -> Self {
        Self {
            core: Correlator::new(kernel::rules(), kernel::STALENESS),
            snapshots: BTreeMap::new(),
            transitions: BTreeMap::new(),
        }
    }

    /// Takes a turn at the end of each of `pauses`, in a cycle, until all records are reported.
    fn run(&mut self, records: &[Record], pauses: &[(u64, u64)]) -> Ktime {
        let split = |handshake| {
            let ring = records.iter().filter(move |r| r.handshake == handshake);
            ring.cloned().collect::<Vec<_>>().into_iter().peekable()
        };
        let (mut handshakes, mut vitals) = (split(true), split(false));
        let mut now = time(0);
        for (pause, lag) in pauses.iter().cycle() {
            if handshakes.peek().is_none() && vitals.peek().is_none() {
                break;
            }
            now = now + Duration::from_millis(*pause);
            let later = now + Duration::from_millis(*lag);
            while let Some(record) = handshakes.next_if(|record| record.at <= later) {
                self.core.handle_event(record.event);
            }
            while let Some(record) = vitals.next_if(|record| record.at <= now) {
                self.vital(record.event);
            }
            self.show(now);
        }
        now
    }

    fn vital(&mut self, event: Event) {
        match &event {
            Event::Opened(facts) | Event::Closing(facts) => {
                self.snapshots.insert(facts.conn, (**facts).clone());
            }
            Event::Closed { facts, .. } => drop(self.snapshots.remove(&facts.conn)),
            _ => {}
        }
        self.core.handle_event(event);
    }

    fn show(&mut self, now: Ktime) {
        self.core.handle_timeout(now);
        while let Some(conn) = self.core.poll_inspect() {
            let facts = self.snapshots.get(&conn).cloned().map(Box::new);
            self.core.handle_snapshot(conn, facts);
        }
        while let Some(action) = self.core.poll_action() {
            if let Action::Transition(transition) = action {
                let reported = self.transitions.entry(transition.conn).or_default();
                reported.push(transition);
            }
        }
    }

    /// On each connection, every transition begins in the state in which the previous one ended.
    fn assert_chains(&self) {
        for reported in self.transitions.values() {
            let mut state = None;
            for transition in reported {
                let before = state.filter(|state| *state != State::Closed);
                assert_eq!(transition.from, before, "{reported:#?}");
                state = Some(transition.to);
            }
        }
    }
}

fn sorted(mut conns: Vec<ConnId>) -> Vec<ConnId> {
    conns.sort();
    conns
}

fn pauses() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((1u64..400, 0u64..5), 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_connection_is_reported_from_its_request_to_its_end(
        scripts in scripts(),
        pauses in pauses(),
    ) {
        let mut shell = Shell::new();
        let end = shell.run(&records(&scripts), &pauses);
        shell.assert_chains();
        for (index, script) in scripts.iter().enumerate() {
            let conn = ConnId(index as u64 + 1);
            let reported = shell.transitions[&conn].iter();
            let reported: Vec<_> = reported.map(|t| (t.to, t.at, t.reason)).collect();
            prop_assert_eq!(reported, expected(script), "{:?}", conn);
        }
        let waiting = waiting(&scripts);
        prop_assert_eq!(&sorted(shell.core.unanswered()), &waiting);
        shell.show(end + Duration::from_secs(11));
        prop_assert_eq!(shell.core.tallies()[0].handshakes_stuck, waiting.len() as u64);
        prop_assert_eq!(shell.core.poll_timeout(), None, "no deadline is left");
    }

    #[test]
    fn a_request_is_stuck_from_its_tenth_second_to_its_end(
        scripts in scripts(),
        at in 0u64..60_000,
    ) {
        let mut shell = Shell::new();
        let all = records(&scripts);
        let past: Vec<_> = all.into_iter().filter(|record| record.at <= time(at)).collect();
        shell.run(&past, &[(1, 0)]);
        shell.show(time(at));
        let stuck = |script: &Script| {
            let mut now = script.start + 1;
            let mut waits = Vec::new();
            for refusal in &script.refusals {
                waits.push((now, now + refusal.think));
                now += refusal.think + refusal.pause;
            }
            let end = if script.last == Last::Waits { u64::MAX } else { now + script.think };
            waits.push((now, end));
            waits.iter().any(|(from, to)| from + 10_000 <= at && at < *to)
        };
        let stuck = scripts.iter().filter(|script| stuck(script)).count();
        prop_assert_eq!(shell.core.tallies()[0].handshakes_stuck, stuck as u64);
    }

    #[test]
    fn lost_heads_leave_nothing_behind(
        scripts in scripts(),
        pauses in pauses(),
        lost in vec(any::<bool>(), 64),
    ) {
        let mut nth = lost.iter().cycle();
        let kept: Vec<_> = records(&scripts)
            .into_iter()
            .filter(|record| !record.handshake || !nth.next().unwrap())
            .collect();
        let mut shell = Shell::new();
        let end = shell.run(&kept, &pauses);
        shell.show(end + Duration::from_secs(11));
        shell.assert_chains();
        let unanswered = sorted(shell.core.unanswered());
        let waiting = waiting(&scripts);
        prop_assert!(unanswered.iter().all(|conn| waiting.contains(conn)), "{:?}", unanswered);
        prop_assert_eq!(shell.core.tallies()[0].handshakes_stuck, unanswered.len() as u64);
        for conn in unanswered {
            shell.core.handle_event(Event::Gone { conn, at: end });
        }
        prop_assert_eq!(shell.core.tallies()[0].handshakes_stuck, 0);
        prop_assert!(shell.core.is_empty());
        for conn in 1..=scripts.len() {
            prop_assert_eq!(shell.core.handshake(ConnId(conn as u64)), None);
        }
        prop_assert_eq!(shell.core.poll_timeout(), None);
    }

    #[test]
    fn an_open_connection_has_its_handshake_for_any_order_of_events(
        order in Just([0, 1, 2]).prop_shuffle(),
    ) {
        let socket = facts(ConnId(1), ListenerId(0), time(0));
        let opened = Facts { opened_at: Some(time(7)), at: time(7), ..socket.clone() };
        let events = [
            request(&socket, 4),
            response(&socket, 7, 101),
            Event::Opened(Box::new(opened.clone())),
        ];
        let mut shell = Shell::new();
        for place in order {
            shell.core.handle_event(events[place].clone());
        }
        shell.show(time(8));
        let handshake = shell.core.handshake(ConnId(1)).expect("a handshake");
        prop_assert_eq!(handshake.path, Some("/chat/1"));
        prop_assert_eq!(handshake.host, Some("lab"));
        prop_assert_eq!(handshake.requested_at, Some(time(4)));
        prop_assert!(handshake.faults.is_empty());
        prop_assert!(shell.core.unanswered().is_empty());
        shell.assert_chains();
        let closed = Box::new(Facts { at: time(9), ..opened });
        shell.core.handle_event(Event::Closed { facts: closed, how: CloseHow::Fin });
        shell.show(time(30_000));
        prop_assert_eq!(shell.core.handshake(ConnId(1)), None);
        prop_assert_eq!(shell.core.poll_timeout(), None);
    }
}
