//! Middleboxes that terminate TCP: real proxies, configured with their idle limit.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{self, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{LabError, Namespace, Process, command, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// nginx or haproxy as a reverse proxy, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    // Dropped before its files.
    _process: Process,
    _folder: Folder,
    addr: SocketAddr,
}

impl Proxy {
    /// nginx, which forwards from `at` to `to` inside `namespace` and ends connections idle for
    /// `read_timeout` (`proxy_read_timeout`) with a FIN.
    ///
    /// # Errors
    /// [`LabError::MissingProgram`], or [`LabError::Timeout`] if it does not listen.
    pub fn nginx(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        read_timeout: Duration,
    ) -> Result<Self, LabError> {
        command::require(&[("nginx", "nginx-light")])?;
        let folder = Folder::new()?;
        let shown = folder.0.display();
        let milliseconds = read_timeout.as_millis();
        let config = format!(
            "daemon off; master_process off; pid {shown}/nginx.pid; error_log stderr crit;
             events {{}}
             http {{
               access_log off;
               client_body_temp_path {shown}; proxy_temp_path {shown};
               fastcgi_temp_path {shown}; uwsgi_temp_path {shown}; scgi_temp_path {shown};
               server {{
                 listen {at};
                 location / {{
                   proxy_pass http://{to};
                   proxy_http_version 1.1;
                   proxy_read_timeout {milliseconds}ms;
                   proxy_set_header Upgrade $http_upgrade;
                   proxy_set_header Connection upgrade;
                 }}
               }}
             }}\n"
        );
        let file = folder.write("nginx.conf", &config)?;
        Self::start(
            namespace,
            at,
            folder,
            "nginx",
            &["-e", "stderr", "-c", &file],
        )
    }

    /// haproxy, which resets connections idle for `tunnel` (`timeout tunnel`); see
    /// [`nginx`](Self::nginx).
    ///
    /// # Errors
    /// As [`nginx`](Self::nginx).
    pub fn haproxy(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        tunnel: Duration,
    ) -> Result<Self, LabError> {
        command::require(&[("haproxy", "haproxy")])?;
        let milliseconds = tunnel.as_millis();
        let config = format!(
            "defaults
               mode http
               timeout connect 5s
               timeout client 30s
               timeout server 30s
               timeout tunnel {milliseconds}ms
             frontend websocket
               bind {at}
               default_backend servers
             backend servers
               server one {to}\n"
        );
        let folder = Folder::new()?;
        let file = folder.write("haproxy.cfg", &config)?;
        Self::start(
            namespace,
            at,
            folder,
            "haproxy",
            &["-q", "-db", "-f", &file],
        )
    }

    /// The URL of `path` behind the proxy, for [`Client::connect`](crate::Client::connect).
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.addr)
    }

    fn start(
        namespace: &Namespace,
        addr: SocketAddr,
        folder: Folder,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self, LabError> {
        let mut command = namespace.command(program);
        command.args(arguments).stdin(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let listens = || namespace.run(|| TcpStream::connect(addr).is_ok());
        let what = format!("{program} to listen on {addr}");
        wait_until(&what, START_LIMIT, || listens().unwrap_or(false))?;
        Ok(Self {
            _process: process,
            _folder: folder,
            addr,
        })
    }
}

/// Holds the configuration and the files that the proxy writes.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, LabError> {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("wsmon-lab-proxy-{}-{taken}", process::id()));
        fs::create_dir_all(&folder)
            .map_err(LabError::io(format!("create {}", folder.display())))?;
        Ok(Self(folder))
    }

    fn write(&self, name: &str, content: &str) -> Result<String, LabError> {
        let file = self.0.join(name);
        fs::write(&file, content).map_err(LabError::io(format!("write {}", file.display())))?;
        Ok(file.to_string_lossy().into_owned())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is in the temporary folder, where leftovers do no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
