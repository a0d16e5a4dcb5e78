use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use super::{Certificate, TlsCipher, rustls::RustlsServer};
use crate::{LabError, Namespace, Process, Proxy, fresh_port, node_modules, workspace};

/// Longer than any silence in a test.
const PROXY_IDLE_LIMIT: Duration = Duration::from_secs(3600);

/// What a server is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WssStack {
    /// Python's `websockets` on asyncio; OpenSSL.
    Websockets,
    /// Python's `aiohttp`, whose pings follow silences; OpenSSL.
    Aiohttp,
    /// node's `ws`; node's own OpenSSL.
    Ws,
    /// Go's gorilla/websocket and crypto/tls.
    Gorilla,
    /// tokio-tungstenite and rustls, in this process.
    Rustls,
    /// nginx in front of `websockets` without TLS; OpenSSL.
    Nginx,
    /// haproxy in front of `websockets` without TLS; OpenSSL.
    Haproxy,
    /// Java's own TLS, which pads records in TLS 1.3.
    Jsse,
}

impl WssStack {
    pub const ALL: [Self; 8] = [
        Self::Websockets,
        Self::Aiohttp,
        Self::Ws,
        Self::Gorilla,
        Self::Rustls,
        Self::Nginx,
        Self::Haproxy,
        Self::Jsse,
    ];

    /// A word for file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websockets => "websockets",
            Self::Aiohttp => "aiohttp",
            Self::Ws => "ws",
            Self::Gorilla => "gorilla",
            Self::Rustls => "rustls",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Jsse => "jsse",
        }
    }

    /// Whether it accepts such clients. rustls has no CBC.
    pub fn accepts(self, cipher: TlsCipher) -> bool {
        (self, cipher) != (Self::Rustls, TlsCipher::Tls12Cbc)
    }
}

/// A WebSocket server behind TLS, until it is dropped.
///
/// A client chooses with its texts what it sends; `testdata/peers/README.md` has the list. It never
/// ends a connection because pongs are missing, except [`WssStack::Aiohttp`].
#[derive(Debug)]
pub struct WssServer {
    addr: SocketAddr,
    _running: Running,
}

/// What stops when it is dropped.
#[derive(Debug)]
enum Running {
    Process { _process: Process },
    Task { _server: RustlsServer },
    Proxied { _proxy: Proxy, _backend: Process },
}

impl WssServer {
    /// Listens on `addr` inside `namespace`, and sends a ping every `ping_every` on each connection,
    /// or none.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`], [`LabError::Command`] if it does not start, or as
    /// [`Proxy::nginx`].
    pub fn start(
        namespace: &Namespace,
        stack: WssStack,
        addr: SocketAddr,
        certificate: &Certificate,
        ping_every: Option<Duration>,
    ) -> Result<Self, LabError> {
        let program = |program: Program| {
            let process = program.start(namespace, addr, ping_every, Some(certificate))?;
            Ok::<_, LabError>(Running::Process { _process: process })
        };
        let running = match stack {
            WssStack::Websockets => program(Program::Websockets)?,
            WssStack::Aiohttp => program(Program::Aiohttp)?,
            WssStack::Ws => program(Program::Ws)?,
            WssStack::Gorilla => program(Program::Gorilla)?,
            WssStack::Jsse => program(Program::Jsse)?,
            WssStack::Rustls => Running::Task {
                _server: RustlsServer::start(namespace, addr, certificate, ping_every)?,
            },
            WssStack::Nginx | WssStack::Haproxy => {
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, fresh_port()));
                let backend = Program::Websockets.start(namespace, to, ping_every, None)?;
                let start = match stack {
                    WssStack::Nginx => Proxy::nginx_tls,
                    _ => Proxy::haproxy_tls,
                };
                Running::Proxied {
                    _proxy: start(namespace, addr, to, PROXY_IDLE_LIMIT, certificate)?,
                    _backend: backend,
                }
            }
        };
        Ok(Self {
            addr,
            _running: running,
        })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// The servers of `testdata/peers`.
#[derive(Clone, Copy)]
enum Program {
    Websockets,
    Aiohttp,
    Ws,
    Gorilla,
    Jsse,
}

impl Program {
    /// Returns once it listens.
    fn start(
        self,
        namespace: &Namespace,
        addr: SocketAddr,
        ping_every: Option<Duration>,
        certificate: Option<&Certificate>,
    ) -> Result<Process, LabError> {
        let mut command = self.command(namespace)?;
        command
            .args([addr.ip().to_string(), addr.port().to_string()])
            .arg(ping_every.unwrap_or_default().as_millis().to_string())
            .env("NODE_PATH", node_modules())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(certificate) = certificate {
            command.args([certificate.chain(), certificate.key()]);
        }
        let mut process = Process::spawn(&mut command)?;
        let mut line = String::new();
        if let Some(stdout) = &mut process.child_mut().stdout {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(LabError::io("read a server's standard output"))?;
        }
        match line.trim_end() {
            "ready" => Ok(process),
            _ => Err(LabError::Command {
                command: format!("{command:?}"),
                stderr: format!("it is not ready, its own error is above: {line}"),
            }),
        }
    }

    fn command(self, namespace: &Namespace) -> Result<Command, LabError> {
        let installed = workspace().join("target/peers");
        let script = |name: &str| workspace().join("testdata/peers").join(name);
        let python = installed.join("venv/bin/python");
        let node = PathBuf::from("node");
        let compiled = installed.join("compiled");
        let (program, file) = match self {
            Self::Websockets => (python, script("websockets_server.py")),
            Self::Aiohttp => (python, script("aiohttp_server.py")),
            Self::Ws => (node, script("ws_server.cjs")),
            Self::Gorilla => (compiled.join("gorilla_server"), PathBuf::new()),
            Self::Jsse => (PathBuf::from("java"), compiled.join("JsseServer.class")),
        };
        for needed in [&program, &file] {
            if needed.is_absolute() && !needed.is_file() {
                return Err(LabError::MissingPeer(needed.clone()));
            }
        }
        let mut command = namespace.command(&program.to_string_lossy());
        match self {
            Self::Websockets | Self::Aiohttp | Self::Ws => command.arg(file),
            Self::Gorilla => &mut command,
            // Less memory and fewer threads than for a host of its own.
            Self::Jsse => command
                .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
                .arg("-cp")
                .arg(compiled)
                .arg("JsseServer"),
        };
        Ok(command)
    }
}
