//! The scripts of `testdata/recordings/scripts`, running in a namespace.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use lab::{Namespace, Process, node_modules, wait_for, workspace};

use crate::SOON;

/// The implementation of the protocol.
#[derive(Clone, Copy)]
pub(super) enum Library {
    Ws,
    Websockets,
    Aiohttp,
}

/// A server, until it is dropped.
pub(super) struct Peer {
    _process: Process,
}

impl Peer {
    /// Returns once it listens.
    ///
    /// # Errors
    /// If it does not listen.
    pub(super) fn server(
        namespace: &Namespace,
        library: Library,
        addr: SocketAddr,
    ) -> Result<Self> {
        let mut command = script(namespace, library, "server");
        command
            .args([addr.ip().to_string(), addr.port().to_string()])
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let stdout = process.child_mut().stdout.take();
        let mut line = String::new();
        BufReader::new(stdout.context("the server's stdout is a pipe")?).read_line(&mut line)?;
        if line.trim_end() != "ready" {
            bail!("the server on {addr} did not start: {line}");
        }
        Ok(Self { _process: process })
    }
}

/// Runs a client to its end.
///
/// # Errors
/// If it fails or does not end.
pub(super) fn run_client(
    namespace: &Namespace,
    library: Library,
    url: &str,
    scenario: &str,
) -> Result<()> {
    let mut command = script(namespace, library, "client");
    command.args([url, scenario]).stdout(Stdio::null());
    let mut process = Process::spawn(&mut command)?;
    let what = format!("the client of {url} to play {scenario}");
    let status = wait_for(&what, SOON, || process.try_wait().transpose())??;
    if !status.success() {
        bail!("the client of {url} failed to play {scenario}: {status}");
    }
    Ok(())
}

fn script(namespace: &Namespace, library: Library, role: &str) -> Command {
    let python = || {
        workspace()
            .join("target/peers/venv/bin/python")
            .into_os_string()
    };
    let (program, name) = match library {
        Library::Ws => ("node".into(), format!("ws_{role}.cjs")),
        Library::Websockets => (python(), format!("websockets_{role}.py")),
        Library::Aiohttp => (python(), format!("aiohttp_{role}.py")),
    };
    let mut command = namespace.command(&program.to_string_lossy());
    command
        .arg(workspace().join("testdata/recordings/scripts").join(name))
        .env("NODE_PATH", node_modules())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}
