//! Stories that packets cannot show: connections found by a scan of the sockets, receive queues, and
//! the published copy that lags. They go to the core as events and snapshots.

use std::{net::SocketAddr, ops::Range, time::Duration};

use monitor_core::{
    Action, ConnId, Correlator, Event, Facts, Hop, Ktime, ListenerId, ListenerRules,
    event::ReceiveQueue,
    facts::{Protocol, Role},
};
use wire::START;

use monitor_common::idle_gap_scale;

use crate::{
    check::{Report, compare},
    story::silent,
    world::nanos,
};

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// Its handshake ends.
    Opens,
    /// A scan finds it, with an unknown past.
    IsFound,
    /// A scan finds it, idle for this many seconds.
    IsFoundIdle(f64),
    /// A scan finds it after a FIN of the peer.
    IsFoundHalfClosed,
    /// A packet arrives that no record reports.
    Hears,
    /// A scan of the sockets finds this many unread bytes, after this many read ones.
    LeavesUnread(u32, u64),
    /// A scan finds the queue empty.
    HasReadAll,
    /// Connections of the listener have survived this many idle gaps of this many seconds.
    Survives(u64, f64),
    /// Its socket is gone.
    IsGone,
    /// Records of the kernel were lost.
    LosesRecords,
}
use Happens::*;

#[derive(Clone, Debug)]
pub(crate) struct SocketStory {
    pub(crate) name: &'static str,
    hop: Option<Hop>,
    steps: Vec<(f64, Happens)>,
    until: f64,
    reports: Vec<(&'static str, Range<f64>)>,
}

fn story(name: &'static str) -> SocketStory {
    SocketStory {
        name,
        hop: None,
        steps: Vec::new(),
        until: 0.0,
        reports: Vec::new(),
    }
}

impl SocketStory {
    fn behind(mut self, hop: Hop) -> Self {
        self.hop = Some(hop);
        self
    }

    fn at(mut self, at: f64, happens: Happens) -> Self {
        self.steps.push((at, happens));
        self
    }

    fn until(mut self, until: f64) -> Self {
        self.until = until;
        self
    }

    fn reports(mut self, what: &'static str, when: Range<f64>) -> Self {
        self.reports.push((what, when));
        self
    }
}

/// Maximum lag of a snapshot behind its socket, as in the daemon.
const STALENESS: Duration = Duration::from_millis(260);
const CONN: ConnId = ConnId(1);

/// The core, and the socket that it inspects.
struct Host {
    core: Correlator,
    socket: Option<Facts>,
    survived: [u64; idle_gap_scale::SLOTS],
    reported: Vec<Report>,
}

impl Host {
    fn new(hop: Option<Hop>) -> Self {
        Self {
            core: Correlator::new(vec![ListenerRules::new("8080", hop)], STALENESS),
            socket: None,
            survived: [0; idle_gap_scale::SLOTS],
            reported: Vec::new(),
        }
    }

    fn run_until(&mut self, end: u64) {
        while let Some(deadline) = self.core.poll_timeout().filter(|at| at.0 < end) {
            self.core.handle_timeout(deadline);
            self.inspect(deadline);
        }
    }

    fn inspect(&mut self, now: Ktime) {
        while let Some(conn) = self.core.poll_inspect() {
            if let Some(facts) = &mut self.socket {
                facts.at = now;
            }
            self.core
                .handle_snapshot(conn, self.socket.clone().map(Box::new));
        }
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => self.reported.push(Report::of_alert(alert)),
                Action::Transition(_) | Action::Ended(_) | Action::Reconcile => {}
            }
        }
    }

    fn happens(&mut self, now: Ktime, what: Happens) {
        let unread = |unread: Vec<ReceiveQueue>| Event::RecvQueuesScanned {
            at: now,
            unread,
            missed: Vec::new(),
        };
        let event = match what {
            Opens => {
                let mut facts = facts(now);
                facts.established_at = Some(now);
                facts.opened_at = Some(now);
                Event::Opened(Box::new(facts))
            }
            IsFound => Event::Seeded(Box::new(facts(now))),
            IsFoundIdle(seconds) => {
                let mut facts = facts(now);
                let last = Ktime(now.0 - nanos(seconds));
                facts.rx.last_packet = Some(last);
                facts.tx.last_packet = Some(last);
                Event::Seeded(Box::new(facts))
            }
            IsFoundHalfClosed => {
                let mut facts = facts(now);
                facts.fin_rx = true;
                Event::Seeded(Box::new(facts))
            }
            Hears => {
                if let Some(facts) = &mut self.socket {
                    facts.rx.last_packet = Some(now);
                }
                return;
            }
            Survives(count, seconds) => {
                self.survived[idle_gap_scale::slot_of(nanos(seconds))] += count;
                self.core
                    .handle_idle_gaps(now, ListenerId(0), &self.survived);
                return self.inspect(now);
            }
            LeavesUnread(bytes, read) => unread(vec![ReceiveQueue {
                conn: CONN,
                bytes,
                read,
            }]),
            HasReadAll => unread(Vec::new()),
            IsGone => Event::Gone {
                conn: CONN,
                at: now,
            },
            LosesRecords => Event::Lost { at: now },
        };
        match &event {
            Event::Opened(facts) | Event::Seeded(facts) => self.socket = Some((**facts).clone()),
            Event::Gone { .. } => self.socket = None,
            _ => {}
        }
        self.core.handle_event(event);
        self.core.handle_timeout(now);
        self.inspect(now);
    }
}

fn facts(at: Ktime) -> Facts {
    Facts::new(
        at,
        CONN,
        ListenerId(0),
        Role::Server,
        Protocol::WebSocket,
        SocketAddr::from(([10, 0, 0, 1], 8080)),
        SocketAddr::from(([10, 0, 0, 2], 40_000)),
    )
}

#[test]
fn sockets() {
    let mut wrong = Vec::new();
    for story in stories() {
        let mut host = Host::new(story.hop.clone());
        for (at, what) in &story.steps {
            let now = START + nanos(*at);
            host.run_until(now);
            host.happens(Ktime(now), *what);
        }
        host.run_until(START + nanos(story.until));
        let found = compare(&story.reports, &host.reported);
        wrong.extend(found.iter().map(|wrong| format!("{}: {wrong}", story.name)));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

pub(crate) fn stories() -> Vec<SocketStory> {
    vec![
        story("a queue doesn't move for 30 s")
            .at(0.0, Opens)
            .at(10.0, LeavesUnread(900, 50))
            .at(20.0, LeavesUnread(1000, 50))
            .at(30.0, LeavesUnread(1100, 50))
            .at(40.0, LeavesUnread(1200, 50))
            .at(50.0, HasReadAll)
            .until(60.0)
            .reports("stalled confirmed", 40.0..40.1)
            .reports("stalled recovered", 50.0..50.1),
        story("a queue is never empty, and the application reads")
            .at(0.0, Opens)
            .at(10.0, LeavesUnread(900, 50))
            .at(20.0, LeavesUnread(900, 51))
            .at(30.0, LeavesUnread(900, 52))
            .at(40.0, LeavesUnread(900, 53))
            .at(50.0, LeavesUnread(900, 54))
            .until(60.0),
        story("a found connection has been idle past the limit")
            .behind(silent(60.0))
            .at(10.0, IsFoundIdle(100.0))
            .until(60.0)
            .reports("expired suspected", 10.0..10.3),
        story("a found connection has been idle below the limit")
            .behind(silent(60.0))
            .at(10.0, IsFoundIdle(50.0))
            .until(60.0)
            .reports("expired suspected", 20.2..20.4),
        story("a found connection has no known past")
            .behind(silent(60.0))
            .at(10.0, IsFound)
            .until(100.0)
            .reports("expired suspected", 70.2..70.4),
        story("a found connection is half closed")
            .at(10.0, IsFoundHalfClosed)
            .until(100.0)
            .reports("half_closed confirmed", 70.0..70.1),
        story("a packet passes that no record reports, just before the limit")
            .behind(silent(60.0))
            .at(0.0, Opens)
            .at(59.9, Hears)
            .until(110.0),
        story("a copy that lags isn't believed before it must be true")
            .behind(silent(60.0))
            .at(0.0, Opens)
            .until(100.0)
            .reports("expired suspected", 60.26..60.3),
        story("an expired connection is gone, and nothing says how")
            .behind(silent(60.0))
            .at(0.0, Opens)
            .at(80.0, IsGone)
            .until(100.0)
            .reports("expired suspected", 60.26..60.3)
            .reports("expired unknown", 80.0..80.1),
        story("records are lost, and no connection is blamed for it")
            .at(0.0, Opens)
            .at(20.0, LosesRecords)
            .until(300.0),
        story("pings come every 55 s on a path of 60 s")
            .behind(silent(60.0))
            .at(0.0, Opens)
            .at(55.0, Survives(1, 55.0))
            .at(55.1, Hears)
            .at(110.0, Survives(1, 55.0))
            .at(110.1, Hears)
            .at(165.0, Survives(1, 55.0))
            .until(170.0)
            .reports("at_risk", 165.0..165.1),
        story("pings come every 20 s on a path of 60 s")
            .behind(silent(60.0))
            .at(50.0, Survives(100, 20.0))
            .at(100.0, Survives(100, 20.0))
            .until(150.0),
        story("ten silences outlive the configured limit")
            .behind(silent(60.0))
            .at(100.0, Survives(9, 90.0))
            .at(200.0, Survives(1, 90.0))
            .until(300.0)
            .reports("limit_mismatch", 200.0..200.1),
        story("nine silences outlive the configured limit")
            .behind(silent(60.0))
            .at(100.0, Survives(9, 90.0))
            .until(300.0),
    ]
}
