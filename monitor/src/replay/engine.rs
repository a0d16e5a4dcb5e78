//! The native twin of the kernel programs and of the daemon's loop: a table of connections, a clock
//! driven by the packets, and the core.

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
    connection::{PacketMeaning, ReplayedConnection, Watched},
    early_data::Early,
    headers::{self, TcpSegment},
    ports,
    report::{ReplayRecord, wall_clock},
};
use crate::{
    config::listeners::ListenerConfig,
    records::{
        connection_summary::ConnectionEnd, recording_summary::RecordingSummary, skipped::Skip,
    },
};
use monitor_core::{
    Action, Correlator, Grouping, KnownHop, Ktime, ListenerId, PastVerdict, State, Subject,
    facts::Role,
};

mod counts;
mod traffic;

use counts::CountsTimer;

/// How long a handshake may take, and how long packets may follow a connection's end. Longer than Linux
/// retries a SYN (tcp_syn_retries) or stays in TIME_WAIT.
const LINGER: u64 = 130_000_000_000;

/// Maximum number of remembered connections opened from a watched port. Remembering them prevents their
/// later packets from being attributed to a server.
const MOST_FOREIGN: usize = 65_536;

/// The year 2262. A later time stamp is invalid, and must not overflow sums.
const CLOCK_MAX: u64 = i64::MAX as u64;

/// A replay in progress.
#[derive(Debug)]
pub struct Replay {
    listeners: Vec<ListenerConfig>,
    limits: Vec<ListenerLimits>,
    stats: Vec<ListenerStats>,
    counts_timer: CountsTimer,
    core: Correlator,
    grouping: Grouping,
    /// The latest time stamp, nanoseconds since the epoch.
    clock: u64,
    tuples: HashMap<Tuple, TablePlace>,
    /// By number, which replaces the socket cookie.
    connections: HashMap<u64, ReplayedConnection>,
    /// The tuples in [`TablePlace::Foreign`], in order of arrival.
    foreign: VecDeque<Tuple>,
    /// When to forget handshakes that never completed, and connections that ended.
    lingering: VecDeque<(u64, Tuple)>,
    /// Packets that wait for those that they acknowledge.
    early: Early,
    last_number: u64,
    /// The frames of the current segment, and its connection.
    frames: (u64, Vec<SeenFrame>),
    /// Of the connection that the core has just closed.
    verdicts: Vec<PastVerdict>,
    records: VecDeque<ReplayRecord>,
    summary: RecordingSummary,
}

/// Both ends of a connection, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple(pub(super) SocketAddr, pub(super) SocketAddr);

#[derive(Clone, Copy, Debug)]
enum TablePlace {
    Live(u64),
    Ended {
        forget_at: u64,
    },
    /// Opened from a watched port, as its SYN showed, so not watched.
    Foreign,
}

/// How a connection began, if that was seen before its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamOrigin {
    SynSeen,
    Unknown,
}

impl Replay {
    pub fn new(listeners: Vec<ListenerConfig>) -> Self {
        let rules = listeners.iter().map(|listener| listener.rules.clone());
        Self {
            // Snapshots are not published late here: they are exact.
            core: Correlator::new(rules.collect(), Duration::ZERO),
            grouping: Grouping::default(),
            limits: listeners.iter().map(ListenerConfig::limits).collect(),
            stats: vec![ListenerStats::EMPTY; listeners.len()],
            counts_timer: CountsTimer::new(&listeners),
            listeners,
            clock: 0,
            tuples: HashMap::new(),
            connections: HashMap::new(),
            foreign: VecDeque::new(),
            lingering: VecDeque::new(),
            early: Early::default(),
            last_number: 0,
            frames: (0, Vec::new()),
            verdicts: Vec::new(),
            records: VecDeque::new(),
            summary: RecordingSummary::default(),
        }
    }

    /// Sets the middleboxes whose names may explain a learned timeout.
    pub fn set_known_hops(&mut self, known: Vec<KnownHop>) {
        self.core.handle_known_hops(known);
    }

    /// Processes the next packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.summary.packets += 1;
        self.tick(packet.at);
        match headers::tcp(packet) {
            Ok(tcp) => self.put_in_order(packet, &tcp),
            Err(reason) => {
                self.summary.skipped.count(reason);
                if let (Skip::LinkType, Some(link)) = (reason, packet.link) {
                    *self.summary.unread_links.entry(link).or_default() += 1;
                }
            }
        }
        self.act();
    }

    /// Processes a segment, or holds it until the segment that it acknowledges arrives.
    fn put_in_order(&mut self, packet: &Packet<'_>, tcp: &TcpSegment<'_>) {
        let tuple = Tuple::of(tcp);
        // A segment from the awaited side is processed immediately, whatever it acknowledges.
        let waits = match self.early.waits(tuple) {
            Some(from) => from == tcp.source,
            None => self.is_early(tuple, tcp),
        };
        if waits {
            self.early.store(self.clock, tuple, tcp.source, packet);
            if self.early.is_full(tuple) {
                self.give_up_waiting(tuple);
            }
            while let Some(overdue) = self.early.overdue(self.clock) {
                self.give_up_waiting(overdue);
            }
            return;
        }
        self.take(tcp);
        // Others may be waiting for this segment.
        while let Some(held) = self.early.first(tuple) {
            match headers::tcp(&held.packet()) {
                Ok(tcp) if self.is_early(tuple, &tcp) => return,
                _ => self.take_held(tuple),
            }
        }
    }

    /// Stops waiting: what a connection's packets acknowledge did not arrive.
    fn give_up_waiting(&mut self, tuple: Tuple) {
        if let Some(TablePlace::Live(number)) = self.tuples.get(&tuple)
            && let Some(connection) = self.connections.get_mut(number)
        {
            connection.in_vain = connection.in_vain.saturating_add(1);
        }
        while self.early.first(tuple).is_some() {
            self.take_held(tuple);
        }
    }

    fn take_held(&mut self, tuple: Tuple) {
        if let Some(held) = self.early.take(tuple)
            && let Ok(tcp) = headers::tcp(&held.packet())
        {
            self.take(&tcp);
        }
    }

    fn take(&mut self, tcp: &TcpSegment<'_>) {
        match self.segment(tcp) {
            Ok(()) => self.summary.segments += 1,
            Err(reason) => self.summary.skipped.count(reason),
        }
        self.act();
    }

    /// Whether a segment answers one that was not recorded yet: it acknowledges bytes that were not
    /// sent, or is the 101 of an otherwise unknown connection.
    fn is_early(&self, tuple: Tuple, tcp: &TcpSegment<'_>) -> bool {
        match self.tuples.get(&tuple) {
            Some(TablePlace::Live(number)) => {
                self.connections.get(number).is_some_and(|connection| {
                    connection.acknowledges_unseen(connection.direction(tcp), &tcp.segment)
                })
            }
            Some(TablePlace::Ended { .. } | TablePlace::Foreign) => false,
            None => ports::is_switching(tcp.payload) && self.watched(tcp).is_some(),
        }
    }

    /// Ends the recording: judges what was due by its last packet, and reports the connections that are
    /// still open.
    pub fn finish(&mut self) {
        while let Some(overdue) = self.early.overdue(u64::MAX) {
            self.give_up_waiting(overdue);
        }
        self.judge_before(self.clock.saturating_add(1));
        self.grouping.flush();
        self.emit_alerts();
        let mut numbers: Vec<_> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(connection) = self.connections.remove(&number) {
                self.emit_connection(connection, ConnectionEnd::Open);
            }
        }
        self.tuples.clear();
        self.foreign.clear();
        self.lingering.clear();
    }

    /// The next record to report, in order.
    pub fn poll_record(&mut self) -> Option<ReplayRecord> {
        self.records.pop_front()
    }

    /// The listener of a connection or an alert of this replay.
    pub fn listener(&self, id: ListenerId) -> &ListenerConfig {
        &self.listeners[id.index()]
    }

    /// The time stamp of a moment of this replay, whose clock is that of the packets.
    pub fn wall_clock(&self, at: Ktime) -> Timestamp {
        wall_clock(at)
    }

    /// The numbers so far.
    pub fn summary(&self) -> &RecordingSummary {
        &self.summary
    }

    /// Advances the clock, which never goes back, and judges what is due before the new time.
    fn tick(&mut self, at: Option<u64>) {
        // 0 means "never" in a snapshot.
        match at.map(|at| at.clamp(1, CLOCK_MAX)) {
            Some(at) if at >= self.clock => {
                while let Some(overdue) = self.early.overdue(at) {
                    self.give_up_waiting(overdue);
                }
                self.judge_before(at);
                self.clock = at;
                self.counts_timer.arm(at);
                self.summary
                    .first_packet_at
                    .get_or_insert(wall_clock(Ktime(at)));
                self.summary.last_packet_at = Some(wall_clock(Ktime(at)));
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
            Some(TablePlace::Ended { forget_at }) if *forget_at <= self.clock => {
                self.tuples.remove(&tuple);
            }
            Some(TablePlace::Live(number)) => {
                let waits = |c: &ReplayedConnection| {
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

    /// Runs each of the core's deadlines before `end`.
    fn judge_before(&mut self, end: u64) {
        while let Some(deadline) = self.deadline().filter(|at| at.0 < end) {
            self.show_counts(deadline);
            self.core.handle_timeout(deadline);
            while let Some(conn) = self.core.poll_inspect() {
                let connection = self.connections.get(&conn.0);
                let facts = connection
                    .and_then(ReplayedConnection::detail)
                    .map(|detail| detail.facts);
                self.core.handle_snapshot(conn, facts.map(Box::new));
            }
            self.act();
            self.grouping.handle_timeout(deadline);
            self.emit_alerts();
        }
    }

    fn deadline(&self) -> Option<Ktime> {
        let deadlines = [
            self.core.poll_timeout(),
            self.grouping.poll_timeout(),
            self.counts_timer.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Alert(alert) => {
                    self.summary.alerts += u64::from(alert.is_firing());
                    // It may be a death that reveals a limit.
                    if let Subject::Connection(_) = alert.subject {
                        self.counts_timer.arm(alert.at.0);
                    }
                    self.grouping.offer(alert);
                }
                Action::Transition(transition) => {
                    let opens = transition.to == State::Open;
                    self.records
                        .push_back(ReplayRecord::State(Box::new(transition)));
                    if opens {
                        self.emit_frames();
                    }
                }
                Action::Ended(ended) => self.verdicts = ended.verdicts,
                // No record is lost here.
                Action::Reconcile => {}
            }
            self.emit_alerts();
        }
    }

    fn emit_alerts(&mut self) {
        let alerts = std::iter::from_fn(|| self.grouping.poll_alert());
        self.records.extend(alerts.map(ReplayRecord::Alert));
    }

    fn segment(&mut self, tcp: &TcpSegment<'_>) -> Result<(), Skip> {
        let tuple = Tuple::of(tcp);
        let segment = &tcp.segment;
        let number = match self.tuples.get(&tuple) {
            Some(TablePlace::Live(number)) => *number,
            Some(TablePlace::Ended { .. }) if !segment.has(tcp_flags::SYN) => {
                return Err(Skip::AfterClose);
            }
            Some(TablePlace::Foreign) if !segment.has(tcp_flags::SYN) => {
                return Err(Skip::NotWatched);
            }
            _ => return self.meet(tuple, tcp, StreamOrigin::Unknown),
        };
        let Some(connection) = self.connections.get_mut(&number) else {
            return self.meet(tuple, tcp, StreamOrigin::Unknown);
        };
        let direction = connection.direction(tcp);
        if connection.is_copy(direction, tcp, self.clock) {
            return Err(Skip::CapturedTwice);
        }
        match connection.interpret(direction, tcp) {
            PacketMeaning::Handshake => connection.keep_early(direction, tcp),
            PacketMeaning::Established => {
                connection.establish(self.clock);
                self.early_traffic(number, tuple);
            }
            PacketMeaning::Segment => {
                if !connection.is_established() {
                    connection.establish(self.clock);
                    self.early_traffic(number, tuple);
                }
                self.traffic(number, tuple, direction, tcp.into());
            }
            PacketMeaning::Refused => {
                self.connections.remove(&number);
                self.tuples.remove(&tuple);
            }
            PacketMeaning::Succeeded => {
                self.supersede(number);
                return self.meet(tuple, tcp, StreamOrigin::SynSeen);
            }
            PacketMeaning::NotBelieved => return Err(Skip::StrayReset),
        }
        Ok(())
    }

    /// Handles the first packet of a connection.
    fn meet(
        &mut self,
        tuple: Tuple,
        tcp: &TcpSegment<'_>,
        origin: StreamOrigin,
    ) -> Result<(), Skip> {
        let segment = &tcp.segment;
        let Some(watched) = self.watched(tcp) else {
            let ports = (tcp.source.port(), tcp.destination.port());
            if [ports, (ports.1, ports.0)].iter().any(|(local, remote)| {
                ListenerConfig::watching(&self.listeners, *local, *remote).is_some()
            }) {
                self.note_foreign(tuple);
            }
            return Err(Skip::NotWatched);
        };
        if segment.has(tcp_flags::RST) {
            return Err(Skip::StrayReset);
        }
        self.last_number += 1;
        let number = self.last_number;
        let mut connection = ReplayedConnection::new(number, self.clock, &watched, tcp);
        let begins = segment.has(tcp_flags::SYN);
        connection.is_copy(watched.direction, tcp, self.clock);
        match origin {
            _ if begins => {}
            StreamOrigin::SynSeen => connection.establish(self.clock),
            StreamOrigin::Unknown => connection.join_mid_stream(watched.direction),
        }
        match connection.interpret(watched.direction, tcp) {
            PacketMeaning::Handshake => {
                connection.keep_early(watched.direction, tcp);
                self.lingering
                    .push_back((self.clock.saturating_add(LINGER), tuple));
            }
            PacketMeaning::Established => connection.establish(self.clock),
            _ => {}
        }
        self.connections.insert(number, connection);
        self.tuples.insert(tuple, TablePlace::Live(number));
        if !begins {
            self.traffic(number, tuple, watched.direction, tcp.into());
        }
        Ok(())
    }

    fn note_foreign(&mut self, tuple: Tuple) {
        if let Some(TablePlace::Foreign) = self.tuples.insert(tuple, TablePlace::Foreign) {
            return;
        }
        self.foreign.push_back(tuple);
        if self.foreign.len() > MOST_FOREIGN
            && let Some(oldest) = self.foreign.pop_front()
            && let Some(TablePlace::Foreign) = self.tuples.get(&oldest)
        {
            self.tuples.remove(&oldest);
            self.summary.forgotten_outgoing += 1;
        }
    }

    /// The listener and the end that watch this packet's connection. A server's end takes precedence,
    /// as with `wsmon run`. If both ends are on a watched port, the handshake identifies the server;
    /// without it, the destination of the packet is the server.
    fn watched(&self, tcp: &TcpSegment<'_>) -> Option<Watched> {
        let begins = tcp.segment.has(tcp_flags::SYN);
        let answers = begins && tcp.segment.has(tcp_flags::ACK);
        let opens = begins && !answers;
        // The side that opens a connection is not a server, whatever its port.
        let end = |is_client, local: SocketAddr, remote: SocketAddr, direction| {
            let watching = match is_client {
                true => ListenerConfig::watching_outgoing(&self.listeners, remote.port()),
                false => ListenerConfig::watching(&self.listeners, local.port(), remote.port()),
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
    fn of(tcp: &TcpSegment<'_>) -> Self {
        let (a, b) = (tcp.source, tcp.destination);
        if a <= b { Self(a, b) } else { Self(b, a) }
    }
}
