//! One end of a connection with real sockets: it does the steps of the row at their times, and answers
//! pings unless a step prevents it.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep_until, timeout_at},
};
use wire::BINARY;

use super::Row;
use crate::{
    frames::{Incoming, bytes_of, header, pongs, sealed},
    story::{Act, Connection, Opening, Step},
};

/// The part of an upload written at once.
const PIECE: usize = 1400;

/// The part of one end in a row.
pub(super) struct Part {
    /// The first bytes of client and server.
    heads: (Vec<u8>, Vec<u8>),
    /// Its own steps, in order.
    steps: VecDeque<(Instant, Step)>,
    /// The times of the other end's steps, in order.
    others: Vec<Instant>,
    /// How many steps this end has done.
    done: watch::Sender<usize>,
    /// How many the other end has done.
    others_done: watch::Receiver<usize>,
    ends: Instant,
    speed: f64,
    /// Whether its frames are masked: those of a client are.
    is_masked: bool,
    is_tls: bool,
}

impl Part {
    /// `done` are the counts of the steps done by this end and by the other one.
    pub(super) fn new(
        row: &Row,
        connection: &Connection,
        is_host: bool,
        began: Instant,
        (done, others_done): (watch::Sender<usize>, watch::Receiver<usize>),
    ) -> Self {
        let moment = |at: f64| began + Duration::from_secs_f64(at);
        let of_ends = connection.steps.iter().filter(|(_, step)| match step {
            Step::Host(Act::KeepAlive)
            | Step::Peer(Act::KeepAlive)
            | Step::PathLoses(_)
            | Step::PathSlows(_)
            | Step::PathTakes(_) => panic!("the lab can't enact {step:?}"),
            Step::PathBreaks | Step::PathHeals | Step::PathResets => false,
            _ => true,
        });
        let mut steps: Vec<_> = of_ends
            .map(|(at, step)| (moment(*at / row.speed), *step))
            .collect();
        steps.sort_by_key(|(at, _)| *at);
        let (of_host, of_peer): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|(_, step)| is_of_host(*step));
        let (steps, others) = match is_host {
            true => (of_host, of_peer),
            false => (of_peer, of_host),
        };
        let (request, response) = connection.opening.heads();
        Self {
            heads: (request.to_vec(), response.to_vec()),
            steps: steps.into(),
            others: others.into_iter().map(|(at, _)| at).collect(),
            done,
            others_done,
            ends: moment(row.ends),
            speed: row.speed,
            is_masked: is_host == row.story.is_outgoing,
            is_tls: matches!(connection.opening, Opening::Tls),
        }
    }

    /// Waits until the other end has done everything that precedes this moment, or has ended. The order of the
    /// FINs and of the close frames decides who closed the connection, and on a busy machine two steps that are
    /// 20 ms apart are due at once.
    async fn wait_for_other(&mut self, moment: Instant) {
        let before = self.others.partition_point(|at| *at < moment);
        // An error means that it has ended.
        let _ = self.others_done.wait_for(|done| *done >= before).await;
    }

    /// The client's end.
    pub(super) async fn opens(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(&self.heads.0).await?;
        stream.read_exact(&mut vec![0; self.heads.1.len()]).await?;
        self.lives(stream).await
    }

    /// The server's end.
    pub(super) async fn accepts(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.read_exact(&mut vec![0; self.heads.0.len()]).await?;
        stream.write_all(&self.heads.1).await?;
        self.lives(stream).await
    }

    async fn lives(self, stream: TcpStream) -> io::Result<()> {
        let ends = self.ends;
        let end = End {
            part: self,
            stream,
            incoming: Incoming::default(),
            pings: 0,
            owed: Vec::new(),
            upload: None,
            reads: true,
            is_awake: true,
            proxy_answers: false,
            ignores_pings: false,
            has_left: false,
            has_heard_all: false,
        };
        // This closes its socket.
        timeout_at(ends.into(), end.run()).await.unwrap_or(Ok(()))
    }
}

struct Upload {
    left: usize,
    /// The time between two pieces.
    interval: Duration,
    next: Instant,
}

struct End {
    part: Part,
    stream: TcpStream,
    incoming: Incoming,
    pings: u8,
    owed: Vec<u8>,
    upload: Option<Upload>,
    reads: bool,
    is_awake: bool,
    proxy_answers: bool,
    ignores_pings: bool,
    has_left: bool,
    has_heard_all: bool,
}

impl End {
    /// Runs until both sides have closed, or one resets.
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while !(self.has_left && self.has_heard_all) {
            let steps = self.part.steps.front().map(|(at, _)| *at);
            let upload = self.upload.as_ref().map(|upload| upload.next);
            let next = steps
                .into_iter()
                .chain(upload)
                .min()
                .unwrap_or(self.part.ends);
            tokio::select! {
                read = self.stream.read(&mut buffer), if self.reads && !self.has_heard_all => {
                    let read = read?;
                    self.has_heard_all = read == 0;
                    if !self.part.is_tls {
                        self.owed.extend(self.incoming.take(&buffer[..read]));
                    }
                }
                () = sleep_until(next.into()) => {
                    if upload == Some(next) {
                        self.upload_piece().await?;
                    } else if let Some((at, step)) = self.part.steps.pop_front() {
                        if closes(step) {
                            self.part.wait_for_other(at).await;
                        }
                        if !self.step(step).await? {
                            return Ok(());
                        }
                        self.part.done.send_modify(|done| *done += 1);
                    }
                }
            }
            self.response().await?;
        }
        Ok(())
    }

    /// Returns whether the connection is still usable.
    async fn step(&mut self, step: Step) -> io::Result<bool> {
        match step {
            Step::Host(act) | Step::Peer(act) => return self.act(act).await,
            Step::PeerFreezes => self.is_awake = false,
            Step::PeerWakes => self.is_awake = true,
            Step::ProxyAnswersPings => self.proxy_answers = true,
            Step::PeerIgnoresPings => self.ignores_pings = true,
            Step::PeerStopsReading | Step::HostStopsReading => self.reads = false,
            Step::PeerReads | Step::HostReads => self.reads = true,
            Step::PeerUploads(bytes, kbits) => {
                let header = header(BINARY, bytes, self.part.is_masked);
                self.stream.write_all(&header).await?;
                let bits = (PIECE * 8) as f64;
                let seconds = bits / (f64::from(kbits) * 1000.0 * self.part.speed);
                self.upload = Some(Upload {
                    left: bytes,
                    interval: Duration::from_secs_f64(seconds),
                    next: Instant::now(),
                });
            }
            Step::PathBreaks
            | Step::PathHeals
            | Step::PathResets
            | Step::PathLoses(_)
            | Step::PathSlows(_)
            | Step::PathTakes(_) => unreachable!("no end's step: {step:?}"),
        }
        Ok(true)
    }

    async fn act(&mut self, act: Act) -> io::Result<bool> {
        match bytes_of(act, self.part.is_masked, &mut self.pings) {
            Some(bytes) => self.write(&bytes).await?,
            None if matches!(act, Act::Fin) => self.stream.shutdown().await?,
            None => {
                self.stream.set_zero_linger()?;
                return Ok(false);
            }
        }
        self.has_left |= matches!(act, Act::Fin);
        self.ignores_pings |= matches!(act, Act::Close(_));
        Ok(true)
    }

    async fn upload_piece(&mut self) -> io::Result<()> {
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        let piece = upload.left.min(PIECE);
        self.stream.write_all(&[0x77; PIECE][..piece]).await?;
        upload.left -= piece;
        upload.next += upload.interval;
        self.upload = (upload.left > 0).then_some(upload);
        Ok(())
    }

    /// All owed pongs, in one segment.
    async fn response(&mut self) -> io::Result<()> {
        let is_able = (self.is_awake || self.proxy_answers) && self.upload.is_none();
        let is_willing = self.reads && !self.ignores_pings && !self.has_left;
        if self.owed.is_empty() || !is_able || !is_willing {
            return Ok(());
        }
        let owed = std::mem::take(&mut self.owed);
        self.write(&pongs(&owed, self.part.is_masked)).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.part.is_tls {
            true => self.stream.write_all(&sealed(bytes)).await,
            false => self.stream.write_all(bytes).await,
        }
    }
}

fn is_of_host(step: Step) -> bool {
    matches!(
        step,
        Step::Host(_) | Step::HostStopsReading | Step::HostReads
    )
}

fn closes(step: Step) -> bool {
    matches!(
        step,
        Step::Host(Act::Close(_) | Act::Fin | Act::Rst)
            | Step::Peer(Act::Close(_) | Act::Fin | Act::Rst)
    )
}
