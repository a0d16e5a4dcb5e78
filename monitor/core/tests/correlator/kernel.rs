//! A small deterministic kernel: it runs scripts of applications and the path, keeps the truth
//! about every socket, and reports and publishes what a real kernel would.

use std::{collections::BTreeMap, time::Duration};

use monitor_core::{
    CloseHow, ConnId, Event, Facts, Hop, Ktime, ListenerId, ListenerRules, OnExpiry, Trouble,
    facts::{Close, Closing, ClosingBy, Direction},
    loss::Loss,
};

use crate::socket::{Cause, Socket, facts};

pub(crate) const STALENESS: Duration = Duration::from_millis(260);

/// The next event of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Send,
    Ping,
    /// The peer sends data.
    Hear,
    /// The path drops everything from now on.
    Break,
    Heal,
    /// The peer's kernel continues, its application does not.
    Deafen,
    Wake,
    CloseFrame,
    Fin,
    RstReceived,
}

/// A connection: its round trip in ms, its previous loss, and ops with the ms between them.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub rtt: u64,
    pub loss: Loss,
    pub ops: Vec<(u64, Op)>,
}

/// One change of one socket.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub at: Ktime,
    pub conn: ConnId,
    /// The socket after the change; `None` once it is closed.
    pub truth: Option<Facts>,
    pub published: bool,
    pub events: Vec<Event>,
}

pub(crate) fn rules() -> Vec<ListenerRules> {
    let hop = |seconds, on_expiry| {
        let idle_timeout = Duration::from_secs(seconds);
        Some(Hop::new("lb", idle_timeout, on_expiry))
    };
    let listener = |name: &str, hop, ping_timeout, floor| ListenerRules {
        ping_timeout,
        unresponsive_floor: Duration::from_secs(floor),
        ..ListenerRules::new(name, hop)
    };
    vec![
        listener(
            "silent",
            hop(6, OnExpiry::Silent),
            Duration::from_secs(5),
            3,
        ),
        listener(
            "rst",
            hop(4, OnExpiry::RstOnNextPacket),
            Duration::from_secs(30),
            10,
        ),
        listener("fin", hop(4, OnExpiry::Fin), Duration::from_secs(7), 6),
        // Without a hop, only a first ping shows that a flow needs a timer.
        listener("free", None, Duration::MAX, 10),
    ]
}

/// The index in [`rules`] of the rules for a connection.
pub(crate) fn listener(conn: ConnId) -> usize {
    (conn.0 - 1) as usize % rules().len()
}

/// Runs the scripts to their end, and for `tail` more.
pub(crate) fn run(scripts: &[Script], tail: Duration) -> (Vec<Moment>, Ktime) {
    let mut kernel = Kernel::default();
    for (index, script) in scripts.iter().enumerate() {
        kernel.open(index, script);
    }
    let mut end = BOOT;
    while let Some((at, step)) = kernel.steps.pop_first() {
        if kernel.scripts_left == 0 && at > end + tail {
            break;
        }
        if matches!(step, Step::Op(_)) {
            end = at;
        }
        kernel.step(at, step);
    }
    (kernel.timeline, end + tail)
}

/// The daemon starts long after boot.
const BOOT: Ktime = Ktime(7_000_000_000_000);
const RTO: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next op of this socket's script.
    Op(usize),
    /// An answer to everything up to this many bytes, with or without a pong.
    Answer {
        socket: usize,
        acked: u32,
        pong: bool,
    },
    Retransmit {
        socket: usize,
        timer: u32,
    },
    Close {
        socket: usize,
        how: CloseHow,
    },
}

#[derive(Default)]
struct Kernel {
    steps: BTreeMap<Ktime, Step>,
    sockets: Vec<Socket>,
    timeline: Vec<Moment>,
    scripts_left: usize,
}

impl Kernel {
    fn open(&mut self, index: usize, script: &Script) {
        let at = BOOT + Duration::from_micros(137 * index as u64);
        let conn = ConnId(index as u64 + 1);
        let facts = Facts {
            loss: script.loss,
            ..facts(conn, ListenerId(listener(conn) as u16), at)
        };
        let mut socket = Socket::open(facts, script);
        self.timeline.push(socket.moment(at));
        self.sockets.push(socket);
        self.scripts_left += 1;
        self.next_op(index, at);
    }

    fn next_op(&mut self, index: usize, now: Ktime) {
        let socket = &self.sockets[index];
        match socket.script.get(socket.position) {
            Some((pause, _)) => self.at(now + Duration::from_millis(*pause), Step::Op(index)),
            None => self.scripts_left -= 1,
        }
    }

    /// Steps are sequential: a step at the time of another one comes a nanosecond later.
    fn at(&mut self, mut at: Ktime, step: Step) {
        while self.steps.contains_key(&at) {
            at = at + Duration::from_nanos(1);
        }
        self.steps.insert(at, step);
    }

    fn step(&mut self, at: Ktime, step: Step) {
        let index = match step {
            Step::Op(index) => index,
            Step::Answer { socket, .. } | Step::Retransmit { socket, .. } => socket,
            Step::Close { socket, .. } => socket,
        };
        if self.sockets[index].closed {
            if matches!(step, Step::Op(_)) {
                self.scripts_left -= 1;
            }
            return;
        }
        match step {
            Step::Op(_) => self.op(index, at),
            Step::Answer { acked, pong, .. } => self.response(index, at, acked, pong),
            Step::Retransmit { timer, .. } => self.retransmit(index, at, timer),
            Step::Close { how, .. } => return self.close(index, at, how),
        }
        let moment = self.sockets[index].moment(at);
        self.timeline.push(moment);
    }

    fn op(&mut self, index: usize, at: Ktime) {
        let socket = &mut self.sockets[index];
        if let Some(decided) = socket.undecided_until(at) {
            return self.at(decided, Step::Op(index));
        }
        let (_, op) = socket.script[socket.position];
        socket.position += 1;
        let broken = socket.broken;
        match op {
            Op::Send => self.transmit(index, at, 100),
            Op::Ping => {
                socket.ping(at);
                self.transmit(index, at, 6);
            }
            Op::Hear if !broken => {
                socket.receive(at);
                socket.excuse_tries();
                socket.facts.rx.last_payload = Some(at);
                socket.facts.rx.last_frame = Some(at);
                socket.facts.tx.last_packet = Some(at);
            }
            Op::Hear => {}
            Op::Break => socket.broken = true,
            Op::Heal => socket.broken = false,
            Op::Deafen => socket.deaf = true,
            Op::Wake => socket.deaf = false,
            Op::CloseFrame => {
                let close = Close {
                    initiator: Direction::Tx,
                    code: Some(1000),
                };
                socket.facts.close = Some(close);
                let by = ClosingBy::CloseFrame(close);
                self.begin_close(index, at, by, CloseHow::CloseFrame);
            }
            Op::Fin => {
                let by = ClosingBy::Fin(Direction::Tx);
                self.begin_close(index, at, by, CloseHow::Fin);
            }
            Op::RstReceived if !broken => {
                socket.receive(at);
                socket.facts.rst_rx = true;
                socket.notable = true;
                socket.events.push(Cause::Trouble(Trouble::Reset));
                self.at(
                    at,
                    Step::Close {
                        socket: index,
                        how: CloseHow::RstReceived,
                    },
                );
            }
            Op::RstReceived => {}
        }
        self.next_op(index, at);
    }

    fn begin_close(&mut self, index: usize, at: Ktime, by: ClosingBy, how: CloseHow) {
        let socket = &mut self.sockets[index];
        socket.facts.closing.get_or_insert(Closing { at, by });
        socket.touch(at, Direction::Tx);
        socket.facts.fin_tx = true;
        socket.notable = true;
        socket.events.push(Cause::Closing);
        let (pause, how) = if socket.broken {
            (Duration::from_secs(1), CloseHow::Timeout)
        } else {
            (socket.rtt * 2, how)
        };
        self.at(at + pause, Step::Close { socket: index, how });
    }

    fn transmit(&mut self, index: usize, at: Ktime, bytes: u32) {
        let socket = &mut self.sockets[index];
        socket.touch(at, Direction::Tx);
        socket.facts.tx.last_payload = Some(at);
        socket.facts.tx.last_frame = Some(at);
        let idle = socket.sent == socket.acked;
        socket.sent += bytes;
        socket.facts.unacked_bytes = socket.sent - socket.acked;
        socket.transmit(at);
        if idle {
            socket.facts.unacked_since = Some(at);
            self.start_timer(index, at);
        }
        self.deliver(index, at);
    }

    fn deliver(&mut self, index: usize, at: Ktime) {
        let socket = &self.sockets[index];
        if !socket.broken {
            let response = Step::Answer {
                socket: index,
                acked: socket.sent,
                pong: !socket.deaf,
            };
            self.at(at + socket.rtt, response);
        }
    }

    fn start_timer(&mut self, index: usize, at: Ktime) {
        let socket = &mut self.sockets[index];
        socket.timer += 1;
        let timer = socket.timer;
        let rto = RTO * (1 << socket.facts.retransmits.min(9));
        self.at(
            at + rto,
            Step::Retransmit {
                socket: index,
                timer,
            },
        );
    }

    fn retransmit(&mut self, index: usize, at: Ktime, timer: u32) {
        let socket = &mut self.sockets[index];
        if socket.timer != timer || socket.sent == socket.acked {
            return;
        }
        socket.touch(at, Direction::Tx);
        socket.notable = true;
        socket.facts.retransmits += 1;
        socket.transmit(at);
        if matches!(socket.facts.retransmits, 2 | 5) {
            socket.retrying = true;
            socket.events.push(Cause::Trouble(Trouble::Retransmit));
        }
        self.start_timer(index, at);
        self.deliver(index, at);
    }

    fn response(&mut self, index: usize, at: Ktime, acked: u32, pong: bool) {
        let socket = &mut self.sockets[index];
        if socket.broken {
            return;
        }
        socket.receive(at);
        if acked > socket.acked {
            socket.acked = acked;
            socket.notable |= socket.facts.retransmits > 0;
            socket.facts.unacked_bytes = socket.sent - acked;
            socket.facts.ack_progress_at = Some(at);
            socket.facts.retransmits = 0;
            socket.facts.unacked_since = (socket.sent > acked).then_some(at);
            socket.answered(|socket| &mut socket.retrying);
            self.start_timer(index, at);
        }
        if pong {
            self.sockets[index].pong(at);
        }
    }

    fn close(&mut self, index: usize, at: Ktime, how: CloseHow) {
        let socket = &mut self.sockets[index];
        socket.closed = true;
        let facts = Box::new(Facts {
            at,
            ..socket.facts.clone()
        });
        self.timeline.push(Moment {
            at,
            conn: facts.conn,
            truth: None,
            published: true,
            events: vec![Event::Closed { facts, how }],
        });
    }
}
