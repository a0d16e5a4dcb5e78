//! Loading, sizing and attaching the kernel programs.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapData, MapError},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, ProgramInfo,
    },
};
use aya_log::EbpfLogger;
use monitor_common::listener::{ListenerLimits, MAX_LISTENERS, PortWatch};

use tokio::io::{Interest, unix::AsyncFd};

use super::{
    offsets::{BtfError, SockOffsets},
    prerequisites::{Missing, Prerequisite},
};
use crate::listeners::Listener;

/// The compiled kernel programs; `cargo xtask build-ebpf` makes them from `monitor-ebpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/wsmon.bpf.o");

/// The programs on TCP's tracepoints, named after their hook.
pub const TRACEPOINTS: [&str; 4] = [
    "inet_sock_set_state",
    "tcp_retransmit_skb",
    "tcp_receive_reset",
    "tcp_send_reset",
];

/// The programs on packets, and where they attach.
pub const PACKET_HOOKS: [(&str, CgroupSkbAttachType); 2] = [
    ("ingress", CgroupSkbAttachType::Ingress),
    ("egress", CgroupSkbAttachType::Egress),
];

/// What is decided before the load and frozen by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSettings {
    /// A busy flow is published at most once in this time.
    pub publish_interval: Duration,
    /// Entries of `SNAPSHOTS`.
    pub max_connections: u32,
    /// Debug events of the kernel programs, through aya-log.
    pub debug_log: bool,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            publish_interval: Duration::from_millis(250),
            max_connections: 262_144,
            debug_log: false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error("cannot load the kernel's BTF: {0}")]
    KernelBtf(#[from] aya::BtfError),
    #[error("cannot create the maps: {0}")]
    Maps(#[from] aya::EbpfError),
    #[error("the kernel refuses program {name}: {}", in_short(source))]
    Refused {
        name: &'static str,
        source: ProgramError,
    },
    #[error("cannot attach program {name}: {source}")]
    Attach {
        name: &'static str,
        source: ProgramError,
    },
    #[error("cannot open cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("cannot write map {name}: {source}")]
    MapWrite {
        name: &'static str,
        source: MapError,
    },
    #[error("{0} listeners; {MAX_LISTENERS} is the most one daemon can watch")]
    TooManyListeners(usize),
    #[error("the committed object has no {what} {name}: rebuild it with `cargo xtask build-ebpf`")]
    StaleObject {
        what: &'static str,
        name: &'static str,
    },
}

/// Reads what the programs log through aya-log and hands it to [`log`].
pub type KernelLog = EbpfLogger<&'static dyn log::Log>;

#[derive(Debug, thiserror::Error)]
pub enum KernelLogError {
    #[error("the programs have no log: {0}")]
    NoLog(#[from] aya_log::Error),
    #[error("cannot wait for the programs' log: {0}")]
    Runtime(#[from] io::Error),
}

/// The loaded programs. Dropping it detaches and unloads everything.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads and verifies every program and tells them what to watch. Nothing is attached yet.
    pub fn new(listeners: &[Listener], settings: &LoadSettings) -> Result<Self, LoadError> {
        if listeners.len() > MAX_LISTENERS {
            return Err(LoadError::TooManyListeners(listeners.len()));
        }
        let offsets = SockOffsets::of_running_kernel()?;
        let btf = Btf::from_sys_fs()?;
        let watch_remote = u8::from(listeners.iter().any(|listener| listener.remote));
        let entries = listeners.len().max(1) as u32;
        let publish_interval =
            u64::try_from(settings.publish_interval.as_nanos()).unwrap_or(u64::MAX);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("SKC_NUM_OFFSET", &offsets.skc_num, true)
            .override_global("SKC_DPORT_OFFSET", &offsets.skc_dport, true)
            .override_global("SK_PROTOCOL_OFFSET", &offsets.sk_protocol, true)
            .override_global("SKC_NET_OFFSET", &offsets.skc_net, true)
            .override_global("NET_INUM_OFFSET", &offsets.net_inum, true)
            .override_global("WATCH_REMOTE", &watch_remote, true)
            .override_global("DEBUG_LOG", &u8::from(settings.debug_log), true)
            .override_global("PUBLISH_INTERVAL_NS", &publish_interval, true)
            .map_max_entries("SNAPSHOTS", settings.max_connections)
            .map_max_entries("LISTENERS", entries)
            .map_max_entries("STATS", entries)
            .load(OBJECT)?;
        for name in TRACEPOINTS {
            let program: &mut BtfTracePoint = program(&mut ebpf, name)?;
            program
                .load(name, &btf)
                .map_err(|source| LoadError::Refused { name, source })?;
        }
        for (name, _) in PACKET_HOOKS {
            let program: &mut CgroupSkb = program(&mut ebpf, name)?;
            program
                .load()
                .map_err(|source| LoadError::Refused { name, source })?;
        }
        let mut loaded = Self { ebpf };
        loaded.watch(listeners)?;
        Ok(loaded)
    }

    /// Attaches everything: tracepoints first, so that a socket born in between is known before
    /// its first packet is seen.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), LoadError> {
        for name in TRACEPOINTS {
            let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            program
                .attach()
                .map_err(|source| LoadError::Attach { name, source })?;
        }
        let dir = File::open(cgroup).map_err(|source| LoadError::Cgroup {
            path: cgroup.to_owned(),
            source,
        })?;
        for (name, hook) in PACKET_HOOKS {
            let program: &mut CgroupSkb = program(&mut self.ebpf, name)?;
            // By bpf_link: other programs on this cgroup stay, and ours goes if this process dies.
            program
                .attach(&dir, hook, CgroupAttachMode::Single)
                .map_err(|source| LoadError::Attach { name, source })?;
        }
        Ok(())
    }

    /// The verifier's and the kernel's account of each program.
    pub fn programs(&self) -> impl Iterator<Item = (&str, ProgramInfo)> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| Some((name, program.info().ok()?)))
    }

    /// A loaded packet program, for test runs.
    pub fn packet_program(&mut self, name: &'static str) -> Result<&mut CgroupSkb, LoadError> {
        program(&mut self.ebpf, name)
    }

    pub(super) fn take_map(&mut self, name: &'static str) -> Result<aya::maps::Map, LoadError> {
        self.ebpf
            .take_map(name)
            .ok_or(LoadError::StaleObject { what: "map", name })
    }

    /// The programs' own log, registered with the current runtime; there is none unless they were
    /// loaded with `debug_log`.
    pub fn kernel_log(&mut self) -> Result<AsyncFd<KernelLog>, KernelLogError> {
        let log = EbpfLogger::init(&mut self.ebpf)?;
        // SAFETY: the map's descriptor is owned by the logger, never changes, and closes with it.
        Ok(
            unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }
                .map_err(io::Error::from)?,
        )
    }

    fn watch(&mut self, listeners: &[Listener]) -> Result<(), LoadError> {
        self.set_limits(listeners)?;
        let mut ports = self.array::<PortWatch>("PORTS")?;
        for (port, watch) in port_table(listeners) {
            ports
                .set(u32::from(port), watch, 0)
                .map_err(|source| LoadError::MapWrite {
                    name: "PORTS",
                    source,
                })?;
        }
        Ok(())
    }

    /// Tells the programs the limits of the listeners they were loaded with, from now on.
    pub fn set_limits(&mut self, listeners: &[Listener]) -> Result<(), LoadError> {
        let mut limits = self.array::<ListenerLimits>("LISTENERS")?;
        for (i, listener) in listeners.iter().enumerate() {
            limits
                .set(i as u32, listener.limits(), 0)
                .map_err(|source| LoadError::MapWrite {
                    name: "LISTENERS",
                    source,
                })?;
        }
        Ok(())
    }

    fn array<V: aya::Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<Array<&mut MapData, V>, LoadError> {
        let map = self
            .ebpf
            .map_mut(name)
            .ok_or(LoadError::StaleObject { what: "map", name })?;
        Array::try_from(map).map_err(|source| LoadError::MapWrite { name, source })
    }
}

/// Loads every program once, to see what the verifier says, and unloads it again.
pub fn survey() -> Vec<Prerequisite> {
    const REMEDY: &str = "run a kernel that docs/kernels.md lists, or report this line";
    let settings = LoadSettings {
        max_connections: 1,
        ..LoadSettings::default()
    };
    let loads = |name: &str| format!("program {name}");
    match Loaded::new(&[], &settings) {
        Ok(loaded) => {
            let mut rows: Vec<_> = loaded
                .programs()
                .map(|(name, info)| {
                    let detail = match info.verified_instruction_count() {
                        Some(count) => format!("{count} instructions verified"),
                        None => "loads".to_owned(),
                    };
                    Prerequisite::required(loads(name), Ok(detail))
                })
                .collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            rows
        }
        Err(LoadError::Refused { name, source }) => {
            let missing = Missing::new(in_short(&source), REMEDY);
            vec![Prerequisite::required(loads(name), Err(missing))]
        }
        Err(other) => vec![Prerequisite::required(
            "programs",
            Err(Missing::new(other.to_string(), REMEDY)),
        )],
    }
}

/// One line of what may be thousands: the verifier says last what it minds.
fn in_short(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    log::debug!("{log}");
    let is_statistic = |line: &&str| {
        ["processed ", "verification time", "stack depth"]
            .iter()
            .any(|prefix| line.starts_with(prefix))
    };
    let last_word = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !is_statistic(line));
    match last_word {
        Some(line) => format!("{io_error}; the verifier says: {line}"),
        None => io_error.to_string(),
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::StaleObject {
            what: "program",
            name,
        })?
        .try_into()
        .map_err(|source| LoadError::Refused { name, source })
}

/// The entries of the `PORTS` map: each watched port with its listener's index plus one.
fn port_table(listeners: &[Listener]) -> std::collections::BTreeMap<u16, PortWatch> {
    let mut table = std::collections::BTreeMap::<u16, PortWatch>::new();
    for (listener, tag) in listeners.iter().zip(1_u16..) {
        for port in listener.ports.iter().flat_map(|range| range.0.clone()) {
            let entry = table.entry(port).or_default();
            let slot = if listener.remote {
                &mut entry.remote
            } else {
                &mut entry.local
            };
            *slot = tag;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::ListenerRules, listeners::PortRange};

    #[test]
    fn a_port_can_be_watched_as_local_and_as_remote() {
        let listener = |ports, remote| Listener {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(ports)],
            remote,
        };
        let table = port_table(&[listener(8080..=8081, false), listener(8081..=8081, true)]);
        assert_eq!(
            table.into_iter().collect::<Vec<_>>(),
            [
                (
                    8080,
                    PortWatch {
                        local: 1,
                        remote: 0
                    }
                ),
                (
                    8081,
                    PortWatch {
                        local: 1,
                        remote: 2
                    }
                ),
            ]
        );
    }
}
