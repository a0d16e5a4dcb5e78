//! Aborts ten thousand sockets while connections come and go on the same addresses.

use std::{
    collections::{HashSet, VecDeque},
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{DestroyOutcome, destroy};
use crate::kernel::{
    sock_diag::{socket_finder::SocketFinder, socket_query::SocketKey},
    testing::{Connection, Namespace, key_of, wait_for},
};

const REAPS: usize = 10_000;
const CHURNERS: usize = 4;
/// Pairs of addresses that each churner uses in turn.
const PLACES: usize = 8;
const BYSTANDERS: usize = 20;
/// One abort in this many targets a connection that is open or has just ended.
const LIVE: usize = 4;

/// Possible targets of the reaper.
#[derive(Default)]
struct Targets {
    /// The server's socket of the last connection, by pair of addresses.
    live: Vec<Option<SocketKey>>,
    /// Both sockets of the previous connection, whose addresses are in use again.
    stale: Vec<Option<[SocketKey; 2]>>,
}

/// The observations of the churners.
#[derive(Default)]
struct ChurnResult {
    /// Server sockets whose application got `ECONNABORTED`.
    aborted: HashSet<u64>,
    ended: usize,
}

#[test]
#[ignore = "needs root: makes network namespaces, aborts connections"]
fn each_of_ten_thousand_aborted_sockets_is_the_right_one_however_fast_addresses_are_reused() {
    let namespace = Namespace::new();
    // The same addresses again, in a namespace that a search may reach.
    let twin = Namespace::new();
    let twins = twin.enter(|| places().map(connect).collect::<Vec<_>>());
    let targets = Mutex::new(Targets {
        live: vec![None; CHURNERS * PLACES],
        stale: vec![None; CHURNERS * PLACES],
    });
    let seen = Mutex::new(ChurnResult::default());
    let over = AtomicBool::new(false);
    let exchanges = AtomicU64::new(0);
    let destroyed = namespace.enter(|| {
        let bystanders: Vec<_> = (0..BYSTANDERS)
            .map(|i| connect(CHURNERS * PLACES + i))
            .collect();
        // A thread is in the namespace of the thread that starts it.
        thread::scope(|scope| {
            let over = OnDrop(&over);
            for churner in 0..CHURNERS {
                let (targets, seen, over) = (&targets, &seen, over.0);
                scope.spawn(move || churn(churner, targets, seen, over));
            }
            let (bystanders, twins) = (&bystanders, &twins);
            let (exchanges, end) = (&exchanges, over.0);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    for connection in bystanders.iter().chain(twins) {
                        connection.assert_alive();
                    }
                    exchanges.fetch_add(1, Ordering::Relaxed);
                }
            });
            reap(&targets)
        })
    });
    let seen = seen.into_inner().unwrap();
    println!(
        "{REAPS} reaps, {} aborted, {} connections came and went, {} rounds of the bystanders",
        destroyed.len(),
        seen.ended,
        exchanges.into_inner()
    );
    // The application of each aborted socket got the error, and no other did.
    assert_eq!(seen.aborted, destroyed);
    assert!(destroyed.len() > REAPS / LIVE / 5, "{}", destroyed.len());
    assert!(seen.ended > destroyed.len());
    for connection in &twins {
        connection.assert_alive();
    }
}

/// Sets the flag however a scope ends.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn places() -> impl Iterator<Item = usize> {
    0..CHURNERS * PLACES
}

fn connect(place: usize) -> Connection {
    let address = |base: usize| format!("127.0.0.1:{}", base + place);
    Connection::between(&address(28_400), &address(18_400))
}

/// Aborts sockets; returns those that the kernel reports as aborted.
fn reap(targets: &Mutex<Targets>) -> HashSet<u64> {
    let mut finder = SocketFinder::open().unwrap();
    let mut destroyed = HashSet::new();
    let aim = |what: &dyn Fn(&mut Targets) -> Option<SocketKey>| {
        wait_for("a target", || {
            what(&mut targets.lock().unwrap_or_else(PoisonError::into_inner))
        })
    };
    for shot in 0..REAPS {
        let place = shot % (CHURNERS * PLACES);
        let live = (shot / (CHURNERS * PLACES)).is_multiple_of(LIVE);
        let key = if live {
            aim(&|targets| targets.live[place].take())
        } else {
            aim(&|targets| targets.stale[place].map(|keys| keys[shot % 2]))
        };
        let outcome = destroy(&mut finder, &key).unwrap();
        if outcome == DestroyOutcome::Destroyed {
            assert!(live, "{key:?} was closed before");
            assert!(destroyed.insert(key.cookie()), "{key:?} twice");
        }
    }
    destroyed
}

/// An open connection and its sockets' keys: the server's and the client's.
struct Open {
    connection: Connection,
    keys: [SocketKey; 2],
}

impl Open {
    fn at(place: usize) -> Self {
        let connection = connect(place);
        let keys = [key_of(&connection.server), key_of(&connection.client)];
        Self { connection, keys }
    }

    /// Uses the connection once more and ends it by a RST from the client. Returns whether the server's
    /// socket was aborted before that; any other error is a failure.
    fn end(self) -> bool {
        let Connection { client, server } = self.connection;
        let used = exchange(&client, &server);
        // The server's next error is this RST, unless its socket was aborted.
        drop(client);
        let error = match &used {
            Err((ChurnSide::Server, kind)) => *kind,
            _ => server.peek(&mut [0]).expect_err("a RST").kind(),
        };
        let aborted = error == ErrorKind::ConnectionAborted;
        assert!(
            aborted || used.is_ok() && error == ErrorKind::ConnectionReset,
            "not aborted, and yet {error:?} after {used:?}"
        );
        aborted
    }
}

#[derive(Debug)]
enum ChurnSide {
    Client,
    Server,
}

/// Exchanges a byte each way; the error has the side on which it failed.
fn exchange(mut client: &TcpStream, mut server: &TcpStream) -> Result<(), (ChurnSide, ErrorKind)> {
    let on = |side| move |error: io::Error| (side, error.kind());
    client.write_all(b"x").map_err(on(ChurnSide::Client))?;
    server.read_exact(&mut [0]).map_err(on(ChurnSide::Server))?;
    server.write_all(b"x").map_err(on(ChurnSide::Server))?;
    client.read_exact(&mut [0]).map_err(on(ChurnSide::Client))
}

/// Opens, uses and closes connections on a few addresses until `over`.
fn churn(churner: usize, targets: &Mutex<Targets>, seen: &Mutex<ChurnResult>, over: &AtomicBool) {
    let first = churner * PLACES;
    let mut open: VecDeque<_> = (first..first + PLACES).map(Open::at).collect();
    let mut turn = 0;
    while !over.load(Ordering::Relaxed) {
        let ended = open.pop_front().expect("one for each place");
        let keys = ended.keys;
        note(seen, ended);
        let place = first + turn % PLACES;
        let new = Open::at(place);
        let mut targets = targets.lock().unwrap();
        targets.live[place] = Some(new.keys[0]);
        targets.stale[place] = Some(keys);
        open.push_back(new);
        turn += 1;
    }
    for last in open {
        note(seen, last);
    }
}

fn note(seen: &Mutex<ChurnResult>, ended: Open) {
    let cookie = ended.keys[0].cookie();
    let aborted = ended.end();
    let mut seen = seen.lock().unwrap();
    seen.ended += 1;
    if aborted {
        seen.aborted.insert(cookie);
    }
}
