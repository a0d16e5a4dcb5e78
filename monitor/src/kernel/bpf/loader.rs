//! Loads, sizes and attaches the kernel programs.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Array, MapData},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, ProgramInfo,
    },
};
use aya_log::EbpfLogger;
use monitor_common::listener::{ListenerLimits, MAX_LISTENERS, PortWatch};

use tokio::io::{Interest, unix::AsyncFd};

use super::{
    attachments::{self, Conflict, ConflictKind},
    features::{Features, Lacking, LoopKind, ProbeError},
    maps::{MapAccessError, cannot},
    missed_runs,
    offsets::{self, BtfError, SockOffsets, VMLINUX_BTF},
    refusal::Refusal,
};
use crate::{config::listeners::ListenerConfig, diagnostics::error_chain::one_line};

/// The compiled kernel programs, built from `monitor-ebpf` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../../bpf/wsmon.bpf.o");

/// The programs on TCP's tracepoints, and where they attach. Programs of one tracepoint run in this order.
pub const TRACEPOINTS: [(&str, &str); 5] = [
    ("inet_sock_set_state", "inet_sock_set_state"),
    ("nested_set_state", "inet_sock_set_state"),
    ("tcp_retransmit_skb", "tcp_retransmit_skb"),
    ("tcp_receive_reset", "tcp_receive_reset"),
    ("tcp_send_reset", "tcp_send_reset"),
];

/// The programs on packets, and where they attach.
pub const PACKET_HOOKS: [(&str, CgroupSkbAttachType); 2] = [
    ("ingress", CgroupSkbAttachType::Ingress),
    ("egress", CgroupSkbAttachType::Egress),
];

/// The ring of vitals. It is twice as large if the ends of connections come with their accounts, which are
/// longer than all other records.
const VITALS_BYTES: u32 = 8 << 20;

/// Settings that are fixed at load time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSettings {
    /// Minimum time between two publications of a busy flow.
    pub publish_interval: Duration,
    /// Entries of `SNAPSHOTS`.
    pub max_connections: u32,
    /// Whether to account for each connection, for [`ClosedEvent`](monitor_common::event::ClosedEvent).
    pub keep_totals: bool,
    /// Debug events of the kernel programs, through aya-log.
    pub debug_log: bool,
    /// How the programs loop; by default chosen by the kernel's features.
    pub loop_kind: Option<LoopKind>,
    /// How much the verifier writes if it refuses a program.
    pub verifier_log: VerifierLog,
    /// Loads programs that every verifier rejects after a million instructions, for tests of a refusal.
    pub refused_shape: bool,
}

/// How much the verifier writes. aya repeats a refused load with ever larger buffers until the log
/// fits, and each try takes the verifier as long as the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierLog {
    /// Its last message and its statistics, which always fit.
    Brief,
    /// Every instruction on the way to the refusal.
    Full,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            publish_interval: Duration::from_millis(250),
            max_connections: 262_144,
            keep_totals: false,
            debug_log: false,
            loop_kind: None,
            verifier_log: VerifierLog::Brief,
            refused_shape: false,
        }
    }
}

impl VerifierLog {
    fn level(self) -> VerifierLogLevel {
        match self {
            Self::Brief => VerifierLogLevel::STATS,
            Self::Full => VerifierLogLevel::DEBUG | VerifierLogLevel::STATS,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error("cannot load the kernel's BTF: {}", one_line(.0))]
    KernelBtf(#[from] aya::BtfError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Lacking(Lacking),
    #[error("cannot create the maps: {}", one_line(.0))]
    Maps(#[from] aya::EbpfError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot attach program {name}: {}", one_line(source))]
    Attach {
        name: &'static str,
        source: ProgramError,
    },
    #[error("cannot attach to cgroup {}: {conflict}; {remedy}", cgroup.display(), remedy = conflict.remedy())]
    Conflict { cgroup: PathBuf, conflict: Conflict },
    #[error("cannot open cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Map(#[from] MapAccessError),
    #[error("{0} listeners; {MAX_LISTENERS} is the most one daemon can watch")]
    TooManyListeners(usize),
    #[error("the committed object has no {what} {name}: rebuild it with `cargo xtask build-ebpf`")]
    StaleObject {
        what: &'static str,
        name: &'static str,
    },
}

/// Reads what the programs log through aya-log and passes it to [`log`].
pub type KernelLog = EbpfLogger<&'static dyn log::Log>;

#[derive(Debug, thiserror::Error)]
pub enum KernelLogError {
    #[error("the programs have no log: {}", one_line(.0))]
    Attach(#[from] aya_log::Error),
    #[error("cannot wait for the programs' log: {0}")]
    Runtime(#[from] io::Error),
}

/// The loaded programs. Dropping it detaches and unloads everything.
pub struct Loaded {
    ebpf: Ebpf,
    loop_kind: LoopKind,
}

impl Loaded {
    /// Loads and verifies every program and configures what they watch. Attaches nothing yet.
    pub fn new(listeners: &[ListenerConfig], settings: &LoadSettings) -> Result<Self, LoadError> {
        if listeners.len() > MAX_LISTENERS {
            return Err(LoadError::TooManyListeners(listeners.len()));
        }
        let types = offsets::read(Path::new(VMLINUX_BTF))?;
        let offsets = SockOffsets::of(&types)?;
        let loop_kind = match settings.loop_kind {
            Some(forced) => forced,
            None => Features::of_running_kernel(&types)?
                .loop_kind()
                .map_err(LoadError::Lacking)?,
        };
        let btf = Btf::from_sys_fs()?;
        let stores_are_ordered = u8::from(cfg!(target_arch = "x86_64"));
        let watch_remote = u8::from(listeners.iter().any(|listener| listener.remote));
        let entries = listeners.len().max(1) as u32;
        let publish_interval =
            u64::try_from(settings.publish_interval.as_nanos()).unwrap_or(u64::MAX);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .verifier_log_level(settings.verifier_log.level())
            .override_global("SKC_NUM_OFFSET", &offsets.skc_num, true)
            .override_global("SKC_DPORT_OFFSET", &offsets.skc_dport, true)
            .override_global("SK_PROTOCOL_OFFSET", &offsets.sk_protocol, true)
            .override_global("SKC_NET_OFFSET", &offsets.skc_net, true)
            .override_global("NET_INUM_OFFSET", &offsets.net_inum, true)
            .override_global("STORES_ARE_ORDERED", &stores_are_ordered, true)
            .override_global("WATCH_REMOTE", &watch_remote, true)
            .override_global("KEEP_TOTALS", &u8::from(settings.keep_totals), true)
            .override_global("DEBUG_LOG", &u8::from(settings.debug_log), true)
            .override_global("PUBLISH_INTERVAL_NS", &publish_interval, true)
            .override_global("LOOP_KIND", &(loop_kind as u8), true)
            .override_global("REFUSED_SHAPE", &u8::from(settings.refused_shape), true)
            .map_max_entries("SNAPSHOTS", settings.max_connections)
            .map_max_entries("VITALS", VITALS_BYTES << u32::from(settings.keep_totals))
            .map_max_entries("LISTENERS", entries)
            .map_max_entries("STATS", entries)
            .load(OBJECT)?;
        for (name, tracepoint) in TRACEPOINTS {
            let program: &mut BtfTracePoint = program(&mut ebpf, name)?;
            program
                .load(tracepoint, &btf)
                .map_err(|error| Refusal::new(name, &error))?;
        }
        for (name, _) in PACKET_HOOKS {
            let program: &mut CgroupSkb = program(&mut ebpf, name)?;
            program.load().map_err(|error| Refusal::new(name, &error))?;
        }
        let mut loaded = Self { ebpf, loop_kind };
        loaded.watch(listeners)?;
        Ok(loaded)
    }

    /// Attaches everything: tracepoints first, so that a socket established in between is known before
    /// its first packet is seen.
    ///
    /// Programs attached by others keep running. If wsmon would replace one, or the kernel allows no
    /// second program, this fails and names it.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), LoadError> {
        for (_, hook) in PACKET_HOOKS {
            // If the query fails, the attach reports what is wrong.
            if let Ok(Some(conflict)) = attachments::conflict(cgroup, hook)
                && conflict.kind == ConflictKind::Overridden
            {
                return Err(conflict_on(cgroup, conflict));
            }
        }
        for (name, _) in TRACEPOINTS {
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
            // By bpf_link: other programs on this cgroup stay, and ours is detached if this process
            // dies.
            program
                .attach(&dir, hook, CgroupAttachMode::Single)
                .map_err(|source| match attachments::conflict(cgroup, hook) {
                    Ok(Some(conflict)) => conflict_on(cgroup, conflict),
                    _ => LoadError::Attach { name, source },
                })?;
        }
        Ok(())
    }

    /// How the programs loop.
    pub fn loop_kind(&self) -> LoopKind {
        self.loop_kind
    }

    /// The verifier's and the kernel's figures for each program.
    pub fn programs(&self) -> impl Iterator<Item = (&str, ProgramInfo)> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| Some((name, program.info().ok()?)))
    }

    /// How often the kernel skipped each program, because it was already running on the CPU.
    pub fn missed_runs(&self) -> impl Iterator<Item = (&str, io::Result<u64>)> {
        self.ebpf.programs().filter_map(|(name, program)| {
            let fd = program.fd().ok()?;
            Some((name, missed_runs::of(fd.as_fd())))
        })
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

    /// The programs' own log, registered with the current runtime. It exists only if they were loaded
    /// with `debug_log`.
    pub fn kernel_log(&mut self) -> Result<AsyncFd<KernelLog>, KernelLogError> {
        let log = EbpfLogger::init(&mut self.ebpf)?;
        // SAFETY: the map's descriptor is owned by the logger, never changes, and closes with it.
        Ok(
            unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }
                .map_err(io::Error::from)?,
        )
    }

    fn watch(&mut self, listeners: &[ListenerConfig]) -> Result<(), LoadError> {
        self.set_limits(listeners)?;
        let mut ports = self.array::<PortWatch>("PORTS")?;
        for (port, watch) in port_table(listeners) {
            ports
                .set(u32::from(port), watch, 0)
                .map_err(cannot("write", "PORTS"))?;
        }
        Ok(())
    }

    /// Applies new limits to the listeners that the programs were loaded with.
    pub fn set_limits(&mut self, listeners: &[ListenerConfig]) -> Result<(), LoadError> {
        let mut limits = self.array::<ListenerLimits>("LISTENERS")?;
        for (i, listener) in listeners.iter().enumerate() {
            limits
                .set(i as u32, listener.limits(), 0)
                .map_err(cannot("write", "LISTENERS"))?;
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
        Ok(Array::try_from(map).map_err(cannot("open", name))?)
    }
}

fn conflict_on(cgroup: &Path, conflict: Conflict) -> LoadError {
    LoadError::Conflict {
        cgroup: cgroup.to_owned(),
        conflict,
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
        .map_err(|error| Refusal::new(name, &error).into())
}

/// The entries of the `PORTS` map: each watched port with its listener's index plus one.
fn port_table(listeners: &[ListenerConfig]) -> std::collections::BTreeMap<u16, PortWatch> {
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
    use crate::config::listeners::PortRange;
    use monitor_core::ListenerRules;

    #[test]
    fn a_port_can_be_watched_as_local_and_as_remote() {
        let listener = |ports, remote| ListenerConfig {
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
