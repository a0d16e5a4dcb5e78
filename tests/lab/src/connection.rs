//! One end of a WebSocket connection: its behaviour and its view of the connection.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use monitor_common::Direction;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

use crate::LabError;

/// RFC 6455 §5.2. The lab never fragments, so continuations are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Number of frames in each direction, as seen from the counting end.
///
/// A sent frame counts once the kernel has accepted it. With a black-holed peer that is before it
/// is on the wire, and it may never get there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameCounts(BTreeMap<(Direction, Opcode), u64>);

impl FrameCounts {
    /// The frames counted in `direction` with `opcode`.
    pub fn get(&self, direction: Direction, opcode: Opcode) -> u64 {
        self.0.get(&(direction, opcode)).copied().unwrap_or(0)
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (key, frames) in &other.0 {
            *self.0.entry(*key).or_default() += frames;
        }
    }

    fn add(&mut self, direction: Direction, opcode: Opcode) {
        *self.0.entry((direction, opcode)).or_default() += 1;
    }
}

/// The application's view of its connection at one end.
#[derive(Debug, Clone)]
pub struct ConnectionView {
    /// Whether a write would still be accepted.
    pub open: bool,
    /// When it opened or closed.
    pub since: Instant,
    /// Why it closed, unless by a close handshake.
    pub error: Option<String>,
    pub frames: FrameCounts,
    /// When each ping was sent, oldest first.
    pub pings_sent_at: Vec<Instant>,
}

impl fmt::Display for ConnectionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.open { "open" } else { "closed" };
        match &self.error {
            Some(error) => write!(f, "{state}, {error}"),
            None => write!(f, "{state}, no error"),
        }
    }
}

/// One end's automatic behaviour.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// Reads, and so answers pings and close frames. Without it only the kernel acknowledges.
    pub(crate) reads: bool,
    /// Echoes every data message.
    pub(crate) echoes: bool,
    /// Sends this message every interval.
    pub(crate) sends: Option<(Duration, Message)>,
}

/// A handle to a connection whose task runs in a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    peer: SocketAddr,
    view: Arc<Mutex<ConnectionView>>,
    commands: UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Send(Message),
    StopReading,
    ReadOn,
    HangUp,
    Reset,
}

impl Connection {
    /// The handle, and the task that runs the connection according to `conduct` until it is closed.
    pub(crate) fn new(
        socket: WebSocketStream<TcpStream>,
        peer: SocketAddr,
        conduct: Conduct,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, orders) = unbounded_channel();
        let view = Arc::new(Mutex::new(ConnectionView {
            open: true,
            since: Instant::now(),
            error: None,
            frames: FrameCounts::default(),
            pings_sent_at: Vec::new(),
        }));
        let handle = Self {
            peer,
            view: view.clone(),
            commands,
        };
        let task = async move {
            let error = converse(socket, conduct, orders, &view).await.err();
            let mut view = lock(&view);
            view.open = false;
            view.since = Instant::now();
            view.error = error.map(|error| error.to_string());
        };
        (handle, task)
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn view(&self) -> ConnectionView {
        lock(&self.view).clone()
    }

    pub(crate) fn send(&self, message: Message) -> Result<(), LabError> {
        self.order(Command::Send(message))
    }

    pub(crate) fn stop_reading(&self) -> Result<(), LabError> {
        self.order(Command::StopReading)
    }

    pub(crate) fn read_on(&self) -> Result<(), LabError> {
        self.order(Command::ReadOn)
    }

    pub(crate) fn hang_up(&self) -> Result<(), LabError> {
        self.order(Command::HangUp)
    }

    pub(crate) fn reset(&self) -> Result<(), LabError> {
        self.order(Command::Reset)
    }

    fn order(&self, command: Command) -> Result<(), LabError> {
        self.commands
            .send(command)
            .map_err(|_| LabError::Closed(self.peer))
    }
}

async fn converse(
    mut socket: WebSocketStream<TcpStream>,
    mut conduct: Conduct,
    mut orders: UnboundedReceiver<Command>,
    view: &Mutex<ConnectionView>,
) -> Result<(), Error> {
    // Ends with a close frame in either direction: behind one no message may follow, and an error in between would
    // close the socket before the close frame is answered.
    let mut periodic = conduct
        .sends
        .map(|(every, message)| (ticks(every), message));
    loop {
        let outgoing = tokio::select! {
            incoming = socket.next(), if conduct.reads => {
                let Some(message) = incoming.transpose()? else {
                    return Ok(());
                };
                record_received(view, &message);
                if message.is_close() {
                    periodic = None;
                }
                if !(conduct.echoes && message_is_data(&message)) {
                    continue;
                }
                message
            }
            message = next_periodic(&mut periodic) => message,
            Some(command) = orders.recv() => match command {
                Command::Send(message) => message,
                Command::StopReading => {
                    conduct.reads = false;
                    continue;
                }
                Command::ReadOn => {
                    conduct.reads = true;
                    continue;
                }
                Command::HangUp => {
                    socket.get_mut().shutdown().await?;
                    continue;
                }
                Command::Reset => {
                    socket.get_ref().set_zero_linger()?;
                    return Ok(());
                }
            },
        };
        let opcode = opcode(&outgoing);
        if opcode == Opcode::Close {
            periodic = None;
        }
        socket.send(outgoing).await?;
        let mut view = lock(view);
        view.frames.add(Direction::Tx, opcode);
        if opcode == Opcode::Ping {
            view.pings_sent_at.push(Instant::now());
        }
    }
}

/// Counts a received frame and tungstenite's automatic answer to it.
fn record_received(view: &Mutex<ConnectionView>, message: &Message) {
    let frames = &mut lock(view).frames;
    frames.add(Direction::Rx, opcode(message));
    match message {
        Message::Ping(_) => frames.add(Direction::Tx, Opcode::Pong),
        Message::Close(_) if frames.get(Direction::Tx, Opcode::Close) == 0 => {
            frames.add(Direction::Tx, Opcode::Close);
        }
        _ => {}
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn next_periodic(periodic: &mut Option<(Interval, Message)>) -> Message {
    match periodic {
        Some((ticks, message)) => {
            ticks.tick().await;
            message.clone()
        }
        None => std::future::pending().await,
    }
}

fn message_is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}

fn opcode(message: &Message) -> Opcode {
    match message {
        Message::Text(_) => Opcode::Text,
        // Raw frames are never read, and the lab sends none.
        Message::Binary(_) | Message::Frame(_) => Opcode::Binary,
        Message::Close(_) => Opcode::Close,
        Message::Ping(_) => Opcode::Ping,
        Message::Pong(_) => Opcode::Pong,
    }
}

/// A counter is never left half-written, so the value is still valid after a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
