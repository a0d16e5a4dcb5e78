//! Both ends and the path between them in virtual time: converts the steps of a story into the packets
//! of a capture on the host.
//!
//! The TCPs are as simple as a story needs. Every segment is acknowledged on arrival. A lost segment is
//! retransmitted 0.2 s after the last measured round trip, then after twice as long, and so on (RFC
//! 6298 §5.5). A closed window is probed at the same intervals.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use wire::{ACK, BINARY, Conversation, End, FIN, MILLI, Recording, SECOND, START};

use crate::{
    frames::{header, sealed},
    story::{Connection, Opening, Step, Story},
};

mod host;
mod peer;

const SEGMENT: usize = 1400;
/// The longest retransmission timeout (TCP_RTO_MAX).
const LONGEST_RTO: u64 = 120 * SECOND;
/// After this many retransmissions TCP gives up (net.ipv4.tcp_retries2).
const RETRIES: u32 = 15;

/// The true state of a connection, independent of what wsmon saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// When the peer was unreachable or unresponsive, seconds.
    pub(crate) dead: Vec<Range<f64>>,
    /// Whether a RST or the FINs of both ends were sent.
    pub(crate) is_over: bool,
}

impl Life {
    pub(crate) fn is_dead(&self, at: f64) -> bool {
        self.dead.iter().any(|dead| dead.contains(&at))
    }

    /// Since when it is permanently dead, if no end closed it.
    pub(crate) fn died(&self) -> Option<f64> {
        let last = self.dead.last()?;
        (!self.is_over && last.end.is_infinite()).then_some(last.start)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Up,
    Broken,
    Resets,
}

#[derive(Debug)]
enum Event {
    Step(Step),
    /// A segment of the host, up to this sequence number, reaches the peer, which responds.
    Reaches {
        seq: u32,
        end: u32,
    },
    /// The path's RST.
    Resets,
    /// The host processes what arrived.
    HostTakes,
    /// The retransmission timer; void if there was progress since.
    Timer {
        generation: u32,
    },
    /// The host probes whether the window is still closed.
    Probe {
        after: u64,
    },
    /// The peer's TCP sends its queue.
    Flush,
    /// The next piece of an upload.
    Upload {
        left: usize,
        kbits: u32,
    },
}

#[derive(Debug)]
struct Sent {
    /// When it was sent; `None` once it was retransmitted (Karn's algorithm).
    at: Option<u64>,
    seq: u32,
    end: u32,
    flags: u8,
    bytes: Vec<u8>,
    is_lost: bool,
}

pub(crate) struct World {
    talk: Conversation,
    recording: Recording,
    host: End,
    is_tls: bool,
    now: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    entries: u64,
    path: Path,
    loses: u32,
    sent: u32,
    kbits: u32,
    link_free_at: u64,
    round_trip: u64,
    /// The last round trip measured by the host's TCP.
    measured: u64,
    // The host.
    unacked: VecDeque<Sent>,
    waiting: VecDeque<Vec<u8>>,
    generation: u32,
    tries: u32,
    pings: u8,
    reads: bool,
    window_closed: bool,
    pongs_to_give: Vec<u8>,
    // The peer.
    is_awake: bool,
    proxy_answers: bool,
    ignores_pings: bool,
    has_left: bool,
    uploads: bool,
    owed: Vec<u8>,
    peer_pings: u8,
    peer_reads: bool,
    peer_window_closed: bool,
    held: VecDeque<Vec<u8>>,
    fins: [bool; 2],
    life: Life,
}

/// The packets of a connection, and its true state.
pub(crate) fn simulate(story: &Story, connection: &Connection) -> (Recording, Life) {
    let mut world = World::new(story, connection);
    for (at, step) in &connection.steps {
        world.plan(START + nanos(*at), Event::Step(*step));
    }
    let until = START + nanos(story.until);
    while let Some(entry) = world.agenda.first_entry() {
        let (at, _) = *entry.key();
        let event = entry.remove();
        if at > until || world.life.is_over {
            break;
        }
        world.now = at;
        world.handle(event);
    }
    if matches!(connection.opening, Opening::Unseen) {
        let first = connection
            .steps
            .iter()
            .map(|(at, _)| START + nanos(*at))
            .min();
        world.recording.packets.retain(|(at, _)| Some(*at) >= first);
    }
    (world.recording, world.life)
}

pub(crate) fn nanos(seconds: f64) -> u64 {
    (seconds * SECOND as f64).round() as u64
}

impl World {
    fn new(story: &Story, connection: &Connection) -> Self {
        let mut talk = Conversation::new(&connection.client, "10.0.0.1:8080");
        if story.is_mptcp {
            // DSS (RFC 8684 §3.3).
            talk.headers.tcp_options = vec![30, 12, 0x20, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        }
        let mut recording = Recording::default();
        let at = START + nanos(connection.begins);
        talk.syn(&mut recording, at);
        talk.syn_ack(&mut recording, at + MILLI);
        if !matches!(connection.opening, Opening::Deferred) {
            talk.ack(&mut recording, at + 2 * MILLI, End::Client);
        }
        let (request, response) = connection.opening.heads();
        talk.says(&mut recording, at + 5 * MILLI, End::Client, request);
        talk.says(&mut recording, at + 6 * MILLI, End::Server, response);
        talk.ack(&mut recording, at + 7 * MILLI, End::Client);
        Self {
            talk,
            recording,
            host: match story.is_outgoing {
                true => End::Client,
                false => End::Server,
            },
            is_tls: matches!(connection.opening, Opening::Tls),
            now: at,
            agenda: BTreeMap::new(),
            entries: 0,
            path: Path::Up,
            loses: 0,
            sent: 0,
            kbits: 0,
            link_free_at: 0,
            round_trip: 20 * MILLI,
            measured: 20 * MILLI,
            unacked: VecDeque::new(),
            waiting: VecDeque::new(),
            generation: 0,
            tries: 0,
            pings: 0,
            reads: true,
            window_closed: false,
            pongs_to_give: Vec::new(),
            is_awake: true,
            proxy_answers: false,
            ignores_pings: false,
            has_left: false,
            uploads: false,
            owed: Vec::new(),
            peer_pings: 0,
            peer_reads: true,
            peer_window_closed: false,
            held: VecDeque::new(),
            fins: [false; 2],
            life: Life::default(),
        }
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.entries += 1;
        self.agenda.insert((at, self.entries), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Step(step) => self.step(step),
            Event::Reaches { seq, end } => self.reach(seq, end),
            Event::Resets => self.peer_resets(),
            Event::HostTakes => self.host_takes(),
            Event::Timer { generation } if generation == self.generation => self.time_out(),
            Event::Timer { .. } => {}
            Event::Probe { after } => self.probe(after),
            Event::Flush => self.flush(),
            Event::Upload { left, kbits } => self.upload(left, kbits),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Host(act) => self.host_acts(act),
            Step::Peer(act) => self.peer_acts(act),
            Step::PathBreaks => self.turn(Path::Broken),
            Step::PathResets => self.turn(Path::Resets),
            Step::PathHeals => {
                self.turn(Path::Up);
                self.plan(self.now + 300 * MILLI, Event::Flush);
            }
            Step::PathLoses(each) => self.loses = each,
            Step::PathSlows(kbits) => self.kbits = kbits,
            Step::PathTakes(seconds) => self.round_trip = nanos(seconds),
            Step::PeerFreezes => {
                self.is_awake = false;
                self.note_death();
            }
            Step::PeerWakes => {
                self.is_awake = true;
                self.note_death();
                self.response();
            }
            Step::ProxyAnswersPings => self.proxy_answers = true,
            Step::PeerIgnoresPings => self.ignores_pings = true,
            Step::PeerStopsReading => self.peer_reads = false,
            Step::PeerReads => {
                self.peer_reads = true;
                self.peer_window_closed = false;
                self.acknowledge(self.host.other());
                while let Some(bytes) = self.waiting.pop_front() {
                    self.host_sends(bytes, ACK);
                }
            }
            Step::PeerUploads(bytes, kbits) => {
                self.uploads = true;
                let masked = self.host == End::Server;
                self.peer_sends(header(BINARY, bytes, masked));
                self.plan(self.now, Event::Upload { left: bytes, kbits });
            }
            Step::HostStopsReading => self.reads = false,
            Step::HostReads => {
                self.reads = true;
                self.window_closed = false;
                self.acknowledge(self.host);
                self.plan(self.now + self.round_trip, Event::Flush);
            }
        }
    }

    fn turn(&mut self, path: Path) {
        self.path = path;
        self.note_death();
    }

    fn note_death(&mut self) {
        let now = (self.now - START) as f64 / SECOND as f64;
        let is_dead = self.path != Path::Up || !self.is_awake;
        let dead = &mut self.life.dead;
        let was_dead = dead.last().is_some_and(|last| last.end.is_infinite());
        match dead.last_mut() {
            Some(last) if was_dead && !is_dead => last.end = now,
            _ if is_dead && !was_dead => dead.push(now..f64::INFINITY),
            _ => {}
        }
    }

    /// Sends a segment; returns whether it gets lost on the path.
    fn transit(&mut self, seq: u32, end: u32) -> bool {
        self.sent += 1;
        let lost =
            self.path != Path::Up || (self.loses != 0 && self.sent.is_multiple_of(self.loses));
        if self.path == Path::Resets {
            self.plan(self.now + self.round_trip, Event::Resets);
        } else if !lost {
            let bits = u64::from(end.wrapping_sub(seq)) * 8;
            let takes = bits * MILLI / u64::from(self.kbits.max(1)) * u64::from(self.kbits != 0);
            self.link_free_at = self.link_free_at.max(self.now) + takes;
            let at = self.link_free_at + self.round_trip;
            self.plan(at, Event::Reaches { seq, end });
        }
        lost
    }

    fn acknowledge(&mut self, from: End) {
        if from == self.host || self.path == Path::Up {
            self.record(from, ACK, &[]);
        }
    }

    fn record(&mut self, from: End, flags: u8, bytes: &[u8]) {
        let is_closed = match from == self.host {
            true => self.window_closed,
            false => self.peer_window_closed,
        };
        self.talk.headers.window = if is_closed { 0 } else { 512 };
        self.talk
            .segment(&mut self.recording, self.now, from, flags, bytes);
    }

    /// A segment that was sent before.
    fn record_at(&mut self, from: End, seq: u32, flags: u8, bytes: &[u8]) {
        let next = std::mem::replace(&mut self.talk.next[from as usize], seq);
        self.record(from, flags, bytes);
        self.talk.next[from as usize] = next;
    }

    fn note_fin(&mut self, from: End, flags: u8) {
        self.fins[from as usize] |= flags & FIN != 0;
        if self.fins == [true; 2] && self.path == Path::Up {
            let [client, server] = self.talk.next;
            self.talk.acked = [server, client];
            self.acknowledge(from.other());
            self.life.is_over = true;
        }
    }

    /// In a TLS record if the connection has TLS.
    fn on_wire(&self, bytes: Vec<u8>) -> Vec<u8> {
        match self.is_tls {
            true => sealed(&bytes),
            false => bytes,
        }
    }
}
