//! Measures the CPU time that a connection attempt costs the daemon, by how the attempt ends.
//!
//! ```text
//! cargo build --release -p monitor
//! cargo run --release -p monitor --example attempt_cost -- target/release/wsmon          # as root
//! cargo run --release -p monitor --example attempt_cost -- target/release/wsmon 10000 10
//! ```
//!
//! One thread acts as client and server in turn, in its own network namespace, at the given rate and
//! for the given seconds for each kind: plain HTTP, an upgrade refused with 429, an upgrade that is
//! accepted and immediately closed, and all three mixed. It fails unless every count of the daemon is
//! exact and nothing was lost. The time is that of all the daemon's threads, as counted by the
//! scheduler.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{Daemon, Metrics, wait_until};
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket},
    thread::{UnshareFlags, unshare_unsafe},
};

const PORT: u16 = 28_202;
const RATE: u32 = 10_000;
const SECONDS: u32 = 10;
const SOON: Duration = Duration::from_secs(10);
/// Attempts come in bursts this far apart, so that the load sleeps in between.
const BURST_EVERY: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let wsmon = PathBuf::from(args.next().context("name the wsmon binary")?);
    let mut number = |default| args.next().map_or(Ok(default), |arg| arg.parse());
    let rate = number(RATE).context("attempts per second")?;
    let seconds = number(SECONDS).context("seconds for each kind")?;

    let port = PORT.to_string();
    let daemon = Daemon::start(
        &wsmon,
        ["--port", &port, "--lb-timeout", "60s", "--alert-log", "-"],
    )?;
    measure(&daemon, &Load::start(), rate, seconds)
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Refused,
    Accepted,
}

impl Kind {
    fn request(self) -> &'static [u8] {
        match self {
            Self::Plain => PLAIN_REQUEST,
            Self::Refused | Self::Accepted => UPGRADE_REQUEST,
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Self::Plain => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            Self::Refused => {
                b"HTTP/1.1 429 Too Many Requests\r\nServer: nginx/1.24.0\r\n\
                Date: Sun, 22 Nov 2026 20:00:00 GMT\r\nRetry-After: 30\r\nContent-Length: 0\r\n\
                Connection: close\r\n\r\n"
            }
            Self::Accepted => {
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: chat\r\n\r\n"
            }
        }
    }
}

const PLAIN_REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: chat.example.com\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
/// As a browser behind a proxy sends it.
const UPGRADE_REQUEST: &[u8] = b"GET /socket?token=c2VjcmV0 HTTP/1.1\r\nHost: chat.example.com\r\n\
    X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
    Origin: https://example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Cache-Control: no-cache\r\nPragma: no-cache\r\n\r\n";

fn measure(daemon: &Daemon, load: &Load, rate: u32, seconds: u32) -> Result<()> {
    println!(
        "{:<10}{:>12}{:>14}{:>10}{:>10}{:>12}",
        "", "attempts/s", "us/attempt", "user", "system", "% of a core"
    );
    let turns = [
        ("plain", &[Kind::Plain][..]),
        ("refused", &[Kind::Refused]),
        ("accepted", &[Kind::Accepted]),
        ("mixed", &[Kind::Plain, Kind::Refused, Kind::Accepted]),
    ];
    let mut expected = Expected::default();
    for (name, kinds) in turns {
        let kinds: Vec<Kind> = kinds
            .iter()
            .copied()
            .cycle()
            .take((rate * seconds) as usize)
            .collect();
        expected.count(&kinds);
        let attempts = kinds.len() as f64;
        let before = Spent::of(daemon.id())?;
        let took = load.run(kinds, rate)?;
        // Until the last records are drained.
        thread::sleep(Duration::from_millis(100));
        let spent = Spent::of(daemon.id())?.since(&before);
        expected.check(daemon)?;
        let each = |part: Duration| part.as_secs_f64() * 1e6 / attempts;
        println!(
            "{name:<10}{:>12.0}{:>14.2}{:>10.2}{:>10.2}{:>12.1}",
            attempts / took.as_secs_f64(),
            each(spent.total),
            each(spent.user()),
            each(spent.total - spent.user()),
            spent.total.as_secs_f64() / took.as_secs_f64() * 100.0,
        );
    }
    println!("every count was exact, and nothing was lost");
    Ok(())
}

/// A thread in its own network namespace that acts as client and server in turn.
struct Load {
    orders: Sender<(Vec<Kind>, u32)>,
    outcomes: Receiver<Result<Duration>>,
}

impl Load {
    fn start() -> Self {
        let (orders, inbox) = channel::<(Vec<Kind>, u32)>();
        let (outbox, outcomes) = channel();
        thread::spawn(move || {
            let listener = alone();
            let mut clients = Addresses::default();
            for (kinds, rate) in inbox {
                let outcome = match &listener {
                    Ok(listener) => make(listener, &mut clients, &kinds, rate),
                    Err(error) => Err(anyhow!("{error:#}")),
                };
                if outbox.send(outcome).is_err() {
                    return;
                }
            }
        });
        Self { orders, outcomes }
    }

    /// Makes attempts of these kinds at `rate` per second; returns how long it took.
    fn run(&self, kinds: Vec<Kind>, rate: u32) -> Result<Duration> {
        self.orders.send((kinds, rate)).context("the load ended")?;
        self.outcomes.recv().context("the load ended")?
    }
}

/// Moves this thread to a new network namespace.
fn alone() -> Result<TcpListener> {
    // SAFETY: file descriptors stay shared; only this new thread changes its namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("this needs root")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    ensure!(up.success(), "cannot bring loopback up");
    // Nothing stays in TIME_WAIT.
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")?;
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?)
}

fn make(
    listener: &TcpListener,
    clients: &mut Addresses,
    kinds: &[Kind],
    rate: u32,
) -> Result<Duration> {
    let begun = Instant::now();
    for (i, kind) in (0..).zip(kinds) {
        let due = begun + Duration::from_secs(1) * i / rate;
        if let Some(early) = due.checked_duration_since(Instant::now())
            && early > BURST_EVERY
        {
            thread::sleep(early);
        }
        attempt(listener, clients.next(), *kind)?;
    }
    Ok(begun.elapsed())
}

/// One connection from its first packet to its last.
fn attempt(listener: &TcpListener, from: SocketAddrV4, kind: Kind) -> Result<()> {
    let client = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&client, &from)?;
    // On loopback this is TCP's whole handshake.
    connect(&client, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT))?;
    let mut client = TcpStream::from(client);
    let (mut server, _) = listener.accept()?;
    let mut buffer = [0; 2048];
    client.write_all(kind.request())?;
    let read = server.read(&mut buffer)?;
    ensure!(read == kind.request().len(), "the request came in pieces");
    server.write_all(kind.answer())?;
    let read = client.read(&mut buffer)?;
    ensure!(read == kind.answer().len(), "the answer came in pieces");
    // The server closes first.
    drop(server);
    drop(client);
    Ok(())
}

/// Client addresses, chosen so that no attempt waits for a free port.
#[derive(Debug, Default)]
struct Addresses(u32);

impl Addresses {
    const PORTS: u32 = 50_000;

    fn next(&mut self) -> SocketAddrV4 {
        let (host, port) = (self.0 / Self::PORTS, self.0 % Self::PORTS);
        self.0 += 1;
        let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + host);
        SocketAddrV4::new(host, 10_000 + port as u16)
    }
}

/// The expected counts of the daemon.
#[derive(Debug, Default)]
struct Expected {
    refused: usize,
    accepted: usize,
}

impl Expected {
    fn count(&mut self, kinds: &[Kind]) {
        let of = |kind| kinds.iter().filter(|made| **made == kind).count();
        self.refused += of(Kind::Refused);
        self.accepted += of(Kind::Accepted);
    }

    fn check(&self, daemon: &Daemon) -> Result<()> {
        let (refused, accepted) = (self.refused as f64, self.accepted as f64);
        let expected = [
            ("wsmon_handshakes_total", &[][..], refused + accepted),
            ("wsmon_handshakes_total", &[("status", "429")], refused),
            ("wsmon_handshakes_total", &[("status", "101")], accepted),
            ("wsmon_connections_opened_total", &[], accepted),
            ("wsmon_connections_closed_total", &[], accepted),
            // Only the daemon counts these, from its records.
            ("wsmon_abnormal_closures_total", &[], accepted),
            ("wsmon_connections", &[], 0.0),
            ("wsmon_handshakes_stuck", &[], 0.0),
            ("wsmon_events_lost_total", &[], 0.0),
            ("wsmon_untracked_connections_total", &[], 0.0),
        ];
        let mut metrics = Metrics::default();
        let agrees = wait_until("every count to be exact", SOON, || {
            metrics = daemon.metrics().unwrap_or_default();
            let mut counts = expected.iter();
            counts.all(|(name, labels, value)| metrics.sum(name, labels) == *value)
        });
        agrees.with_context(|| {
            let counts = expected.map(|(name, labels, value)| {
                let found = metrics.sum(name, labels);
                format!("{name}{labels:?}: {found}, not {value}")
            });
            counts.join("\n")
        })
    }
}

/// CPU time of a process.
#[derive(Clone, Copy, Debug)]
struct Spent {
    total: Duration,
    user_ticks: u64,
    system_ticks: u64,
}

impl Spent {
    fn of(pid: u32) -> Result<Self> {
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // Nanoseconds on a CPU, and two more fields.
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path)?;
            let nanos = text.split_whitespace().next();
            total += nanos.context("no schedstat")?.parse::<u64>()?;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may contain spaces; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || -> Result<u64> { Ok(fields.next().context("no time")?.parse()?) };
        Ok(Self {
            total: Duration::from_nanos(total),
            user_ticks: ticks()?,
            system_ticks: ticks()?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            total: self.total - before.total,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }

    /// The kernel separates the two parts only in ticks.
    fn user(&self) -> Duration {
        let ticks = (self.user_ticks + self.system_ticks).max(1);
        self.total.mul_f64(self.user_ticks as f64 / ticks as f64)
    }
}
