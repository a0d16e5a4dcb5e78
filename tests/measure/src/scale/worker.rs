//! The process that holds some of the connections, both ends of each. `crowd.rs` writes commands to
//! its standard input:
//!
//! | line | action | answer |
//! |---|---|---|
//! | `open COUNT NANOS` | opens connections, pings each every NANOS | `opened COUNT` |
//! | `fade COUNT` | COUNT more get their last ping, when due | `dead PEER NANOS` for each, when sent |
//! | `die COUNT` | COUNT more get their last ping, now | `dead PEER NANOS` for each |
//! | `late` | | `late NANOS`: largest delay of a ping |
//!
//! Times are from CLOCK_MONOTONIC, just before the last packets. The process ends when its input
//! ends.

use std::{
    io::{self, BufWriter, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::Pair;
use rustix::time::{ClockId, clock_gettime};

/// Pings due within this time are sent together: waking a hundred processes for each ping would be
/// most of the load.
const TICK: Duration = Duration::from_millis(50);

/// The server's port, which is watched.
pub(super) const PORT: u16 = 8080;

/// Source ports are assigned from here on.
const FIRST_CLIENT_PORT: u16 = 10_000;

/// Connections per process: two sockets each, below the usual hard limit of 20,000 files.
pub(super) const MOST: usize = 9_900;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which of the processes this is
    index: u16,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    lab::raise_open_files_limit()?;
    let (sender, commands) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Worker::new(args.index)?.obey(&commands)
}

struct Worker {
    listener: TcpListener,
    from: IpAddr,
    connections: Vec<Connection>,
    /// How many of the first ones have had, or will have, their last ping.
    fading: usize,
    /// How many of the last ones have had their last ping.
    died: usize,
    schedule: Option<Schedule>,
    out: BufWriter<io::Stdout>,
}

struct Connection {
    pair: Pair,
    dead: bool,
}

/// Due times of the pings: evenly spread over the interval.
struct Schedule {
    begun: Instant,
    every: Duration,
    /// Pings due so far.
    turn: u64,
    most_late: Duration,
}

impl Worker {
    /// Each process has its own two addresses, so no two use the same port.
    fn new(index: u16) -> Result<Self> {
        let [high, low] = index.to_be_bytes();
        let server = Ipv4Addr::new(127, 1, high, low);
        let listener = TcpListener::bind((server, PORT)).context("cannot listen on the port")?;
        Ok(Self {
            listener,
            from: Ipv4Addr::new(127, 2, high, low).into(),
            connections: Vec::new(),
            fading: 0,
            died: 0,
            schedule: None,
            out: BufWriter::new(io::stdout()),
        })
    }

    fn obey(mut self, commands: &Receiver<String>) -> Result<()> {
        loop {
            let wait = match self.schedule {
                Some(_) => commands.recv_timeout(TICK),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match wait {
                Ok(line) => self.handle(&line)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.ping_what_is_due()?;
            self.out.flush()?;
        }
    }

    fn handle(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["open", count, every] => {
                self.open(count.parse()?)?;
                self.schedule = Some(Schedule {
                    begun: Instant::now(),
                    every: Duration::from_nanos(every.parse()?),
                    turn: 0,
                    most_late: Duration::ZERO,
                });
                writeln!(self.out, "opened {count}")?;
            }
            ["fade", count] => self.fading += count.parse::<usize>()?,
            ["die", count] => {
                for _ in 0..count.parse::<usize>()? {
                    self.died += 1;
                    let index = self.connections.len().checked_sub(self.died);
                    let index = index.context("there are not so many connections")?;
                    self.report_death(index)?;
                }
            }
            ["late"] => {
                let late = self.schedule.as_ref().map(|schedule| schedule.most_late);
                writeln!(self.out, "late {}", late.unwrap_or_default().as_nanos())?;
            }
            _ => bail!("unknown command `{line}`"),
        }
        Ok(())
    }

    fn open(&mut self, count: usize) -> Result<()> {
        for port in (FIRST_CLIENT_PORT..).take(count) {
            let pair = Pair::open(&self.listener, SocketAddr::new(self.from, port))?;
            self.connections.push(Connection { pair, dead: false });
        }
        Ok(())
    }

    fn ping_what_is_due(&mut self) -> Result<()> {
        while let Some(index) = self.due() {
            if self.connections[index].dead {
                continue;
            }
            if index < self.fading {
                self.report_death(index)?;
            } else {
                self.connections[index].pair.ping()?;
            }
        }
        Ok(())
    }

    /// The connection whose ping is due, if any.
    fn due(&mut self) -> Option<usize> {
        let schedule = self.schedule.as_mut()?;
        let count = self.connections.len() as u64;
        let (round, place) = (schedule.turn / count, schedule.turn % count);
        let nanos = schedule.every.as_nanos() as u64;
        let at = Duration::from_nanos(round * nanos + nanos / count * place);
        let late = schedule.begun.elapsed().checked_sub(at)?;
        schedule.turn += 1;
        schedule.most_late = schedule.most_late.max(late);
        Some(place as usize)
    }

    fn report_death(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let now = clock_gettime(ClockId::Monotonic);
        let nanos = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        connection.pair.last_ping()?;
        connection.dead = true;
        writeln!(self.out, "dead {} {nanos}", connection.pair.peer()?)?;
        Ok(())
    }
}
