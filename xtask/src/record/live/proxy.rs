//! nginx and haproxy as reverse proxies in the load balancer's namespace.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;
use lab::{Namespace, Process, wait_until};

use super::SOON;
use crate::workspace;

/// A proxy, until it is dropped.
pub(super) struct Proxy {
    _process: Process,
}

impl Proxy {
    /// `[at, to]`: where it listens, and the server.
    ///
    /// # Errors
    /// When nginx is not installed or does not listen.
    pub(super) fn nginx(namespace: &Namespace, [at, to]: [SocketAddr; 2]) -> Result<Self> {
        let folder = folder()?;
        let shown = folder.display();
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
                   proxy_set_header Upgrade $http_upgrade;
                   proxy_set_header Connection upgrade;
                 }}
               }}
             }}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let file = file.to_string_lossy().into_owned();
        Self::start(namespace, at, "nginx", &["-e", "stderr", "-c", &file])
    }

    /// See [`nginx`](Self::nginx).
    ///
    /// # Errors
    /// When haproxy is not installed or does not listen.
    pub(super) fn haproxy(namespace: &Namespace, [at, to]: [SocketAddr; 2]) -> Result<Self> {
        let config = format!(
            "defaults
               mode http
               timeout connect 5s
               timeout client 30s
               timeout server 30s
             frontend websocket
               bind {at}
               default_backend servers
             backend servers
               server one {to}\n"
        );
        let file = folder()?.join("haproxy.cfg");
        fs::write(&file, config)?;
        Self::start(
            namespace,
            at,
            "haproxy",
            &["-q", "-db", "-f", &file.to_string_lossy()],
        )
    }

    fn start(
        namespace: &Namespace,
        at: SocketAddr,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut command = namespace.command(program);
        command.args(arguments).stdin(Stdio::null());
        let process = Process::spawn(&mut command)?;
        let listens = || namespace.run(|| TcpStream::connect(at).is_ok());
        wait_until(&format!("{program} to listen on {at}"), SOON, || {
            listens().unwrap_or(false)
        })?;
        Ok(Self { _process: process })
    }
}

fn folder() -> Result<PathBuf> {
    let folder = workspace::root().join("target/proxies");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
