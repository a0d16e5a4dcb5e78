//! A running workload.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Exchange, LabError, Namespace, Pair, Process, Turn, node_modules, workspace};
use wire::{BINARY, ZERO_KEY, frame};

use super::workload::Workload;

/// The server's port, which is watched.
pub(super) const PORT: u16 = 8080;

/// Source ports are assigned from here on.
const FIRST_CLIENT_PORT: u16 = 10_000;

/// Traffic in its own network. Dropping it ends the traffic.
#[derive(Debug)]
pub(super) struct Traffic {
    workload: Workload,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), LabError>>>,
    /// Shut down at the end, so that no thread waits for a stopped peer.
    streams: Vec<TcpStream>,
    /// Set if the server is another program.
    server: Option<Process>,
    namespace: Namespace,
}

impl Traffic {
    pub(super) fn start(workload: Workload) -> Result<Self> {
        let namespace = Namespace::loopback()?;
        let mut traffic = Self {
            workload,
            count: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
            streams: Vec::new(),
            server: None,
            namespace,
        };
        match workload {
            Workload::Echo => traffic.echo(125)?,
            Workload::Node => traffic.echo_by_node(125)?,
            Workload::Bulk => traffic.echo(65_536)?,
            Workload::Broadcast => traffic.broadcast(1_024)?,
            Workload::Idle => traffic.ping()?,
        }
        Ok(traffic)
    }

    /// Work done so far, in the workload's unit.
    ///
    /// # Errors
    /// If the workload has ended.
    pub(super) fn count(&self) -> Result<u64> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            bail!("the workload `{}` ended early", self.workload.name());
        }
        Ok(self.count.load(Ordering::Relaxed))
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn echo(&mut self, payload: usize) -> Result<()> {
        let (clients, servers) = self.pairs()?.into_iter().map(Pair::into_ends).unzip();
        let server = Turn {
            reads: frame(BINARY, &vec![0; payload], ZERO_KEY).len(),
            answers: Some(frame(BINARY, &vec![0; payload], None)),
            begins: false,
        };
        let server = Exchange::new(servers, server)?;
        let stop = Arc::clone(&self.stop);
        self.spawn(move |_| server.run(&AtomicU64::new(0), &stop));
        self.echo_clients(clients, payload)
    }

    fn echo_by_node(&mut self, payload: usize) -> Result<()> {
        const NEVER_PINGS: &str = "1000000000";
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut command = self.namespace.command("node");
        command
            .arg(workspace().join("testdata/peers/ws_server.cjs"))
            .args([&address.ip().to_string(), &PORT.to_string(), NEVER_PINGS])
            .env("NODE_PATH", node_modules())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut server = Process::spawn(&mut command)?;
        let output = server.child_mut().stdout.take().context("no output")?;
        let mut ready = String::new();
        BufReader::new(output).read_line(&mut ready)?;
        ensure!(ready.trim_end() == "ready", "node does not serve: {ready}");
        self.server = Some(server);
        let connections = self.workload.connections();
        let connect = || {
            let connect = |_| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                wire::upgrade(&stream)?;
                Ok(stream)
            };
            (0..connections)
                .map(connect)
                .collect::<std::io::Result<_>>()
        };
        let clients = self.namespace.run(connect)?;
        self.echo_clients(clients.context("cannot connect to node")?, payload)
    }

    /// Clients that send a frame for each frame received; the received frames are counted.
    fn echo_clients(&mut self, clients: Vec<TcpStream>, payload: usize) -> Result<()> {
        let client = Turn {
            reads: frame(BINARY, &vec![0; payload], None).len(),
            answers: Some(frame(BINARY, &vec![0; payload], ZERO_KEY)),
            begins: true,
        };
        let client = Exchange::new(clients, client)?;
        let stop = Arc::clone(&self.stop);
        self.spawn(move |count| client.run(count, &stop));
        Ok(())
    }

    fn broadcast(&mut self, payload: usize) -> Result<()> {
        let message = frame(BINARY, &vec![0; payload], None);
        let pairs = self.pairs()?;
        let (clients, mut servers): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(Pair::into_ends).unzip();
        for server in &servers {
            let stream = server.try_clone().context("cannot keep a socket")?;
            self.streams.push(stream);
        }
        let turn = Turn {
            reads: message.len(),
            answers: None,
            begins: false,
        };
        let client = Exchange::new(clients, turn)?;
        let stop = Arc::clone(&self.stop);
        self.spawn(move |count| client.run(count, &stop));
        let stop = Arc::clone(&self.stop);
        self.spawn(move |_| {
            while !stop.load(Ordering::Relaxed) {
                for server in &mut servers {
                    // Fails once the sockets are shut down at the end.
                    if server.write_all(&message).is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(())
    }

    /// On two threads, because a pair has both ends on one.
    fn ping(&mut self) -> Result<()> {
        let mut pairs = self.pairs()?;
        for mut pairs in [pairs.split_off(pairs.len() / 2), pairs] {
            let stop = Arc::clone(&self.stop);
            self.spawn(move |count| {
                while !stop.load(Ordering::Relaxed) {
                    for pair in &mut pairs {
                        pair.ping()?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            });
        }
        Ok(())
    }

    fn pairs(&self) -> Result<Vec<Pair>> {
        let connections = self.workload.connections();
        self.namespace.run(|| open(connections))?
    }

    fn spawn(&mut self, work: impl FnOnce(&AtomicU64) -> Result<(), LabError> + Send + 'static) {
        let count = Arc::clone(&self.count);
        self.threads.push(thread::spawn(move || work(&count)));
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for stream in &self.streams {
            // Fails only if it is already closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // `count` has reported a broken connection, unless this is the intended end.
            let _ = thread.join();
        }
    }
}

/// In the calling thread's network namespace.
fn open(connections: usize) -> Result<Vec<Pair>> {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).context("cannot listen on the port")?;
    (FIRST_CLIENT_PORT..)
        .take(connections)
        .map(|port| {
            let from = SocketAddr::from(([127, 0, 0, 2], port));
            Ok(Pair::open(&listener, from)?)
        })
        .collect()
}
