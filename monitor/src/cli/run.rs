//! `wsmon run`: the daemon.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    exit::{Failure, Outcome},
    watch::WatchArgs,
};
use crate::{
    daemon::{Daemon, DaemonSettings},
    kernel::{
        cgroup,
        load::{LoadSettings, Loaded},
        prerequisites::{self, Prerequisite},
    },
    listeners::{Listener, PortRange},
    sink::{
        SinkSettings, Sinks,
        alert_log::Target,
        control::{self, ControlSocket},
        endpoint::Endpoint,
        http::Server,
    },
};

/// Watch WebSocket connections and say which are dead.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  wsmon run --port 8080 --lb-timeout 60s
      our server on port 8080, behind a load balancer that forgets after 60 s
  wsmon run --port 8080 --port 9000-9010 --alert-log /var/log/wsmon.jsonl
      several groups of ports, alerts to a file
  wsmon run --remote-port 443 --lb-timeout 350s
      connections that this host opens to others

Exit status: 0 after SIGTERM or SIGINT, 1 on a failure, 2 if what was asked for makes no sense,
3 if the kernel or the privileges are not enough (see `wsmon check`).")]
pub struct RunArgs {
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9435")]
    pub metrics_addr: SocketAddr,

    /// Where alerts go, one JSON object a line: a file to append to, or - for stderr
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub alert_log: String,

    /// An Alertmanager to post alerts to; may be given several times, for the members of a cluster
    #[arg(long = "alertmanager", value_name = "URL")]
    pub alertmanagers: Vec<Endpoint>,

    /// Where each line of the alert log is posted as well; may be given several times
    #[arg(long = "webhook", value_name = "URL")]
    pub webhooks: Vec<Endpoint>,

    /// The unix socket for `wsmon list`, `inspect` and `frames`, or none; owner and group may connect
    #[arg(long, value_name = "PATH", default_value = super::client::DEFAULT_CONTROL)]
    pub control: PathBuf,

    /// The cgroup v2 directory to watch, with all below it; by default everything on this host
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Connections that can be tracked at a time
    #[arg(long, value_name = "N", default_value_t = LoadSettings::default().max_connections,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: u32,

    /// Log debug events of the kernel programs; show them with RUST_LOG=wsmon_bpf=debug
    #[arg(long)]
    pub debug_kernel: bool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> Outcome {
    let listeners = listeners(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(args, listeners))
}

async fn serve(args: &RunArgs, listeners: Vec<Listener>) -> Outcome {
    // Everything that can be refused is refused before anything is attached.
    let cgroup =
        cgroup::usable_cgroup2(args.cgroup.as_deref()).map_err(|error| match args.cgroup {
            Some(_) => Failure::usage(format!("--cgroup: {error}")),
            None => Failure::prerequisite(error.to_string()),
        })?;
    let server = Server::bind(args.metrics_addr).await.map_err(|error| {
        Failure::usage(format!(
            "cannot serve metrics on {}: {error}; choose another with --metrics-addr",
            args.metrics_addr
        ))
    })?;
    let metrics_addr = server.local_addr().unwrap_or(args.metrics_addr);
    // Before any thread: whoever rotates the log must not end the daemon.
    let rotated = signal(SignalKind::user_defined1()).map_err(cannot_handle_signals)?;
    let sinks = Sinks::open(&sink_settings(args, metrics_addr))
        .map_err(|error| Failure::usage(error.to_string()))?;
    refuse_missing(&prerequisites::survey(args.cgroup.as_deref()))?;
    let control = control_socket(&args.control)?;
    let mut stop = StopSignals::new()?;

    let settings = LoadSettings {
        max_connections: args.max_connections,
        debug_log: args.debug_kernel,
        ..LoadSettings::default()
    };
    let mut loaded = Loaded::new(&listeners, &settings)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    if args.debug_kernel {
        forward_kernel_log(&mut loaded)?;
    }
    loaded
        .attach(&cgroup)
        .map_err(|error| Failure::prerequisite(error.to_string()))?;
    let daemon_settings = DaemonSettings {
        publish_interval: settings.publish_interval,
        ..DaemonSettings::default()
    };
    let mut daemon = Daemon::new(loaded, listeners.clone(), daemon_settings, sinks)
        .map_err(|error| Failure::failed(error.to_string()))?;
    // In a part of the hierarchy, sock_diag cannot tell which older sockets belong to it: there
    // they are met at their next packet.
    let whole_host = cgroup::find_cgroup2().is_ok_and(|root| same_directory(&root, &cgroup));
    let seeded = match whole_host {
        true => Some(daemon.seed().map_err(|error| {
            Failure::failed(format!("cannot look at the sockets of this host: {error}"))
        })?),
        false => None,
    };
    let (questions, asked) = mpsc::channel(16);
    let served = tokio::spawn(server.serve(questions));
    let (control_questions, control_asked) = mpsc::channel(16);
    // The guard removes the socket's file at the end, however that comes.
    let _guard = control.map(|socket| {
        let (listener, guard) = socket.into_parts();
        tokio::spawn(control::serve(listener, control_questions));
        guard
    });
    banner(args, &listeners, seeded.as_ref(), metrics_addr);

    let ended = daemon.run(asked, control_asked, rotated, stop.wait()).await;
    served.abort();
    ended.map_err(|error| Failure::failed(error.to_string()))?;
    eprintln!("wsmon: stopped, nothing is attached any more");
    Ok(ExitCode::SUCCESS)
}

/// Who is told of alerts.
fn sink_settings(args: &RunArgs, metrics_addr: SocketAddr) -> SinkSettings {
    SinkSettings {
        alert_log: Target::parse(&args.alert_log),
        alertmanagers: args.alertmanagers.clone(),
        webhooks: args.webhooks.clone(),
        metrics_addr,
    }
}

/// The bound control socket, unless it is switched off.
fn control_socket(path: &Path) -> Result<Option<ControlSocket>, Failure> {
    if path == Path::new("none") {
        return Ok(None);
    }
    ControlSocket::bind(path)
        .map(Some)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Also for a path through a link, a bind mount, or with dots in it.
fn same_directory(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

/// The listeners that the flags describe, at least one.
fn listeners(args: &RunArgs) -> Result<Vec<Listener>, Failure> {
    let listeners = args.watch.listeners()?;
    if listeners.is_empty() {
        return Err(Failure::usage(
            "nothing to watch; name the port of your WebSocket server, for example --port 8080",
        ));
    }
    Ok(listeners)
}

fn refuse_missing(survey: &[Prerequisite]) -> Result<(), Failure> {
    let missing: Vec<String> = survey
        .iter()
        .filter(|prerequisite| prerequisite.is_fatal())
        .filter_map(|prerequisite| {
            let missing = prerequisite.outcome.as_ref().err()?;
            Some(format!(
                "{}: {}; {}",
                prerequisite.name, missing.what, missing.remedy
            ))
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::prerequisite(missing.join("\n       ")))
    }
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

/// What is watched, with which limits, and where to look.
fn banner(
    args: &RunArgs,
    listeners: &[Listener],
    seeded: Option<&crate::reconcile::Seeded>,
    metrics_addr: SocketAddr,
) {
    eprintln!("wsmon {} watches", env!("CARGO_PKG_VERSION"));
    for Listener {
        rules,
        ports,
        remote,
    } in listeners
    {
        let range = PortRange(ports.clone());
        let whose = if *remote { "remote" } else { "local" };
        let tightest = rules.path.tightest();
        let limit = match tightest.and_then(|hop| Some((hop, hop.idle_timeout?))) {
            Some((hop, limit)) => format!(
                "idle limit {} ({}, says nothing when it forgets)",
                humantime::format_duration(limit),
                hop.name
            ),
            None => "no idle limit (give --lb-timeout to find expired connections)".to_owned(),
        };
        eprintln!(
            "  {whose} port {range}: {limit}, ping timeout {}",
            humantime::format_duration(rules.ping_timeout)
        );
    }
    match seeded {
        Some(seeded) => {
            eprintln!(
                "  {} connections older than this start, in {} network namespaces",
                seeded.connections, seeded.namespaces
            );
            if seeded.refused + seeded.hidden > 0 {
                eprintln!(
                    "  not looked at: {} namespaces, and those of {} processes (see wsmon check)",
                    seeded.refused, seeded.hidden
                );
            }
            if seeded.untracked > 0 {
                eprintln!(
                    "  {} older connections are not watched: there is room for {}, raise \
                     --max-connections",
                    seeded.untracked, args.max_connections
                );
            }
        }
        None => eprintln!("  connections older than this start are met at their next packet"),
    }
    let alerts = if args.alert_log == "-" {
        "stderr"
    } else {
        &args.alert_log
    };
    let others = args.alertmanagers.iter().chain(&args.webhooks);
    let others: String = others.map(|endpoint| format!(", {endpoint}")).collect();
    eprintln!("  alerts to {alerts}{others}, metrics at http://{metrics_addr}/metrics");
    match args.control.to_str() {
        Some("none") => eprintln!("  no control socket"),
        _ => eprintln!("  control socket {}", args.control.display()),
    }
}

fn cannot_handle_signals(error: io::Error) -> Failure {
    Failure::failed(format!("cannot handle signals: {error}"))
}

/// SIGTERM and SIGINT, from before the first attach on.
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(cannot_handle_signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
