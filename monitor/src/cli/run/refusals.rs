//! What is refused before anything is attached.

use std::path::Path;

use crate::{
    api::{
        control::{RunningDaemon, SocketError},
        http::BindError,
    },
    cli::{client::DEFAULT_CONTROL, exit::Failure},
    kernel::{
        host::cgroup::CgroupError,
        prerequisites::{Missing, Prerequisite},
        sock_diag::sock_destroy::{self, DestroyError},
    },
};
use monitor_core::reap::ReapSettings;

/// Refuses a second daemon on the same control socket.
pub(super) async fn refuse_second(control: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = control else { return Ok(()) };
    match RunningDaemon::on(path).await {
        Some(running) => Err(Failure::usage(SocketError::InUse(running).to_string())),
        None => Ok(()),
    }
}

/// A taken address may be that of another wsmon, which has the default control socket then.
pub(super) async fn refused_metrics(error: BindError) -> Failure {
    let running = match error.is_taken() {
        true => RunningDaemon::on(Path::new(DEFAULT_CONTROL)).await,
        false => None,
    };
    Failure::usage(match running {
        Some(running) => {
            format!("{error}; {running}; stop it, or choose another address with --metrics-addr")
        }
        None => format!("{error}; choose another with --metrics-addr"),
    })
}

/// Fails at startup, because reaping without these would fail only at the first zombie, perhaps in a
/// month.
pub(super) fn refuse_reaping_without_means(reap: ReapSettings) -> Result<(), Failure> {
    if !reap.mode.aborts() {
        return Ok(());
    }
    match sock_destroy::is_supported() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::prerequisite(format!(
            "cannot reap connections: {}",
            DestroyError::Unsupported
        ))),
        Err(error) => Err(Failure::prerequisite(format!(
            "cannot reap connections: {error}"
        ))),
    }
}

/// `origin` is the flag, variable or key with which the user chose the cgroup, if any.
pub(in crate::cli) fn refused_cgroup(origin: Option<&str>, error: &CgroupError) -> Failure {
    let remedy = error.remedy();
    match origin {
        Some(origin) => Failure::usage(format!("{origin}: {error}; {remedy}")),
        None => Failure::prerequisite(format!("{error}; {remedy}")),
    }
}

pub(in crate::cli) fn refuse_missing(survey: &[Prerequisite]) -> Result<(), Failure> {
    let missing: Vec<String> = survey
        .iter()
        .filter(|prerequisite| prerequisite.is_fatal())
        .filter_map(|prerequisite| {
            let missing = prerequisite.outcome.as_ref().err()?;
            Some(missing_line(&prerequisite.name, missing))
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::prerequisite(missing.join("\n       ")))
    }
}

pub(super) fn missing_line(name: &str, missing: &Missing) -> String {
    format!("{name}: {}; {}", missing.what, missing.remedy)
}
