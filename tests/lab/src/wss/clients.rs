use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Certificate, TlsCipher};
use crate::{LabError, Namespace, Process, folder::Folder, node_modules, wait_until, workspace};

/// Hundreds of handshakes on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

const SOON: Duration = Duration::from_secs(20);

/// What passes on a connection besides pings and pongs; `testdata/peers/wss_clients.cjs` has the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Nothing.
    Idle,
    /// Texts of many lengths, each sent back.
    Chat,
    /// Texts of four letters, each sent back.
    Words,
    /// A text, answered with twenty at once.
    Bursts,
    /// Texts that go to all connections with this traffic.
    Room,
    /// A request and a response every second.
    Polls,
    /// A message of the server every 0.7 s.
    Ticks,
}

impl Traffic {
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Chat,
        Self::Words,
        Self::Bursts,
        Self::Room,
        Self::Polls,
        Self::Ticks,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Chat => "chat",
            Self::Words => "words",
            Self::Bursts => "bursts",
            Self::Room => "room",
            Self::Polls => "polls",
            Self::Ticks => "ticks",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|traffic| traffic.name() == name)
    }
}

/// A process with many connections to one server, which answers pings. Dropping it kills it, so that
/// its connections end without a close frame.
#[derive(Debug)]
pub struct WssClients {
    process: Process,
    local: IpAddr,
    events: PathBuf,
    _folder: Folder,
}

/// A client's view of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WssConnection {
    /// Its own address: the server's peer.
    pub local: SocketAddr,
    pub traffic: Traffic,
    /// Whether a message came.
    pub is_answered: bool,
    /// Pings received, and so answered.
    pub pings: usize,
    /// Whether it has ended.
    pub is_over: bool,
}

impl WssClients {
    /// Opens a connection with each of `traffic`, from `from` inside `namespace`. Appends to
    /// `key_log` the secrets of all of them, in the format of NSS.
    ///
    /// # Errors
    /// [`LabError::Command`] if a handshake fails, [`LabError::Timeout`] without an answer.
    pub fn connect(
        namespace: &Namespace,
        from: IpAddr,
        server: SocketAddr,
        certificate: &Certificate,
        cipher: TlsCipher,
        traffic: &[Traffic],
        key_log: &Path,
    ) -> Result<Self, LabError> {
        let folder = Folder::new("clients")?;
        let events = folder.write("events.jsonl", "")?;
        let stdout = File::options()
            .append(true)
            .open(&events)
            .map_err(LabError::io(format!("open {}", events.display())))?;
        let mut command = namespace.command("node");
        command
            .arg(workspace().join("testdata/peers/wss_clients.cjs"))
            .args([server.to_string(), from.to_string()])
            .args([certificate.chain(), key_log])
            .args([cipher.version(), cipher.ciphers()])
            .args(traffic.iter().map(|traffic| traffic.name()))
            .env("NODE_PATH", node_modules())
            .stdin(Stdio::null())
            .stdout(stdout);
        let mut clients = Self {
            process: Process::spawn(&mut command)?,
            local: from,
            events,
            _folder: folder,
        };
        let mut status = None;
        let what = format!("{} handshakes with {server}", traffic.len());
        wait_until(&what, CONNECT_LIMIT, || {
            status = clients.process.try_wait().ok().flatten();
            status.is_some() || clients.connections().len() == traffic.len()
        })?;
        match status {
            None => Ok(clients),
            Some(status) => Err(LabError::Command {
                command: format!("node wss_clients.cjs {server}"),
                stderr: format!("{status}, its own error is above"),
            }),
        }
    }

    /// Its connections, in the order in which they opened.
    pub fn connections(&self) -> Vec<WssConnection> {
        let log = fs::read_to_string(&self.events).unwrap_or_default();
        let mut connections: Vec<WssConnection> = Vec::new();
        // The last line may be incomplete.
        for event in log
            .lines()
            .map_while(|line| serde_json::from_str::<Value>(line).ok())
        {
            let port = event["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok());
            let local = SocketAddr::new(self.local, port.unwrap_or_default());
            if let Some(traffic) = event["traffic"].as_str().and_then(Traffic::named) {
                connections.push(WssConnection {
                    local,
                    traffic,
                    is_answered: false,
                    pings: 0,
                    is_over: false,
                });
                continue;
            }
            let known = connections.iter_mut().rfind(|known| known.local == local);
            match (known, event["event"].as_str()) {
                (Some(known), Some("ping")) => known.pings += 1,
                (Some(known), Some("answer")) => known.is_answered = true,
                (Some(known), Some("end")) => known.is_over = true,
                _ => {}
            }
        }
        connections
    }

    /// Stops the process with SIGSTOP: from now on its connections are dead, and their kernel
    /// acknowledges what is sent to them. Returns once it is stopped.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses, [`LabError::Timeout`] if it still runs.
    pub fn stop(&mut self) -> Result<(), LabError> {
        self.process.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.process.id());
        wait_until("the clients to stop", SOON, || {
            fs::read_dir(&tasks).is_ok_and(|threads| {
                threads.flatten().all(|thread| {
                    fs::read_to_string(thread.path().join("stat"))
                        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(is_stopped))
                })
            })
        })
    }

    /// Ends all connections with a close frame, and the process.
    ///
    /// # Errors
    /// [`LabError::Timeout`] if a server does not answer.
    pub fn close(&mut self) -> Result<(), LabError> {
        self.process.terminate(SOON).map(drop)
    }
}

/// Whether a thread is stopped, by the fields of its `stat` behind its name.
fn is_stopped(fields: &str) -> bool {
    fields.trim_start().starts_with('T')
}
