//! `wsmon run`: the daemon.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tokio::{signal::unix::SignalKind, sync::mpsc};

mod reload;
mod settings;

use reload::Reloader;
use settings::Settings;

use super::{
    describe::Banner,
    exit::{CommandResult, Failure},
    ports::PortSurvey,
    stop_signals::{StopSignals, listen},
    watch::WatchArgs,
};
use crate::{
    alerting::Sinks,
    api::{
        control::{self, ControlSocket},
        http::MetricsServer,
    },
    config::{self, endpoint::Endpoint, listeners::PortRange, profiles},
    daemon::{Daemon, DaemonSettings, Requests, access_log::AccessLog, state::StateFile},
    diagnostics::stderr_line,
    kernel::{
        bpf::loader::{LoadSettings, Loaded},
        host::{
            cgroup::{self, CgroupError, WatchedCgroup},
            owner::Owners,
        },
        prerequisites::{self, Missing, Prerequisite},
        sock_diag::sock_destroy::{self, DestroyError},
    },
};
use monitor_core::reap::{ReapMode, ReapSettings};

/// Watch WebSocket connections and report dead ones.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon run --port 8080 --lb-timeout 60s
      a server on port 8080, behind a load balancer that forgets after 60 s
  wsmon run --port 8080 --port 9000-9010 --alert-log /var/log/wsmon.jsonl
      several groups of ports, alerts to a file
  wsmon run --port 8080 --access-log /var/log/wsmon-access.jsonl
      and a line for each connection at its end
  wsmon run --port 8080 --lb nginx,aws-alb
      behind nginx on this host and an ALB before it, with the limits of `wsmon profiles`
  wsmon run --remote-port 443 --lb-timeout 350s
      connections that this host opens to others
  wsmon run --port 8080 --lb-timeout 60s --reap confirmed
      and abort confirmed dead connections, so that the application gets an error at once
  wsmon run --port 8080 --workload-labels
      with the number of connections of each Kubernetes workload in the metrics
  wsmon run --config /etc/wsmon.toml
      listeners and settings from a file (`wsmon config example`); SIGHUP reloads it

Exit status: 0 after SIGTERM or SIGINT, 1 on a failure, 2 for invalid arguments,
3 if the kernel or the privileges are not enough (see `wsmon check`).")]
pub struct RunArgs {
    #[command(flatten)]
    pub watch: WatchArgs,

    #[arg(
        long,
        value_name = "ADDR:PORT",
        help = format!("Address that serves /metrics, /healthz and /readyz [default: {}]", config::DEFAULT_METRICS_ADDR)
    )]
    pub metrics_addr: Option<SocketAddr>,

    /// Alert log, one JSON object per line: a file to append to, or - for stderr [default: -]
    #[arg(long, value_name = "FILE")]
    pub alert_log: Option<String>,

    /// Access log, one JSON object per connection at its end: a file to append to, or - for stderr
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,

    /// Put path, host, origin and subprotocol of the handshake into the access log; they may be personal
    /// data
    #[arg(long)]
    pub access_log_handshake: bool,

    /// Alertmanager to post alerts to; repeat it for each member of a cluster
    #[arg(long = "alertmanager", value_name = "URL")]
    pub alertmanagers: Vec<Endpoint>,

    /// URL to post each line of the alert log to; may be repeated
    #[arg(long = "webhook", value_name = "URL")]
    pub webhooks: Vec<Endpoint>,

    /// Unix socket for `wsmon list`, `inspect` and `frames`, or none; owner and group may connect
    /// [default: /run/wsmon.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// File that keeps the learned connect and disconnect rates of each listener across restarts
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Cgroup v2 directory to watch, with everything below it; by default everything on this host
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Directory of the logs of Kubernetes pods, whose names wsmon reads there [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pub pod_logs: Option<PathBuf>,

    /// Add the labels namespace and workload to the metrics of connections: the Kubernetes workload, the
    /// container or the systemd unit
    #[arg(long)]
    pub workload_labels: bool,

    /// Maximum number of workloads per listener in these labels; the rest is "other" [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub max_workloads: Option<u16>,

    /// Abort confirmed dead connections, so that the application gets an error at once: off, dry-run or
    /// confirmed [default: off]
    #[arg(long, value_name = "MODE")]
    pub reap: Option<ReapMode>,

    /// Same as --reap dry-run: log what would be aborted, and abort nothing
    #[arg(long)]
    pub reap_dry_run: bool,

    /// Maximum number of connections to abort per minute [default: 60]
    #[arg(long, value_name = "N")]
    pub reap_max_per_minute: Option<u32>,

    /// Identify clients by the address that a proxy forwards, and put it into alerts and the access log;
    /// it is personal data
    #[arg(long)]
    pub client_address: bool,

    /// Maximum number of tracked connections [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    /// Log debug events of the kernel programs; show them with RUST_LOG=wsmon_bpf=debug
    #[arg(long)]
    pub debug_kernel: bool,

    /// Load programs that every kernel refuses
    #[arg(long, hide = true)]
    pub refused_shape: bool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> CommandResult {
    let settings = Settings::of(args, args.watch.file()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(args, settings))
}

async fn serve(args: &RunArgs, settings: Settings) -> CommandResult {
    // Everything that can be refused is refused before the first attach.
    let cgroup = settings.cgroup.as_deref();
    let cgroup = cgroup::usable_cgroup2(cgroup).map_err(|error| refused_cgroup(cgroup, &error))?;
    let server = MetricsServer::bind(settings.metrics_addr).map_err(|error| {
        Failure::usage(format!(
            "cannot serve metrics on {}: {error}; choose another with --metrics-addr",
            settings.metrics_addr
        ))
    })?;
    let metrics_addr = server.local_addr().unwrap_or(settings.metrics_addr);
    // Before the first thread: until then, the SIGUSR1 of a log rotation would end the daemon.
    let rotated = listen(SignalKind::user_defined1())?;
    let sinks = Sinks::open(&settings.sinks(metrics_addr))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let access_log = settings.access_log().map(AccessLog::open).transpose();
    let access_log = access_log.map_err(|error| {
        let path = settings.access_log.as_deref().unwrap_or_default();
        Failure::usage(format!("cannot write --access-log {path}: {error}"))
    })?;
    let survey = prerequisites::survey(settings.cgroup.as_deref());
    refuse_missing(&survey)?;
    refuse_reaping_without_means(settings.reap)?;
    let control = control_socket(&settings.control)?;
    let mut stop = StopSignals::new(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let hangups = listen(SignalKind::hangup())?;

    let serving = server
        .start()
        .map_err(|error| Failure::failed(format!("cannot serve metrics: {error}")))?;
    let load_settings = LoadSettings {
        max_connections: settings.max_connections,
        keep_totals: access_log.is_some(),
        debug_log: args.debug_kernel,
        refused_shape: args.refused_shape,
        ..LoadSettings::default()
    };
    let mut loaded = Loaded::new(&settings.listeners, &load_settings)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    if args.debug_kernel {
        forward_kernel_log(&mut loaded)?;
    }
    loaded
        .attach(&cgroup.path)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    let daemon_settings = DaemonSettings {
        publish_interval: load_settings.publish_interval,
        reap: settings.reap,
        client_address: settings.client_address,
        pod_logs: settings.pod_logs.clone(),
        max_workloads: settings.max_workloads,
    };
    let state = settings.state.as_deref().and_then(state_file);
    let listeners = settings.listeners.clone();
    let daemon = Daemon::new(loaded, listeners, daemon_settings, sinks, access_log, state);
    let mut daemon = daemon.map_err(|error| Failure::failed(error.to_string()))?;
    daemon.set_known_hops(profiles::known_hops());
    // Below the root of the hierarchy, sock_diag cannot distinguish which older sockets belong to the
    // cgroup. They are found at their next packet.
    let seeded = match cgroup.is_root {
        true => Some(daemon.seed().map_err(|error| {
            Failure::failed(format!("cannot scan the sockets of this host: {error}"))
        })?),
        false => None,
    };
    let (control_requests, control_requests_received) = mpsc::channel(16);
    // The guard removes the socket's file however the daemon ends.
    let _guard = control.map(|socket| {
        let (listener, guard) = socket.into_parts();
        tokio::spawn(control::serve(listener, control_requests, daemon.owners()));
        guard
    });
    banner(&settings, &cgroup, seeded.as_ref(), metrics_addr);
    for prerequisite in &survey {
        if let Err(missing) = &prerequisite.outcome {
            stderr_line!("  missing: {}", missing_line(&prerequisite.name, missing));
        }
    }
    if let Some(seeded) = seeded {
        let pod_logs = settings.pod_logs.clone();
        // In the background, because the rings are not read during the survey.
        tokio::task::spawn_blocking(move || report_unserved(&seeded.unserved, &pod_logs));
    }
    let (reloads, reloaded) = mpsc::channel(1);
    tokio::spawn(Reloader::new(args.clone(), settings).run(hangups, reloads));

    let requests = Requests {
        metrics: serving.begin(),
        control: control_requests_received,
        reloads: reloaded,
        rotated,
    };
    let ended = daemon.run(requests, stop.wait()).await;
    ended.map_err(|error| Failure::failed(error.to_string()))?;
    // The terminal may have gone: the daemon survives SIGHUP.
    let _ = writeln!(io::stderr(), "wsmon: stopped, nothing is attached any more");
    Ok(ExitCode::SUCCESS)
}

/// Fails at startup, because reaping without these would fail only at the first zombie, perhaps in a
/// month.
fn refuse_reaping_without_means(reap: ReapSettings) -> Result<(), Failure> {
    if reap.mode != ReapMode::Confirmed {
        return Ok(());
    }
    match sock_destroy::is_supported() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::prerequisite(format!(
            "--reap confirmed: {}",
            DestroyError::Unsupported
        ))),
        Err(error) => Err(Failure::prerequisite(format!("--reap confirmed: {error}"))),
    }
}

/// The bound control socket; `None` if it is switched off.
fn control_socket(path: &Path) -> Result<Option<ControlSocket>, Failure> {
    if path == Path::new("none") {
        return Ok(None);
    }
    ControlSocket::bind(path)
        .map(Some)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// The state file; `None` if there is none, or if the file must not be used.
fn state_file(path: &Path) -> Option<StateFile> {
    StateFile::open(path)
        .inspect_err(|error| {
            log::warn!("{error}. wsmon learns anew, and will not save what it learns");
        })
        .ok()
}

/// `cgroup` is the one that the user chose, if any.
pub(super) fn refused_cgroup(cgroup: Option<&Path>, error: &CgroupError) -> Failure {
    let remedy = error.remedy();
    match cgroup {
        Some(_) => Failure::usage(format!("--cgroup: {error}; {remedy}")),
        None => Failure::prerequisite(format!("{error}; {remedy}")),
    }
}

pub(super) fn refuse_missing(survey: &[Prerequisite]) -> Result<(), Failure> {
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

fn missing_line(name: &str, missing: &Missing) -> String {
    format!("{name}: {}; {}", missing.what, missing.remedy)
}

fn forward_kernel_log(loaded: &mut Loaded) -> Result<(), Failure> {
    let mut log = loaded
        .kernel_log()
        .map_err(|error| Failure::failed(error.to_string()))?;
    tokio::spawn(async move {
        while let Ok(mut ready) = log.readable_mut().await {
            ready.clear_ready();
            ready.get_inner_mut().flush();
        }
    });
    Ok(())
}

/// What is watched, with which limits, and where to find it.
fn banner(
    settings: &Settings,
    cgroup: &WatchedCgroup,
    seeded: Option<&crate::daemon::reconcile::Seeded>,
    metrics_addr: SocketAddr,
) {
    stderr_line!("wsmon {} watches", env!("CARGO_PKG_VERSION"));
    for listener in &settings.listeners {
        stderr_line!("{}", Banner(listener));
    }
    if !cgroup.is_root {
        stderr_line!(
            "  only sockets of cgroup {} and below",
            cgroup.path.display()
        );
    }
    match seeded {
        Some(seeded) => {
            stderr_line!(
                "  {} connections older than this start, in {} network namespaces",
                seeded.connections,
                seeded.namespaces
            );
            if seeded.refused + seeded.hidden > 0 {
                stderr_line!(
                    "  not scanned: {} namespaces, and those of {} processes (see wsmon check)",
                    seeded.refused,
                    seeded.hidden
                );
            }
            if seeded.untracked > 0 {
                stderr_line!(
                    "  {} older connections are not watched: there is room for {}, raise \
                     --max-connections",
                    seeded.untracked,
                    settings.max_connections
                );
            }
        }
        None => {
            stderr_line!("  connections older than this start are tracked from their next packet");
        }
    }
    let alerts = if settings.alert_log == "-" {
        "stderr"
    } else {
        &settings.alert_log
    };
    let others = settings.alertmanagers.iter().chain(&settings.webhooks);
    let others: String = others.map(|endpoint| format!(", {endpoint}")).collect();
    stderr_line!("  alerts to {alerts}{others}, metrics at http://{metrics_addr}/metrics");
    match settings.access_log.as_deref() {
        Some("-") => stderr_line!("  ends of connections to stderr"),
        Some(path) => stderr_line!("  ends of connections to {path}"),
        None => {}
    }
    match settings.reap.mode {
        ReapMode::Off => {}
        ReapMode::DryRun => stderr_line!("  logs which confirmed zombies it would abort"),
        ReapMode::Confirmed => stderr_line!(
            "  aborts confirmed zombies, at most {} a minute",
            settings.reap.max_per_minute
        ),
    }
    match settings.control.to_str() {
        Some("none") => stderr_line!("  no control socket"),
        _ => stderr_line!("  control socket {}", settings.control.display()),
    }
}

/// How long reading the port forwards may take.
const LONGEST_LISTING: Duration = Duration::from_secs(1);

/// Prints a line for each port on which nobody listens, with the nearest port on which a process does.
fn report_unserved(unserved: &[PortRange], pod_logs: &Path) {
    if unserved.is_empty() {
        return;
    }
    // Without the other ports, the line is still true.
    let survey = PortSurvey::take(LONGEST_LISTING, |root| Owners::new(root, pod_logs)).ok();
    for range in unserved {
        let survey = survey.as_ref();
        let forwarded = survey.and_then(|survey| survey.forwarded(range));
        let nearest = survey.and_then(|survey| survey.nearest(range));
        let instead = match (forwarded, nearest) {
            (Some(forwarded), _) => forwarded.to_string(),
            (None, Some(nearest)) => nearest.to_string(),
            (None, None) => "see wsmon ports".to_owned(),
        };
        // The terminal may have gone: the daemon survives SIGHUP.
        let _ = writeln!(io::stderr(), "  nobody listens on {range}; {instead}");
    }
}
