//! The WebSocket implementations that live tests talk to, at the versions locked in
//! `testdata/peers`: node's `ws` in `target/peers/node_modules`, Python's `websockets` and `aiohttp` in
//! `target/peers/venv`. The latter also has Prometheus' Python client, whose parser checks expositions.
//! The servers in Go and Java, whose libraries are Debian's, are in `target/peers/compiled`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{bytecode_lock::sha256, files::read, npm, setup::Steps, workspace};

/// Installs both, unless this folder already has the same locked versions.
///
/// # Errors
/// If npm or pip fails.
pub(crate) fn install(steps: &Steps) -> Result<()> {
    let locks = workspace::root().join("testdata/peers");
    let folder = workspace::root().join("target/peers");
    let stamp = folder.join("stamp");
    let wanted = fingerprint(&locks, &folder)?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        steps.there("packages of node and Python", "target/peers");
        return Ok(());
    }
    npm::ci(steps, &locks, &folder)?;
    virtual_environment(steps, &folder.join("venv"), &locks.join("requirements.txt"))?;
    steps.write(&stamp, &wanted)
}

/// The sources of [`compile`].
const GORILLA: &str = "gorilla_server.go";
const JSSE: &str = "JsseServer.java";

/// Where Debian's packages of Go libraries have their sources.
const GO_PATH: &str = "/usr/share/gocode";

/// Compiles the servers in Go and Java, unless this folder already has them.
///
/// # Errors
/// If a compiler fails.
pub(crate) fn compile(steps: &Steps) -> Result<()> {
    let sources = workspace::root().join("testdata/peers");
    let folder = workspace::root().join("target/peers/compiled");
    let stamp = folder.join("stamp");
    let (gorilla, jsse) = (sources.join(GORILLA), sources.join(JSSE));
    let wanted = sha256(&[read(&gorilla)?, read(&jsse)?].concat());
    if fs::read_to_string(&stamp).is_ok_and(|compiled| compiled == wanted) {
        steps.there("servers in Go and Java", "target/peers/compiled");
        return Ok(());
    }
    steps.step(
        Command::new("go")
            .args(["build", "-o"])
            .arg(folder.join("gorilla_server"))
            .arg(gorilla)
            // Debian's sources instead of modules from the network.
            .env("GO111MODULE", "off")
            .env("GOPATH", GO_PATH)
            .env("GOCACHE", folder.join("go-cache")),
    )?;
    steps.step(Command::new("javac").arg("-d").arg(&folder).arg(jsse))?;
    steps.write(&stamp, &wanted)
}

/// Makes a virtual environment of Python, with the packages of a requirements file.
///
/// # Errors
/// If Python or pip fails.
pub(crate) fn virtual_environment(steps: &Steps, venv: &Path, requirements: &Path) -> Result<()> {
    // A dry run gets here before python3 is installed.
    let python = python().unwrap_or_else(|| PathBuf::from("python3"));
    steps.step(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(venv),
    )?;
    steps.step(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            // As root, pip prints a warning even inside a venv.
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .arg("--requirement")
            .arg(requirements),
    )
}

/// A python3 that can create virtual environments and is new enough for the locked `websockets`.
pub(crate) fn python() -> Option<PathBuf> {
    const PROBE: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    workspace::on_path("python3")
        .into_iter()
        .chain([PathBuf::from("/usr/bin/python3")])
        .find(|python| workspace::answer(python, &["-c", PROBE]).is_some())
}

/// The locks and the path: a virtual environment breaks when it is moved.
fn fingerprint(locks: &Path, folder: &Path) -> Result<String> {
    let mut all = folder.as_os_str().as_encoded_bytes().to_vec();
    for name in npm::LOCKS.into_iter().chain(["requirements.txt"]) {
        all.extend(read(&locks.join(name))?);
    }
    Ok(sha256(&all))
}
