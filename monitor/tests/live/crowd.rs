//! Thousands of clients in one thread, each with its own address, that reconnect when they lose
//! their connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use lab::Lab;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use wire::REQUEST;

use crate::dice::Dice;

/// How long a client waits before its next attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Retry {
    Fixed(Duration),
    /// The delay doubles after each failure.
    Exponential(Duration),
    /// Any time up to the delay of `Exponential`.
    FullJitter(Duration),
    /// Leaves after `stays`, and returns after `back`.
    Restless {
        stays: Duration,
        back: Duration,
    },
}

/// Counts over all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Clients that are connected.
    pub(crate) connected: u16,
    /// Answers with status 101.
    pub(crate) accepted: u64,
    /// Other answers.
    pub(crate) refused: u64,
    /// Connections without an answer.
    pub(crate) unanswered: u64,
    /// When the first attempt reached a server since the last [`Crowd::expect_a_wave`].
    pub(crate) first_wave: Option<SystemTime>,
}

pub(crate) struct Crowd {
    seen: Arc<Mutex<Seen>>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Connects these clients to `server`, a thousand per second.
    pub(crate) fn gather(lab: &Lab, server: SocketAddr, who: Range<u16>, retry: Retry) -> Self {
        lab.add_client_network("10.78.0.0/16").unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let client = |number: u16| {
            let seen = Arc::clone(&seen);
            let client = async move {
                sleep(Duration::from_millis(number.into())).await;
                let dice = Dice(number.into());
                live(address(number), server, retry, dice, &seen).await;
            };
            lab.client_ns().spawn(client).unwrap()
        };
        Self {
            clients: who.map(client).collect(),
            seen,
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Resets the first wave, so that the next one is recorded.
    pub(crate) fn expect_a_wave(&self) {
        lock(&self.seen).first_wave = None;
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// The address of a client.
pub(crate) fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 78, high, low).into()
}

async fn live(from: IpAddr, server: SocketAddr, retry: Retry, mut dice: Dice, seen: &Mutex<Seen>) {
    let mut failures = 0;
    loop {
        match attempt(from, server, seen).await {
            Ok(Some((mut stream, 101))) => {
                failures = 0;
                change(seen, |seen| {
                    seen.accepted += 1;
                    seen.connected += 1;
                });
                let stays = match retry {
                    Retry::Restless { stays, .. } => stays,
                    _ => Duration::from_secs(3600),
                };
                // The outcome does not matter: the connection is over.
                let _ = timeout(stays, stream.read(&mut [0; 16])).await;
                change(seen, |seen| seen.connected -= 1);
            }
            Ok(Some(_)) => change(seen, |seen| seen.refused += 1),
            Ok(None) => change(seen, |seen| seen.unanswered += 1),
            // The server does not listen.
            Err(_) => {}
        }
        sleep(retry.delay(failures, &mut dice)).await;
        failures += 1;
    }
}

impl Retry {
    fn delay(self, failures: u32, dice: &mut Dice) -> Duration {
        let grown = |base: Duration| (base * 2_u32.pow(failures.min(10))).min(LONGEST);
        match self {
            Self::Fixed(delay) => delay,
            Self::Exponential(base) => grown(base),
            Self::FullJitter(base) => {
                grown(base).mul_f64(dice.below(1 << 20) as f64 / f64::from(1 << 20))
            }
            Self::Restless { back, .. } => back,
        }
    }
}

/// The answer's status; `None` without an answer.
async fn attempt(
    from: IpAddr,
    server: SocketAddr,
    seen: &Mutex<Seen>,
) -> io::Result<Option<(TcpStream, u16)>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let mut stream = socket.connect(server).await?;
    change(seen, |seen| {
        seen.first_wave.get_or_insert_with(SystemTime::now);
    });
    if stream.write_all(REQUEST).await.is_err() {
        return Ok(None);
    }
    let mut head = [0; 512];
    let mut read = 0;
    while !head[..read].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[read..]).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(more) => read += more,
        }
    }
    let status = std::str::from_utf8(&head[9..12]).ok();
    Ok(status.and_then(|status| Some((stream, status.parse().ok()?))))
}

fn change(seen: &Mutex<Seen>, act: impl FnOnce(&mut Seen)) {
    act(&mut lock(seen));
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum delay of a client.
const LONGEST: Duration = Duration::from_secs(30);
