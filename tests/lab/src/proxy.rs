//! Middleboxes that terminate TCP: real proxies, configured with their idle limit.

use std::{
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use crate::{Certificate, LabError, Namespace, Process, command, folder::Folder, wait_until};

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
        Self::start_nginx(namespace, at, to, read_timeout, None)
    }

    /// The same, with TLS 1.2 and 1.3 between the clients and nginx.
    ///
    /// # Errors
    /// As [`nginx`](Self::nginx).
    pub fn nginx_tls(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        read_timeout: Duration,
        certificate: &Certificate,
    ) -> Result<Self, LabError> {
        Self::start_nginx(namespace, at, to, read_timeout, Some(certificate))
    }

    fn start_nginx(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        read_timeout: Duration,
        certificate: Option<&Certificate>,
    ) -> Result<Self, LabError> {
        command::require(&[("nginx", "nginx-light")])?;
        let tls = certificate.map_or_else(String::new, |certificate| {
            let (chain, key) = (certificate.chain().display(), certificate.key().display());
            format!(
                " ssl; ssl_certificate {chain}; ssl_certificate_key {key};
                 ssl_protocols TLSv1.2 TLSv1.3"
            )
        });
        let folder = Folder::new("nginx")?;
        let shown = folder.path().display();
        let milliseconds = read_timeout.as_millis();
        let config = format!(
            "daemon off; master_process off; pid {shown}/nginx.pid; error_log stderr crit;
             events {{ worker_connections 8192; }}
             http {{
               access_log off;
               client_body_temp_path {shown}; proxy_temp_path {shown};
               fastcgi_temp_path {shown}; uwsgi_temp_path {shown}; scgi_temp_path {shown};
               server {{
                 listen {at}{tls};
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
            &["-e", "stderr", "-c", &file.to_string_lossy()],
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
        Self::start_haproxy(namespace, at, to, tunnel, None)
    }

    /// The same, with TLS 1.2 and 1.3 between the clients and haproxy.
    ///
    /// # Errors
    /// As [`nginx`](Self::nginx).
    pub fn haproxy_tls(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        tunnel: Duration,
        certificate: &Certificate,
    ) -> Result<Self, LabError> {
        Self::start_haproxy(namespace, at, to, tunnel, Some(certificate))
    }

    fn start_haproxy(
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
        tunnel: Duration,
        certificate: Option<&Certificate>,
    ) -> Result<Self, LabError> {
        command::require(&[("haproxy", "haproxy")])?;
        let tls = certificate.map_or_else(String::new, |certificate| {
            format!(" ssl crt {}", certificate.chain_and_key().display())
        });
        let milliseconds = tunnel.as_millis();
        let config = format!(
            "defaults
               mode http
               timeout connect 5s
               timeout client 30s
               timeout server 30s
               timeout tunnel {milliseconds}ms
             frontend websocket
               bind {at}{tls}
               default_backend servers
             backend servers
               server one {to}\n"
        );
        let folder = Folder::new("haproxy")?;
        let file = folder.write("haproxy.cfg", &config)?;
        Self::start(
            namespace,
            at,
            folder,
            "haproxy",
            &["-q", "-db", "-f", &file.to_string_lossy()],
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
