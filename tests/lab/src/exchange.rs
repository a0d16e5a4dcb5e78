//! One side of many connections on one thread: reads frames of one size and answers them.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rustix::event::{Timespec, epoll};

use crate::LabError;

/// Several frames of 64 KiB, so that few reads are needed.
const BUFFER: usize = 256 * 1024;

/// How long an idle side sleeps before it checks `stop`.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What one side does for each frame.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Length of the frames it reads, header included.
    pub reads: usize,
    /// The answer to each; `None` if it only reads.
    pub answers: Option<Vec<u8>>,
    /// Whether it sends first.
    pub begins: bool,
}

/// One side of connections with completed handshakes.
#[derive(Debug)]
pub struct Exchange {
    ends: Vec<End>,
    turn: Turn,
}

#[derive(Debug)]
struct End {
    stream: TcpStream,
    /// Bytes of a frame that has not arrived completely.
    read: usize,
    /// Bytes of answers that wait for room in the socket.
    unsent: usize,
}

impl Exchange {
    /// Takes one side of each connection.
    ///
    /// # Errors
    /// [`LabError::Io`] if a socket cannot be made non-blocking.
    pub fn new(streams: Vec<TcpStream>, turn: Turn) -> Result<Self, LabError> {
        let end = |stream: TcpStream| {
            stream.set_nonblocking(true)?;
            Ok(End {
                stream,
                read: 0,
                unsent: 0,
            })
        };
        let ends = streams
            .into_iter()
            .map(end)
            .collect::<io::Result<_>>()
            .map_err(LabError::io("make a socket non-blocking"))?;
        Ok(Self { ends, turn })
    }

    /// Reads and answers on the calling thread until `stop`, and counts the frames received.
    ///
    /// # Errors
    /// [`LabError::Io`] if a connection breaks.
    pub fn run(mut self, count: &AtomicU64, stop: &AtomicBool) -> Result<(), LabError> {
        let outcome = self.exchange(count, stop);
        outcome.map_err(LabError::io("exchange frames"))
    }

    fn exchange(&mut self, count: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, end) in (0..).zip(&self.ends) {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&poll, &end.stream, epoll::EventData::new_u64(index), flags)?;
        }
        if self.turn.begins {
            for end in &mut self.ends {
                end.answer(&self.turn, 1)?;
            }
        }
        let timeout = Timespec::try_from(LOOK_UP).ok();
        let mut events = Vec::with_capacity(256);
        let mut buffer = vec![0; BUFFER];
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(
                &poll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                // The event's data is the index registered for it.
                let end = &mut self.ends[event.data.u64() as usize];
                let whole = end.take_in(&self.turn, &mut buffer)?;
                count.fetch_add(whole as u64, Ordering::Relaxed);
                end.answer(&self.turn, whole)?;
            }
        }
        Ok(())
    }
}

impl End {
    /// Reads the available bytes, and returns how many frames are now complete.
    fn take_in(&mut self, turn: &Turn, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.read += count;
                    // Bytes that arrive after this read raise a new event.
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let whole = self.read / turn.reads;
        self.read %= turn.reads;
        Ok(whole)
    }

    /// Sends `frames` more answers, limited by the room in the socket.
    fn answer(&mut self, turn: &Turn, frames: usize) -> io::Result<()> {
        let Some(answer) = &turn.answers else {
            return Ok(());
        };
        self.unsent += frames * answer.len();
        while self.unsent > 0 {
            let begun = (answer.len() - self.unsent % answer.len()) % answer.len();
            match self.stream.write(&answer[begun..]) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use wire::{BINARY, ZERO_KEY, frame};

    use super::*;
    use crate::{Pair, wait_until};

    #[test]
    fn frames_larger_than_a_socket_buffer_pass_in_both_directions() {
        for payload in [125, 65_536, 1_000_000] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let open = |_| Pair::open(&listener, "127.0.0.2:0".parse().unwrap()).unwrap();
            let (clients, servers) = (0..3).map(open).map(Pair::into_ends).unzip();
            let request = frame(BINARY, &vec![0; payload], ZERO_KEY);
            let answer = frame(BINARY, &vec![0; payload], None);
            let (from_client, from_server) = (request.len(), answer.len());
            let turn = |reads, answers, begins| Turn {
                reads,
                answers: Some(answers),
                begins,
            };
            let client = Exchange::new(clients, turn(from_server, request, true)).unwrap();
            let server = Exchange::new(servers, turn(from_client, answer, false)).unwrap();
            let (requested, answered) = (AtomicU64::new(0), AtomicU64::new(0));
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| server.run(&requested, &stop));
                scope.spawn(|| client.run(&answered, &stop));
                let limit = Duration::from_secs(20);
                let enough = || answered.load(Ordering::Relaxed) >= 30;
                let waited = wait_until("thirty answers", limit, enough);
                stop.store(true, Ordering::Relaxed);
                waited.unwrap();
            });
            assert!(requested.into_inner() >= answered.into_inner());
        }
    }
}
