//! Peers that send as much and as fast as configured, and remember every frame.
//!
//! Frames are written and read with tungstenite's framing, below its message layer. So fragments
//! and unsolicited pongs can be sent, and received frames are seen unchanged.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lab::Lab;
use tokio_tungstenite::tungstenite::protocol::frame::{
    CloseFrame, Frame, FrameSocket,
    coding::{CloseCode, Control, Data, OpCode},
};
use wire::{REQUEST, RESPONSE};

use crate::dice::{Dice, Sizes};

/// What each end of each connection sends.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    /// Minimum number of frames; the last message and the close frame may add to it.
    pub(crate) frames: usize,
    pub(crate) sizes: &'static Sizes,
    pub(crate) pace: Pace,
}

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as the other end reads, in writes of up to this many bytes, independent of frame
    /// boundaries.
    Torrent(usize),
    /// One write per frame, and a random pause of up to this long after each message.
    Chat(Duration),
}

/// One frame, as both ends know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameFacts {
    pub(crate) opcode: &'static str,
    pub(crate) fin: bool,
    pub(crate) length: u64,
    /// Header and payload.
    bytes: u64,
}

/// A finished connection, as seen by the server.
pub(crate) struct Conversation {
    pub(crate) client: SocketAddr,
    pub(crate) rx: Vec<FrameFacts>,
    pub(crate) tx: Vec<FrameFacts>,
}

/// Totals over frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) frames: BTreeMap<String, u64>,
    pub(crate) payload_bytes: u64,
    /// Including the headers.
    pub(crate) bytes: u64,
}

/// Runs this many connections at the same time, until each is closed by its client. Panics unless
/// each end has received what the other one sent.
pub(crate) fn converse(
    lab: &Lab,
    server: SocketAddr,
    connections: u64,
    talk: Talk,
) -> Vec<Conversation> {
    let listener = lab.server_ns().run(|| TcpListener::bind(server)).unwrap();
    let listener = listener.unwrap();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| -> BTreeMap<SocketAddr, TcpStream> {
            let accept = |_| listener.accept().unwrap();
            let accepted = (0..connections).map(accept);
            accepted.map(|(stream, peer)| (peer, stream)).collect()
        });
        let connect = |_| TcpStream::connect(server).unwrap();
        let connect_all = || (0..connections).map(connect).collect();
        let clients: Vec<TcpStream> = lab.client_ns().run(connect_all).unwrap();
        let mut servers = accepting.join().unwrap();
        let talking: Vec<_> = (0..)
            .zip(clients)
            .map(|(seed, client)| {
                let addr = client.local_addr().unwrap();
                let server = servers.remove(&addr).unwrap();
                let client = scope.spawn(move || Role::Client.live(client, talk, 2 * seed));
                let server = scope.spawn(move || Role::Server.live(server, talk, 2 * seed + 1));
                (addr, client, server)
            })
            .collect();
        let end = |(addr, client, server): Talking<'_>| {
            let (client, server) = (client.join().unwrap(), server.join().unwrap());
            assert!(client.said == server.received, "the server missed frames");
            assert!(server.said == client.received, "the client missed frames");
            Conversation {
                client: addr,
                rx: client.said,
                tx: server.said,
            }
        };
        talking.into_iter().map(end).collect()
    })
}

impl Tally {
    pub(crate) fn of<'a>(frames: impl IntoIterator<Item = &'a FrameFacts>) -> Self {
        let mut tally = Self::default();
        for frame in frames {
            *tally.frames.entry(frame.opcode.to_owned()).or_default() += 1;
            tally.payload_bytes += frame.length;
            tally.bytes += frame.bytes;
        }
        tally
    }

    pub(crate) fn all_frames(&self) -> u64 {
        self.frames.values().sum()
    }
}

impl FrameFacts {
    fn of(frame: &Frame) -> Self {
        let header = frame.header();
        let length = frame.payload().len() as u64;
        Self {
            opcode: match header.opcode {
                OpCode::Data(Data::Continue) => "continuation",
                OpCode::Data(Data::Text) => "text",
                OpCode::Data(Data::Binary) => "binary",
                OpCode::Control(Control::Close) => "close",
                OpCode::Control(Control::Ping) => "ping",
                OpCode::Control(Control::Pong) => "pong",
                reserved => panic!("no peer sends {reserved:?}"),
            },
            fin: header.is_final,
            length,
            bytes: frame.len() as u64,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// All frames one end sent and received.
struct Lived {
    said: Vec<FrameFacts>,
    received: Vec<FrameFacts>,
}

/// A client's address, and both running ends.
type Talking<'scope> = (
    SocketAddr,
    thread::ScopedJoinHandle<'scope, Lived>,
    thread::ScopedJoinHandle<'scope, Lived>,
);

/// What the reading half makes the writing half send.
enum Order {
    Pong(Bytes),
    Close,
}

impl Role {
    fn live(self, mut stream: TcpStream, talk: Talk, seed: u64) -> Lived {
        stream.set_nodelay(true).unwrap();
        self.shake_hands(&mut stream);
        let reading = stream.try_clone().unwrap();
        let (orders, requested) = channel();
        thread::scope(|scope| {
            let received = scope.spawn(move || receive(reading, &orders));
            let mut speaker = Speaker {
                role: self,
                stream,
                dice: Dice(seed),
                said: Vec::new(),
                unwritten: Vec::new(),
                closing: false,
            };
            speaker.say_all(talk, &requested);
            let received = received.join().unwrap();
            let said = speaker.said;
            Lived { said, received }
        })
    }

    /// The example of RFC 6455 §1.3.
    fn shake_hands(self, stream: &mut TcpStream) {
        let expect = |stream: &mut TcpStream, expected: &[u8]| {
            let mut head = vec![0; expected.len()];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(head, expected);
        };
        match self {
            Self::Client => {
                stream.write_all(REQUEST).unwrap();
                expect(stream, RESPONSE);
            }
            Self::Server => {
                expect(stream, REQUEST);
                stream.write_all(RESPONSE).unwrap();
            }
        }
    }
}

/// Reads to the end of the stream.
fn receive(stream: TcpStream, orders: &Sender<Order>) -> Vec<FrameFacts> {
    let mut socket = FrameSocket::new(stream);
    let mut received = Vec::new();
    while let Some(frame) = socket.read(None).unwrap() {
        received.push(FrameFacts::of(&frame));
        let order = match frame.header().opcode {
            OpCode::Control(Control::Ping) => Order::Pong(unmasked(&frame)),
            OpCode::Control(Control::Close) => Order::Close,
            _ => continue,
        };
        // After its own close frame the other half sends nothing more.
        let _ = orders.send(order);
    }
    received
}

fn unmasked(frame: &Frame) -> Bytes {
    let mask = frame.header().mask.unwrap_or_default();
    let bytes = frame.payload().iter().zip(mask.into_iter().cycle());
    bytes.map(|(byte, mask)| byte ^ mask).collect()
}

/// The writing half.
struct Speaker {
    role: Role,
    stream: TcpStream,
    dice: Dice,
    said: Vec<FrameFacts>,
    unwritten: Vec<u8>,
    /// The peer's close frame has arrived.
    closing: bool,
}

impl Speaker {
    fn say_all(&mut self, talk: Talk, orders: &Receiver<Order>) {
        while self.said.len() < talk.frames {
            for frame in self.dice.message(talk.sizes) {
                self.say(frame, talk.pace);
                while let Ok(order) = orders.try_recv() {
                    self.obey(order, talk.pace);
                }
            }
            if let Pace::Chat(longest) = talk.pace {
                let nanos = self.dice.below(longest.as_nanos() as u64);
                self.pause(Duration::from_nanos(nanos), orders, talk.pace);
            }
        }
        // Only the client starts the close.
        while self.role == Role::Server && !self.closing {
            self.flush();
            self.obey(orders.recv().unwrap(), talk.pace);
        }
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.say(Frame::close(Some(close)), talk.pace);
        self.flush();
        if self.role == Role::Server {
            self.stream.shutdown(Shutdown::Write).unwrap();
        }
    }

    fn pause(&mut self, pause: Duration, orders: &Receiver<Order>, pace: Pace) {
        let end = Instant::now() + pause;
        loop {
            match orders.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(order) => self.obey(order, pace),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("the peer ended too early"),
            }
        }
    }

    fn obey(&mut self, order: Order, pace: Pace) {
        match order {
            Order::Pong(payload) => self.say(Frame::pong(payload), pace),
            Order::Close => self.closing = true,
        }
    }

    fn say(&mut self, mut frame: Frame, pace: Pace) {
        if self.role == Role::Client {
            frame.header_mut().mask = Some((self.dice.next() as u32).to_le_bytes());
        }
        self.said.push(FrameFacts::of(&frame));
        frame.format(&mut self.unwritten).unwrap();
        match pace {
            Pace::Chat(_) => self.flush(),
            Pace::Torrent(longest) => {
                while self.unwritten.len() >= longest {
                    let cut = 1 + self.dice.below(longest as u64) as usize;
                    self.stream.write_all(&self.unwritten[..cut]).unwrap();
                    self.unwritten.drain(..cut);
                }
            }
        }
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.unwritten).unwrap();
        self.unwritten.clear();
    }
}
