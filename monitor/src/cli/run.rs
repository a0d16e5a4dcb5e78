//! `wsmon run`: the daemon.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use tokio::{signal::unix::SignalKind, sync::mpsc};

mod banner;
mod files;
mod origin;
mod refusals;
mod reload;
mod settings;
mod unserved_ports;
mod verbosity;

use banner::Banner;
use origin::origin;
use reload::Reloader;
use settings::Settings;
use verbosity::Verbosity;

pub(super) use refusals::{refuse_missing, refused_cgroup};

use super::{
    exit::{CommandResult, Failure},
    number,
    stop_signals::{StopSignals, listen},
    watch::WatchArgs,
};
use crate::{
    alerting::Sinks,
    api::{
        access::Access,
        control::{self, ControlSocket},
        http::MetricsServer,
    },
    config::{
        self,
        alert_format::AlertFormat,
        endpoint::Endpoint,
        metrics_address::{MetricsAddress, MetricsUrl},
        profiles,
    },
    daemon::{
        Daemon, DaemonSettings, Requests, access_log::AccessLog, service_manager::ServiceManager,
        state::StateFile,
    },
    diagnostics::notice_line,
    kernel::{
        bpf::loader::{LoadSettings, Loaded},
        host::{cgroup, open_files},
        prerequisites,
    },
};
use monitor_core::reap::ReapMode;

/// Watch WebSocket connections and report dead ones.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon run --port 8080 --lb-timeout 60s
      a server on port 8080, behind a load balancer that forgets after 60 s
  wsmon run --port 8080,9000-9010 --alert-log /var/log/wsmon.jsonl
      several groups of ports, alerts to a file
  wsmon run --port 8080 --access-log /var/log/wsmon-access.jsonl
      and a line for each connection at its end
  wsmon run --port 8080 --lb nginx,aws-alb
      behind nginx on this host and an ALB before it (see `wsmon profiles`)
  wsmon run --remote-port 443 --lb-timeout 350s
      connections that this host opens to others
  wsmon run --port 8080 --lb-timeout 60s --reap confirmed
      and abort confirmed dead connections: the application gets an error
  wsmon run --port 8080 --workload-labels
      with the number of connections of each Kubernetes workload in the metrics
  wsmon run --config /etc/wsmon.toml
      listeners and settings from a file (`wsmon config example`); SIGHUP reloads it

Each flag can be set by an environment variable: WSMON_PORT is --port,
WSMON_LB_TIMEOUT is --lb-timeout. A flag overrides its variable, a variable
the file. Lists are separated by commas.

Exit status: 0 after SIGTERM or SIGINT, 1 on a failure, 2 for invalid input,
3 if the kernel or the privileges are not enough (see `wsmon check`).")]
pub struct RunArgs {
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Address that serves /metrics, /healthz and /readyz; or NAME:PORT, PORT on loopback, :PORT on every
    /// address, or none [default: 127.0.0.1:6455]
    #[arg(
        long = "metrics-addr",
        alias = "web.listen-address",
        value_name = "[ADDR:]PORT,…",
        value_delimiter = ','
    )]
    pub metrics_addrs: Vec<MetricsAddress>,

    /// Show listeners, zombies, storms and alerts of the last hour on the page at / of that address
    #[arg(long)]
    pub status_page: bool,

    /// TLS and passwords for that address: a web configuration file as Prometheus' exporters have it
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Alert log: a file to append to, or - for stderr [default: -]
    #[arg(long, value_name = "FILE")]
    pub alert_log: Option<String>,

    /// Format of the alert log; auto is text on a terminal and JSON otherwise [default: auto]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub alert_format: Option<AlertFormat>,

    /// Access log, one JSON object per connection at its end: a file to append to, or - for stderr
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,

    /// Put path, host, origin and subprotocol of the handshake into the access log; they may be personal
    /// data
    #[arg(long)]
    pub access_log_handshake: bool,

    /// Alertmanager to post alerts to; repeat it for each member of a cluster
    #[arg(long = "alertmanager", value_name = "URL,…", value_delimiter = ',')]
    pub alertmanagers: Vec<Endpoint>,

    /// Label `instance` of these alerts: the one that Prometheus gives this host; by default the host's
    /// name
    #[arg(long, value_name = "NAME", value_parser = config::instance)]
    pub instance: Option<String>,

    /// URL to post each line of the alert log to; may be repeated
    #[arg(long = "webhook", value_name = "URL,…", value_delimiter = ',')]
    pub webhooks: Vec<Endpoint>,

    /// Unix socket for `wsmon top`, `list` and the other commands that show the daemon's state, or none;
    /// owner and group may connect [default: /run/wsmon.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// File that keeps the learned connect and disconnect rates of each listener across restarts
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Cgroup v2 directory to watch, with everything below it; by default everything on this host
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Directory of the logs of Kubernetes pods, with the names of the pods [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pub pod_logs: Option<PathBuf>,

    /// Add the labels namespace and workload to the metrics of connections: the Kubernetes workload, the
    /// container or the systemd unit
    #[arg(long)]
    pub workload_labels: bool,

    /// Maximum number of workloads per listener in these labels; the rest is "other" [default: 200]
    #[arg(long, value_name = "N", value_parser = config::max_workloads)]
    pub max_workloads: Option<u16>,

    /// Abort dead connections, so that the application gets an error at once: off, dry-run, confirmed, or
    /// inferred, which also aborts what TLS records show as dead [default: off]
    #[arg(long, value_name = "MODE")]
    pub reap: Option<ReapMode>,

    /// Same as --reap dry-run: log what would be aborted, and abort nothing
    #[arg(long)]
    pub reap_dry_run: bool,

    /// Maximum number of connections to abort per minute [default: 60]
    #[arg(long, value_name = "N", value_parser = number::per_minute)]
    pub reap_max_per_minute: Option<u32>,

    /// Identify clients by the address that a proxy forwards, and put it into alerts and the access log;
    /// it is personal data
    #[arg(long)]
    pub client_address: bool,

    /// Maximum number of tracked connections [default: 262144]
    #[arg(long, value_name = "N", value_parser = config::max_connections)]
    pub max_connections: Option<u32>,

    #[command(flatten)]
    pub verbosity: Verbosity,

    /// Log debug events of the kernel programs; show them with -vv
    #[arg(long)]
    pub debug_kernel: bool,

    /// Load programs that every kernel refuses
    #[arg(long, hide = true)]
    pub refused_shape: bool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> CommandResult {
    prerequisites::capabilities::make_effective();
    let service_manager = ServiceManager::from_env();
    let outcome = start(args, &service_manager);
    if let Err(failure) = &outcome {
        service_manager.report(&failure.to_string());
    }
    outcome
}

fn start(args: &RunArgs, service_manager: &ServiceManager) -> CommandResult {
    service_manager.report("checking the configuration and the kernel");
    let settings = Settings::of(args, args.watch.file()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(args, settings, service_manager))
}

async fn serve(
    args: &RunArgs,
    settings: Settings,
    service_manager: &ServiceManager,
) -> CommandResult {
    // Everything that can be refused is refused before the first attach.
    refusals::refuse_second(settings.control()).await?;
    files::refuse_misplaced(args, &settings)?;
    let cgroup = settings.cgroup.as_deref();
    let cgroup = cgroup::usable_cgroup2(cgroup).map_err(|error| {
        let given = args.cgroup.as_deref().map(Path::as_os_str);
        let origin = cgroup.map(|_| origin("cgroup", "daemon.cgroup", given));
        refused_cgroup(origin.as_deref(), &error)
    })?;
    let access = Access::open(settings.web_config.as_deref())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let server = match MetricsServer::bind(&settings.metrics_addrs) {
        Ok(server) => server,
        Err(error) => return Err(refusals::refused_metrics(error).await),
    };
    let metrics_addrs = server
        .local_addrs()
        .map_err(|error| Failure::failed(format!("cannot serve metrics: {error}")))?;
    let has_tls = access.has_tls();
    let metrics_urls = metrics_addrs.into_iter();
    let metrics_urls: Vec<_> = metrics_urls
        .map(|addr| MetricsUrl { addr, has_tls })
        .collect();
    // Before the first thread: until then, the SIGUSR1 of a log rotation would end the daemon.
    let rotated = listen(SignalKind::user_defined1())?;
    let sinks = Sinks::open(&settings.sinks(metrics_urls.first().copied()))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let access_log = settings.access_log().map(AccessLog::open).transpose();
    let access_log = access_log.map_err(|error| {
        let path = settings.access_log.as_deref().unwrap_or_default();
        Failure::usage(format!("cannot write the access log {path}: {error}"))
    })?;
    if let Err(error) = open_files::raise_limit() {
        log::warn!("cannot raise the limit of open files: {error}");
    }
    let survey = prerequisites::survey(settings.cgroup.as_deref());
    refuse_missing(&survey)?;
    refusals::refuse_reaping_without_means(settings.reap)?;
    let control = match settings.control() {
        Some(path) => Some(ControlSocket::bind(path).await),
        None => None,
    };
    let control = control
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut stop = StopSignals::new(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let hangups = listen(SignalKind::hangup())?;

    let serving = server
        .start(settings.status_page, access)
        .map_err(|error| Failure::failed(format!("cannot serve metrics: {error}")))?;
    let load_settings = LoadSettings {
        max_connections: settings.max_connections,
        keep_totals: access_log.is_some(),
        debug_log: args.debug_kernel,
        refused_shape: args.refused_shape,
        ..LoadSettings::default()
    };
    service_manager.report("loading the kernel programs");
    let mut loaded = Loaded::new(&settings.listeners, &load_settings)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    if args.debug_kernel {
        forward_kernel_log(&mut loaded)?;
    }
    service_manager.report("attaching the kernel programs");
    loaded
        .attach(&cgroup.path)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    log::info!("attached the programs to {}", cgroup.path.display());
    let daemon_settings = DaemonSettings {
        publish_interval: load_settings.publish_interval,
        reap: settings.reap,
        client_address: settings.client_address,
        pod_logs: settings.pod_logs().to_owned(),
        max_workloads: settings.max_workloads,
        status_page: settings.status_page,
    };
    let state = settings.state.as_deref().and_then(state_file);
    let listeners = settings.listeners.clone();
    let daemon = Daemon::new(
        loaded,
        listeners,
        daemon_settings,
        sinks,
        access_log,
        state,
        service_manager.clone(),
    );
    let mut daemon = daemon.map_err(|error| Failure::failed(error.to_string()))?;
    daemon.set_known_hops(profiles::known_hops());
    service_manager.report("finding older connections");
    // Below the root of the hierarchy, sock_diag cannot distinguish which older sockets belong to the
    // cgroup. They are found at their next packet.
    let seeded = match cgroup.is_root {
        true => Some(daemon.seed().await.map_err(|error| {
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
    let banner = Banner {
        settings: &settings,
        cgroup: &cgroup,
        seeded: seeded.as_ref(),
        metrics_urls: &metrics_urls,
        missing: &survey,
    };
    for line in banner.lines() {
        notice_line!("{line}");
    }
    if let Some(seeded) = seeded {
        let pod_logs = settings.pod_logs().to_owned();
        // In the background, because the rings are not read during the survey.
        tokio::task::spawn_blocking(move || unserved_ports::report(&seeded.unserved, &pod_logs));
    }
    let (reloads, reloaded) = mpsc::channel(1);
    let reloader = Reloader::new(args.clone(), settings, service_manager.clone());
    tokio::spawn(reloader.run(hangups, reloads));

    let requests = Requests {
        metrics: serving.begin(),
        control: control_requests_received,
        reloads: reloaded,
        rotated,
    };
    let ended = daemon.run(requests, stop.wait()).await;
    ended.map_err(|error| Failure::failed(error.to_string()))?;
    notice_line!("wsmon: stopped, nothing is attached any more");
    Ok(ExitCode::SUCCESS)
}

/// The state file; `None` if there is none, or if the file must not be used.
fn state_file(path: &Path) -> Option<StateFile> {
    let file = StateFile::open(path)
        .inspect_err(|error| {
            log::warn!("{error}. wsmon learns anew, and will not save what it learns");
        })
        .ok()?;
    let listeners = file.baselines().len();
    log::info!(
        "read the usual rates of {listeners} listeners from {}",
        path.display()
    );
    Some(file)
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
