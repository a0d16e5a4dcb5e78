//! The native twin of the kernel programs and of the daemon's loop: a table of connections, a
//! clock that the packets drive, and the core.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use jiff::Timestamp;
use monitor_common::{
    Direction, listener::ListenerLimits, replay::SeenFrame, segment::tcp_flags,
    stats::ListenerStats,
};

use super::{
    capture::Packet,
    connection::{Connection, Meaning, Watched},
    headers::{self, Tcp},
    report::{End, Record, Summary, wall_clock},
    skip::Skip,
};
use crate::{
    core::{
        Action, Correlator, Grouping, Ktime, ListenerId, Notice, Status, facts::Role,
        loss::Deliveries,
    },
    listeners::Listener,
};

mod traffic;

/// How long a handshake may take, and for how long packets may follow a connection's end. Longer
/// than Linux retries a SYN (tcp_syn_retries) or stays in TIME_WAIT.
const LINGER: u64 = 130_000_000_000;

/// In the year 2262. A time stamp beyond it is nonsense, and must not make sums overflow.
const CLOCK_MAX: u64 = i64::MAX as u64;

/// A recording being judged.
#[derive(Debug)]
pub struct Replay {
    listeners: Vec<Listener>,
    limits: Vec<ListenerLimits>,
    stats: Vec<ListenerStats>,
    core: Correlator,
    grouping: Grouping,
    /// The latest time stamp, nanoseconds since the epoch.
    clock: u64,
    tuples: HashMap<Tuple, Place>,
    /// By number, which takes the place of the socket cookie.
    connections: HashMap<u64, Connection>,
    /// When to forget handshakes that came to nothing, and connections that ended.
    lingering: VecDeque<(u64, Tuple)>,
    last_number: u64,
    /// Those of the segment in hand.
    frames: Vec<SeenFrame>,
    records: VecDeque<Record>,
    summary: Summary,
}

/// Both ends of a connection, whichever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple(SocketAddr, SocketAddr);

#[derive(Clone, Copy, Debug)]
enum Place {
    Live(u64),
    Ended {
        forget_at: u64,
    },
    /// Opened from a watched port, as its SYN said: none of ours.
    Foreign,
}

/// How a connection came to be, as far as it was seen before its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    SynSeen,
    Unknown,
}

impl Replay {
    pub fn new(listeners: Vec<Listener>) -> Self {
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        Self {
            // Nothing is copied late here: a snapshot is exact.
            core: Correlator::new(rules.collect(), Duration::ZERO),
            grouping: Grouping::default(),
            limits: listeners.iter().map(Listener::limits).collect(),
            stats: vec![ListenerStats::EMPTY; listeners.len()],
            listeners,
            clock: 0,
            tuples: HashMap::new(),
            connections: HashMap::new(),
            lingering: VecDeque::new(),
            last_number: 0,
            frames: Vec::new(),
            records: VecDeque::new(),
            summary: Summary::default(),
        }
    }

    /// Takes in the next packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.summary.packets += 1;
        self.tick(packet.at);
        let taken = headers::tcp(packet).and_then(|tcp| self.segment(&tcp));
        match taken {
            Ok(()) => self.summary.segments += 1,
            Err(reason) => self.summary.skipped.count(reason),
        }
        self.act();
    }

    /// The recording is over: what was due by its last packet is judged, and what is still open is
    /// told.
    pub fn finish(&mut self) {
        self.judge_before(self.clock.saturating_add(1));
        self.grouping.flush();
        self.tell_notices();
        let mut numbers: Vec<_> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(connection) = self.connections.remove(&number) {
                self.tell(connection, End::Open);
            }
        }
        self.tuples.clear();
        self.lingering.clear();
    }

    /// What is to be told, in order.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// The listener of a connection or an alert of this replay.
    pub fn listener(&self, id: ListenerId) -> &Listener {
        &self.listeners[usize::from(id.0)]
    }

    /// A moment of this replay, whose clock is the packets' time stamps.
    pub fn wall_clock(&self, at: Ktime) -> Timestamp {
        wall_clock(at)
    }

    /// The numbers so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Moves the clock, which never goes back, and judges what is due before the new time.
    fn tick(&mut self, at: Option<u64>) {
        // 0 means "never" in a snapshot.
        match at.map(|at| at.clamp(1, CLOCK_MAX)) {
            Some(at) if at >= self.clock => {
                self.judge_before(at);
                self.clock = at;
                self.summary.from.get_or_insert(wall_clock(Ktime(at)));
                self.summary.to = Some(wall_clock(Ktime(at)));
            }
            Some(_) => self.summary.out_of_order += 1,
            None => self.summary.untimed += 1,
        }
        self.clock = self.clock.max(1);
        while let Some((at, tuple)) = self.lingering.front().copied()
            && at <= self.clock
        {
            self.lingering.pop_front();
            self.forget(tuple);
        }
    }

    fn forget(&mut self, tuple: Tuple) {
        match self.tuples.get(&tuple) {
            Some(Place::Ended { forget_at }) if *forget_at <= self.clock => {
                self.tuples.remove(&tuple);
            }
            Some(Place::Live(number)) => {
                let waits = |c: &Connection| {
                    !c.is_established() && c.begun.saturating_add(LINGER) <= self.clock
                };
                if self.connections.get(number).is_some_and(waits) {
                    self.connections.remove(number);
                    self.tuples.remove(&tuple);
                }
            }
            _ => {}
        }
    }

    /// Shows the core each of its deadlines before `end`.
    fn judge_before(&mut self, end: u64) {
        while let Some(deadline) = self.deadline().filter(|at| at.0 < end) {
            self.tell_deliveries(deadline);
            self.core.handle_timeout(deadline);
            while let Some(conn) = self.core.poll_inspect() {
                let connection = self.connections.get(&conn.0);
                let facts = connection.and_then(Connection::facts);
                self.core.handle_snapshot(conn, facts.map(Box::new));
            }
            self.act();
            self.grouping.handle_timeout(deadline);
            self.tell_notices();
        }
    }

    fn tell_deliveries(&mut self, at: Ktime) {
        for (listener, stats) in (0..).map(ListenerId).zip(&self.stats) {
            let deliveries = Deliveries::of(stats);
            self.core.handle_deliveries(at, listener, deliveries);
        }
    }

    fn deadline(&self) -> Option<Ktime> {
        let deadlines = [self.core.poll_timeout(), self.grouping.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => {
                    self.summary.alerts += u64::from(alert.status == Status::Firing);
                    self.grouping.offer(alert);
                }
                Action::ListenerAlert(alert) => {
                    self.summary.alerts += u64::from(alert.firing);
                    self.grouping.pass(Notice::Listener(alert));
                }
                Action::Storm(alert) => {
                    self.summary.alerts += u64::from(alert.is_firing());
                    self.grouping.pass(Notice::Storm(alert));
                }
                Action::Transition(transition) => {
                    self.records.push_back(Record::State(Box::new(transition)));
                }
                // No record is lost here.
                Action::Reconcile => {}
            }
            self.tell_notices();
        }
    }

    fn tell_notices(&mut self) {
        let notices = std::iter::from_fn(|| self.grouping.poll_notice());
        self.records.extend(notices.map(Record::Notice));
    }

    fn segment(&mut self, tcp: &Tcp<'_>) -> Result<(), Skip> {
        let tuple = Tuple::of(tcp);
        let segment = &tcp.segment;
        let number = match self.tuples.get(&tuple) {
            Some(Place::Live(number)) => *number,
            Some(Place::Ended { .. }) if !segment.has(tcp_flags::SYN) => {
                return Err(Skip::AfterClose);
            }
            Some(Place::Foreign) if !segment.has(tcp_flags::SYN) => return Err(Skip::NotWatched),
            _ => return self.meet(tuple, tcp, Origin::Unknown),
        };
        let Some(connection) = self.connections.get_mut(&number) else {
            return self.meet(tuple, tcp, Origin::Unknown);
        };
        let direction = connection.direction(tcp);
        if connection.is_copy(direction, tcp, self.clock) {
            return Err(Skip::CapturedTwice);
        }
        match connection.interpret(direction, segment) {
            Meaning::Handshake => connection.keep_early(direction, tcp),
            Meaning::Established => {
                connection.establish(self.clock);
                self.early_traffic(number, tuple);
            }
            Meaning::Segment => {
                if !connection.is_established() {
                    connection.establish(self.clock);
                    self.early_traffic(number, tuple);
                }
                self.traffic(number, tuple, direction, tcp.into());
            }
            Meaning::Refused => {
                self.connections.remove(&number);
                self.tuples.remove(&tuple);
            }
            Meaning::Succeeded => {
                self.supersede(number);
                return self.meet(tuple, tcp, Origin::SynSeen);
            }
            Meaning::NotBelieved => return Err(Skip::StrayReset),
        }
        Ok(())
    }

    /// The first packet of a connection.
    fn meet(&mut self, tuple: Tuple, tcp: &Tcp<'_>, origin: Origin) -> Result<(), Skip> {
        let segment = &tcp.segment;
        let Some(watched) = self.watched(tcp) else {
            let ports = (tcp.source.port(), tcp.destination.port());
            if [ports, (ports.1, ports.0)].iter().any(|(local, remote)| {
                Listener::watching(&self.listeners, *local, *remote).is_some()
            }) {
                self.tuples.insert(tuple, Place::Foreign);
            }
            return Err(Skip::NotWatched);
        };
        if segment.has(tcp_flags::RST) {
            return Err(Skip::StrayReset);
        }
        self.last_number += 1;
        let number = self.last_number;
        let mut connection = Connection::new(number, self.clock, &watched, tcp);
        let begins = segment.has(tcp_flags::SYN);
        connection.is_copy(watched.direction, tcp, self.clock);
        match origin {
            _ if begins => {}
            Origin::SynSeen => connection.establish(self.clock),
            Origin::Unknown => connection.adopt(watched.direction),
        }
        match connection.interpret(watched.direction, segment) {
            Meaning::Handshake => {
                connection.keep_early(watched.direction, tcp);
                self.lingering
                    .push_back((self.clock.saturating_add(LINGER), tuple));
            }
            Meaning::Established => connection.establish(self.clock),
            _ => {}
        }
        self.connections.insert(number, connection);
        self.tuples.insert(tuple, Place::Live(number));
        if !begins {
            self.traffic(number, tuple, watched.direction, tcp.into());
        }
        Ok(())
    }

    /// Who watches this packet's connection. A server's end comes first, as with `wsmon run`;
    /// where both ends are on a watched port, the handshake tells the server, or else the packet
    /// goes to it.
    fn watched(&self, tcp: &Tcp<'_>) -> Option<Watched> {
        let begins = tcp.segment.has(tcp_flags::SYN);
        let answers = begins && tcp.segment.has(tcp_flags::ACK);
        let opens = begins && !answers;
        // Whoever opens a connection is no server, whatever port it comes from.
        let end = |is_client, local: SocketAddr, remote: SocketAddr, direction| {
            let watching = match is_client {
                true => Listener::watching_outgoing(&self.listeners, remote.port()),
                false => Listener::watching(&self.listeners, local.port(), remote.port()),
            };
            watching.map(|(listener, role)| Watched {
                listener,
                role,
                direction,
            })
        };
        let received = end(answers, tcp.destination, tcp.source, Direction::Rx);
        let sent = end(opens, tcp.source, tcp.destination, Direction::Tx);
        let (Some(received), Some(sent)) = (received, sent) else {
            return received.or(sent);
        };
        let by_receiver = match (received.role, sent.role) {
            (Role::Server, _) => true,
            (Role::Client, Role::Server) => false,
            (Role::Client, Role::Client) => answers,
        };
        Some(if by_receiver { received } else { sent })
    }
}

impl Tuple {
    fn of(tcp: &Tcp<'_>) -> Self {
        let (a, b) = (tcp.source, tcp.destination);
        if a <= b { Self(a, b) } else { Self(b, a) }
    }
}
