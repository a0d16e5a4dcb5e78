//! The process that holds the sockets of some network namespaces. `population.rs` writes commands to its
//! standard input:
//!
//! | line | action | answer |
//! |---|---|---|
//! | `open NAME INDEX PORT COUNT` | listens on the port in a namespace and opens connections to it | `opened COUNT` |
//! | `stall INDEX` | a client there sends a ping that its server never reads | `stalled PEER` |
//!
//! The process ends when its input ends.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Context, Result, bail};
use lab::{Namespace, Pair};

/// Source ports are assigned from here on, above all ports that servers use.
const FIRST_CLIENT_PORT: u16 = 33_000;

/// Connections of one namespace, which one process holds.
pub(super) const MOST_EACH: usize = 9_800;

/// Sockets of one process, below the usual hard limit of 20,000 files.
pub(super) const MOST_SOCKETS: usize = 19_800;

/// The sockets of a namespace.
struct Sockets {
    _listener: TcpListener,
    pairs: Vec<Pair>,
}

pub(crate) fn run() -> Result<()> {
    lab::raise_open_files_limit()?;
    let mut namespaces = HashMap::new();
    let mut out = io::stdout();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["open", name, index, port, count] => {
                let (index, port, count) = (index.parse()?, port.parse()?, count.parse()?);
                let inside = || Sockets::open(index, port, count);
                let sockets = Namespace::existing(name).run(inside)?;
                namespaces.insert(index, sockets?);
                writeln!(out, "opened {count}")?;
            }
            ["stall", index] => {
                let sockets = namespaces.get_mut(&index.parse()?);
                let pair = sockets.and_then(|sockets: &mut Sockets| sockets.pairs.first_mut());
                let pair = pair.context("there is no such connection")?;
                pair.leave_unread()?;
                writeln!(out, "stalled {}", pair.peer()?)?;
            }
            _ => bail!("unknown command `{line}`"),
        }
        out.flush()?;
    }
    Ok(())
}

impl Sockets {
    /// In the calling thread's namespace. Each namespace has addresses of its own, so a verdict's peer says
    /// where it is.
    fn open(index: u16, port: u16, count: usize) -> Result<Self> {
        let [high, low] = index.to_be_bytes();
        let server = Ipv4Addr::new(127, 1, high, low);
        let listener = TcpListener::bind((server, port)).context("cannot listen on the port")?;
        let client = Ipv4Addr::new(127, 2, high, low);
        let pairs = (FIRST_CLIENT_PORT..)
            .take(count)
            .map(|port| Pair::open(&listener, SocketAddr::from((client, port))));
        let pairs = pairs.collect::<Result<_, _>>()?;
        Ok(Self {
            _listener: listener,
            pairs,
        })
    }
}
