//! Simulated servers and their clients: the records that cross the server's socket, and their times.

use std::collections::VecDeque;

use monitor_common::{
    Direction,
    listener::ListenerLimits,
    replay::Connection,
    segment::{Segment, tcp_flags},
    snapshot::Snapshot,
    stats::ListenerStats,
};
use wire::{
    APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, client_hello, server_hello, tls_record,
};

use crate::servers::{Client, Server};

pub(crate) const MILLI: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MILLI;

/// What the application does besides heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chatter {
    Nothing,
    /// The client says something now and then, and the server answers.
    Chat,
    /// The server sends texts of all lengths, which others wrote. Rarely, the client sends one.
    Room,
    /// The server sends texts as long as its pings, at random.
    TextsLikePings,
    /// The server sends a text of the same length every second.
    Ticks,
    /// The client asks every 3 s and is answered at once.
    Polls,
    /// The client confirms each of the server's texts, which come at random.
    Confirmed,
    /// The server sends ten texts at once.
    Bursts,
    /// Both sides send the same text, each by a timer of its own. The client's slows down, as in a hidden
    /// browser tab.
    TwoTimers,
}

impl Chatter {
    pub(crate) const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Chat,
        Self::Room,
        Self::TextsLikePings,
        Self::Ticks,
        Self::Polls,
        Self::Confirmed,
        Self::Bursts,
        Self::TwoTimers,
    ];
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) chatter: Chatter,
    /// Nanoseconds; 0 = none.
    pub(crate) ping_period: u64,
    pub(crate) round_trip: u64,
    /// Segments that are lost, of 1,000.
    pub(crate) loss: u64,
    /// When the client stops. Its kernel goes on.
    pub(crate) stops_at: u64,
    pub(crate) ends_at: u64,
    pub(crate) seed: u64,
}

/// What a socket sees.
struct Events {
    all: Vec<Event>,
    random: u64,
    scenario: Scenario,
}

/// A segment; an acknowledgement if it is empty.
struct Event {
    /// When it was sent for the first time, which gives its place in the stream.
    sent_at: u64,
    /// When it passes the socket.
    at: u64,
    direction: Direction,
    bytes: Vec<u8>,
    place: usize,
    /// For bytes of this host, when an acknowledgement of them can pass the socket.
    acked_at: u64,
    /// How much of the other direction it acknowledges.
    ack: usize,
}

impl Events {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// How much later a segment arrives because it was lost.
    fn delay(&mut self) -> u64 {
        let mut timeout = 200 * MILLI + self.scenario.round_trip;
        let mut delay = 0;
        while self.random(1000) < self.scenario.loss {
            delay += timeout;
            timeout *= 2;
        }
        delay
    }

    /// A segment of the client that arrives at `at`, later by `delay` if it was lost.
    fn receive(&mut self, at: u64, delay: u64, bytes: Vec<u8>) {
        self.all.push(Event {
            sent_at: at,
            at: at + delay,
            direction: Direction::Rx,
            bytes,
            place: 0,
            acked_at: 0,
            ack: 0,
        });
    }

    /// A segment of the server. Returns when it can be answered.
    fn send(&mut self, at: u64, bytes: Vec<u8>) -> u64 {
        let acked_at = at + self.scenario.round_trip + self.delay();
        self.all.push(Event {
            sent_at: at,
            at,
            direction: Direction::Tx,
            bytes,
            place: 0,
            acked_at,
            ack: 0,
        });
        acked_at
    }

    /// The server sends a frame of this payload length. Returns when its answer can come.
    fn server(&mut self, at: u64, payload: usize) -> u64 {
        let Scenario { server, client, .. } = self.scenario;
        let acked_at = self.send(at, record(2 + payload, server.padding, server));
        self.receive(acked_at + client.ack_delay, 0, Vec::new());
        acked_at
    }

    /// The client sends a masked frame, which arrives at `at` unless it is lost.
    fn client(&mut self, at: u64, payload: usize) {
        if at < self.scenario.stops_at {
            let delay = self.delay();
            let Scenario { server, client, .. } = self.scenario;
            let record = record(6 + payload, client.padding, server);
            self.receive(at, delay, record);
        }
    }

    fn handshake(&mut self) {
        let Scenario { server, client, .. } = self.scenario;
        let finished = match server.suite {
            0x1302 => 53 + 16,
            _ => 53,
        };
        let data = |len| tls_record(APPLICATION_DATA, &vec![0xee; len]);
        let padded = |lens: &[usize]| -> Vec<u8> {
            let records = lens.iter().map(|len| data(len + client.padding));
            records.flatten().collect()
        };
        let early_data = padded(client.early_data);
        let hello = client_hello(client.protocols, 300);
        self.receive(SECOND, 0, [hello, early_data.clone()].concat());
        let mut flight = server_hello(server.is_1_3, server.suite, None);
        let mut end = tls_record(CHANGE_CIPHER_SPEC, &[1]);
        if server.is_1_3 {
            flight.extend(tls_record(CHANGE_CIPHER_SPEC, &[1]));
            if server.packs {
                flight.extend(data(580));
            } else {
                for len in [23, 900, 281, finished] {
                    flight.extend(data(len + server.padding));
                }
            }
            end.extend(early_data);
            end.extend(padded(client.flight));
            end.extend(data(finished + client.padding));
        } else {
            flight.extend(tls_record(HANDSHAKE, &[11; 900]));
            end.extend(tls_record(HANDSHAKE, &[0xee; 40]));
        }
        let acked_at = self.send(SECOND + MILLI, flight);
        self.receive(acked_at + MILLI, 0, [end, data(600)].concat());
        self.send(acked_at + 2 * MILLI, data(200));
    }

    fn pings(&mut self) {
        let Scenario {
            ping_period,
            ends_at,
            round_trip,
            ..
        } = self.scenario;
        if ping_period == 0 {
            return;
        }
        let mut at = 2 * SECOND + round_trip + ping_period;
        while at < ends_at {
            let len = self.scenario.server.ping;
            let think = self.random(4 * MILLI);
            if self.scenario.client.pings {
                self.client(at, len);
                self.server(at + think, len);
            } else {
                let arrived = self.server(at, len);
                self.client(arrived + think, len);
            }
            at += ping_period + self.random(20 * MILLI);
        }
    }

    fn chatter(&mut self) {
        let Scenario {
            ends_at,
            round_trip,
            server,
            chatter,
            ..
        } = self.scenario;
        let mut at = 2 * SECOND + round_trip;
        while at < ends_at {
            let pause = match chatter {
                Chatter::Nothing => return,
                Chatter::TwoTimers => return self.two_timers(),
                Chatter::Ticks => SECOND,
                Chatter::Polls => 3 * SECOND,
                Chatter::Bursts => 5 * SECOND + self.random(5 * SECOND),
                _ => 200 * MILLI + self.random(4 * SECOND),
            };
            at += pause;
            let len = 1 + self.random(120) as usize;
            match chatter {
                Chatter::Nothing | Chatter::TwoTimers => {}
                Chatter::Chat | Chatter::Polls => {
                    self.client(at, len);
                    let answer = self.random(100) as usize;
                    if at < self.scenario.stops_at {
                        self.server(at + MILLI, answer);
                    }
                }
                Chatter::Room => {
                    self.server(at, len);
                    if self.random(20) == 0 {
                        self.client(at + 100 * MILLI, len);
                    }
                }
                Chatter::TextsLikePings => {
                    self.server(at, server.ping);
                }
                Chatter::Ticks => {
                    self.server(at, 30);
                }
                Chatter::Confirmed => {
                    let arrived = self.server(at, len);
                    self.client(arrived + MILLI, 12);
                }
                Chatter::Bursts => {
                    for _ in 0..10 {
                        self.server(at, len);
                    }
                }
            }
        }
    }
}

impl Events {
    /// With the same interval, until the client's timer slows down to once a minute.
    fn two_timers(&mut self) {
        /// The payload of a ping of SignalR.
        const TEXT: usize = 11;
        let ends_at = self.scenario.ends_at;
        // With a shorter one, a verdict does not wait for a timer that slowed down.
        let interval = (ends_at / 40).max(4 * SECOND);
        let jitter = [MILLI, 20 * MILLI][self.random(2) as usize];
        let begin = 2 * SECOND + self.random(interval);
        let mut at = begin;
        while at < ends_at {
            self.server(at, TEXT);
            at += interval + self.random(jitter);
        }
        let slows_at = interval * (10 + self.random(20));
        let mut at = begin + self.random(SECOND);
        while at < ends_at {
            self.client(at, TEXT);
            let pause = if at < slows_at { interval } else { 60 * SECOND };
            at += pause + self.random(jitter);
        }
    }
}

/// What became of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// At its end.
    pub(crate) last: Snapshot,
    /// When it first looked unresponsive: two pings unanswered, and the second for long enough.
    pub(crate) accused_at: Option<u64>,
    /// When the first ping was recognised.
    pub(crate) learned_at: Option<u64>,
}

impl Scenario {
    /// Passes all of its segments through the packet logic.
    pub(crate) fn run(self) -> Outcome {
        let mut events = Events {
            all: Vec::new(),
            random: self.seed | 1,
            scenario: self,
        };
        events.handshake();
        events.pings();
        events.chatter();
        let mut socket = Socket::new();
        if self.client.is_older {
            socket.connection.flow.join_mid_stream(Direction::Rx);
        }
        let mut outcome = Outcome {
            last: Snapshot::EMPTY,
            accused_at: None,
            learned_at: None,
        };
        for event in events.in_order() {
            let at = event.at;
            if at > self.ends_at {
                break;
            }
            if self.client.is_older && at < 3 * SECOND {
                continue;
            }
            let s = &socket.connection.flow.snapshot;
            if outcome.accused_at.is_none() && is_unresponsive(s, at) {
                outcome.accused_at = Some(at);
            }
            socket.take(&event);
            if outcome.learned_at.is_none() && has_pings(&socket.connection) {
                outcome.learned_at = Some(at);
            }
        }
        outcome.last = socket.connection.flow.snapshot;
        outcome
    }
}

impl Events {
    /// The events as they pass, each with its place in the stream.
    fn in_order(self) -> Vec<Event> {
        let mut events = self.all;
        events.sort_by_key(|event| event.sent_at);
        let mut next = [0; 2];
        for event in &mut events {
            event.place = next[event.direction.index()];
            next[event.direction.index()] += event.bytes.len();
        }
        events.sort_by_key(|event| event.at);
        let mut unacked: VecDeque<_> = events
            .iter()
            .filter(|event| event.direction == Direction::Tx)
            .map(|event| (event.acked_at, event.place + event.bytes.len()))
            .collect();
        let mut acked = 0;
        for event in events
            .iter_mut()
            .filter(|event| event.direction == Direction::Rx)
        {
            while let Some((_, end)) = unacked.pop_front_if(|(at, _)| *at <= event.at) {
                acked = end;
            }
            event.ack = acked;
        }
        events
    }
}

/// A record that holds this many bytes and zeros. In CBC mode, it has an initialisation vector, a SHA-256
/// and at least one byte of padding.
fn record(plain: usize, padding: usize, server: Server) -> Vec<u8> {
    let body = match server.overhead {
        0 => 16 + (plain + 32 + 1).next_multiple_of(16),
        overhead => plain + padding + overhead,
    };
    tls_record(APPLICATION_DATA, &vec![0xee; body])
}

/// As in the core's rule: the second ping has waited for four round trips, at least for a second. If the pings
/// are at least 3 s apart, nothing has come for 64 s more.
fn is_unresponsive(s: &Snapshot, now: u64) -> bool {
    let first = s.first_try.nanos(now);
    let second = s.second_try(first);
    let grace = (4_000 * u64::from(s.ping_rtt_us[1])).max(SECOND);
    let is_quick = u64::from(s.tx.ping_interval) << 24 < 29 * SECOND / 10;
    second != 0
        && now > second + grace
        && (is_quick || now > s.rx.last_payload + 64 * SECOND + grace)
}

fn has_pings(connection: &Connection) -> bool {
    let s = &connection.flow.snapshot;
    s.tx.pings + s.rx.pings > 0
}

/// By direction, the sequence number of the first byte.
const ISN: [u32; 2] = [1000, 5000];

struct Socket {
    connection: Connection,
    stats: ListenerStats,
    /// By direction, the highest byte that passed.
    ends: [u32; 2],
}

impl Socket {
    fn new() -> Self {
        Self {
            connection: Connection::EMPTY,
            stats: ListenerStats::EMPTY,
            ends: ISN,
        }
    }

    fn take(&mut self, event: &Event) {
        let (direction, bytes) = (event.direction, &event.bytes);
        let i = direction.index();
        let seq = ISN[i] + event.place as u32;
        self.ends[i] = self.ends[i].max(seq + bytes.len() as u32);
        let segment = Segment {
            seq,
            ack: match direction {
                Direction::Rx => ISN[1] + event.ack as u32,
                Direction::Tx => self.ends[0],
            },
            window: 1000,
            flags: tcp_flags::ACK,
            payload_len: bytes.len() as u32,
            ..Segment::EMPTY
        };
        self.connection.take(
            direction,
            &segment,
            bytes,
            event.at,
            &ListenerLimits::default(),
            &mut self.stats,
            |_| {},
        );
    }
}
