//! What wsmon needs from the kernel and from its privileges, with a remedy for each missing item.

pub mod programs;
mod sandbox;

use std::{env, fs, io, path::Path};

use caps::{CapSet, Capability};
use rustix::process::{Resource, getrlimit};

use super::{
    bpf::offsets::VMLINUX_BTF,
    host::{
        cgroup::{self, WatchedCgroup},
        kernel_release, netns,
    },
    sock_diag::SockDiag,
};

/// One requirement or recommendation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prerequisite {
    pub name: String,
    /// Without a required one wsmon does not start; otherwise it starts and sees less.
    pub required: bool,
    /// If it is met: in what form.
    pub outcome: Result<String, Missing>,
}

/// What is missing, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    pub remedy: String,
}

impl Prerequisite {
    pub fn required(name: impl Into<String>, outcome: Result<String, Missing>) -> Self {
        Self {
            name: name.into(),
            required: true,
            outcome,
        }
    }

    pub fn recommended(name: impl Into<String>, outcome: Result<String, Missing>) -> Self {
        Self {
            name: name.into(),
            required: false,
            outcome,
        }
    }

    /// Whether it prevents a start.
    pub fn is_fatal(&self) -> bool {
        self.required && self.outcome.is_err()
    }
}

impl Missing {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Everything that can be checked before a program is loaded. `cgroup` is the path given by the user.
pub fn survey(cgroup: Option<&Path>) -> Vec<Prerequisite> {
    let mut survey = for_programs(cgroup);
    survey.extend(for_older_connections());
    survey
}

/// What is needed before loading a program makes sense.
pub fn for_programs(cgroup: Option<&Path>) -> Vec<Prerequisite> {
    let mut survey = vec![
        Prerequisite::required("kernel", Ok(kernel_release())),
        Prerequisite::required("kernel types (BTF)", btf()),
        Prerequisite::required("cgroup v2", cgroup_v2(cgroup)),
    ];
    let capabilities: Vec<_> = NEEDED_CAPABILITIES
        .iter()
        .map(CapabilityUse::prerequisite)
        .collect();
    // Without the capabilities, a refusal would say nothing about the sandbox.
    let are_held = !capabilities.iter().any(Prerequisite::is_fatal);
    survey.extend(capabilities);
    survey.extend(are_held.then(|| Prerequisite::required("bpf(2)", sandbox::bpf_call())));
    survey.push(Prerequisite::required("memory lock", memory_lock()));
    survey
}

/// What the search for connections older than wsmon needs.
pub fn for_older_connections() -> Vec<Prerequisite> {
    vec![
        Prerequisite::recommended("sock_diag", sock_diag()),
        Prerequisite::recommended("network namespaces", network_namespaces()),
    ]
}

/// `BPF_MAP_*` memory counts for the memory cgroup instead of the lock limit (commit 3ac1f01b43b6).
const MEMCG_ACCOUNTING_SINCE: KernelVersion = KernelVersion(5, 11);

fn btf() -> Result<String, Missing> {
    let readable = fs::File::open(VMLINUX_BTF).and_then(|file| file.metadata());
    match readable {
        Ok(metadata) => Ok(format!("{VMLINUX_BTF}, {} KiB", metadata.len() / 1024)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Missing::new(
            format!("{VMLINUX_BTF} does not exist"),
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs",
        )),
        Err(error) => Err(Missing::new(
            format!("cannot open {VMLINUX_BTF}: {error}"),
            "make /sys/kernel/btf readable in this container or sandbox",
        )),
    }
}

fn cgroup_v2(wanted: Option<&Path>) -> Result<String, Missing> {
    cgroup::usable_cgroup2(wanted)
        .map(|WatchedCgroup { path, is_root }| match is_root {
            true => format!("{}, the root: all sockets of this host", path.display()),
            false => format!("{}: only sockets of this cgroup and below", path.display()),
        })
        .map_err(|error| Missing::new(error.to_string(), error.remedy()))
}

/// The use of a capability, and so what is lost without it.
struct CapabilityUse {
    capability: Capability,
    required: bool,
    purpose: &'static str,
}

const NEEDED_CAPABILITIES: [CapabilityUse; 5] = [
    CapabilityUse {
        capability: Capability::CAP_BPF,
        required: true,
        purpose: "create maps and load programs",
    },
    CapabilityUse {
        capability: Capability::CAP_PERFMON,
        required: true,
        purpose: "load the tracing programs",
    },
    CapabilityUse {
        capability: Capability::CAP_NET_ADMIN,
        required: true,
        purpose: "attach to the cgroup",
    },
    CapabilityUse {
        capability: Capability::CAP_SYS_ADMIN,
        required: false,
        purpose: "find connections older than wsmon in other network namespaces",
    },
    CapabilityUse {
        capability: Capability::CAP_SYS_PTRACE,
        required: false,
        purpose: "find the network namespaces of other users' processes",
    },
];

impl CapabilityUse {
    fn prerequisite(&self) -> Prerequisite {
        let outcome = match held(self.capability) {
            Ok(Some(through)) if through == self.capability => Ok(self.purpose.to_owned()),
            Ok(Some(through)) => Ok(format!("{} (through {through})", self.purpose)),
            Ok(None) => Err(Missing::new(
                format!("cannot {}", self.purpose),
                format!(
                    "run as root (sudo), or grant {}: {}, or AmbientCapabilities= in a systemd unit",
                    self.capability,
                    setcap(!self.required)
                ),
            )),
            Err(error) => Err(Missing::new(
                format!("cannot read the capabilities of this process: {error}"),
                "allow the capget system call in this sandbox",
            )),
        };
        Prerequisite {
            name: self.capability.to_string(),
            required: self.required,
            outcome,
        }
    }
}

/// The capability that grants `capability`: itself, or CAP_SYS_ADMIN, from which CAP_BPF and
/// CAP_PERFMON were split (capabilities(7)).
fn held(capability: Capability) -> Result<Option<Capability>, caps::errors::CapsError> {
    let split = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
    for through in [Some(capability), split.then_some(Capability::CAP_SYS_ADMIN)] {
        if let Some(through) = through
            && caps::has_cap(None, CapSet::Effective, through)?
        {
            return Ok(Some(through));
        }
    }
    Ok(None)
}

/// The command that grants the required capabilities to the program, and with `optional` all of them. It
/// replaces those that were granted before, so it names more than the one that is missing.
fn setcap(optional: bool) -> String {
    let wanted = NEEDED_CAPABILITIES
        .iter()
        .filter(|used| used.required || optional);
    let names = wanted.map(|used| used.capability.to_string().to_lowercase());
    let names = names.collect::<Vec<_>>().join(",");
    let program = env::current_exe();
    let program = program.map_or_else(
        |_| "/usr/local/bin/wsmon".to_owned(),
        |path| path.display().to_string(),
    );
    format!("setcap {names}+ep {program}")
}

fn memory_lock() -> Result<String, Missing> {
    let version = KernelVersion::parse(&kernel_release());
    let limit = getrlimit(Resource::Memlock).current;
    if version.is_some_and(|version| version >= MEMCG_ACCOUNTING_SINCE) {
        return Ok("maps count for the memory cgroup, the limit does not matter".to_owned());
    }
    match limit {
        None => Ok("unlimited".to_owned()),
        Some(bytes) => Err(Missing::new(
            format!(
                "{} KiB may be locked, and maps of this kernel count as locked",
                bytes / 1024
            ),
            "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        )),
    }
}

fn sock_diag() -> Result<String, Missing> {
    // The probe counts no sockets: with a million of them that would add seconds to each start.
    SockDiag::open()
        .and_then(|mut sock_diag| sock_diag.probe())
        .map(|()| "lists TCP connections".to_owned())
        .map_err(|error| {
            Missing::new(
                format!(
                    "{error}; wsmon cannot find connections older than itself before their next \
                     packet, or receive queues that are full"
                ),
                "modprobe tcp_diag, and allow AF_NETLINK in this sandbox",
            )
        })
}

fn network_namespaces() -> Result<String, Missing> {
    match netns::enumerate() {
        Ok(list) if list.refused == 0 => Ok(format!("{} found", list.found.len())),
        Ok(list) => {
            let found = list.found.len();
            let hidden = match list.refused {
                1 => "the namespace of 1 process is hidden".to_owned(),
                count => format!("the namespaces of {count} processes are hidden"),
            };
            let helpful = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
            let lacking = helpful.iter().filter(|capability| {
                let held = held(**capability);
                held.is_ok_and(|through| through.is_none())
            });
            let lacking: Vec<_> = lacking.map(Capability::to_string).collect();
            let grant = match lacking.as_slice() {
                [] => String::new(),
                lacking => format!("grant {}, or ", lacking.join(" and ")),
            };
            Err(Missing::new(
                format!("{found} found; {hidden}"),
                format!(
                    "{grant}leave the sandbox; older connections in a hidden namespace stay unknown"
                ),
            ))
        }
        Err(error) => Err(Missing::new(
            error.to_string(),
            "mount /proc in this container",
        )),
    }
}

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KernelVersion(u16, u16);

impl KernelVersion {
    /// `6.1.0-38-cloud-amd64` is 6.1.
    fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let minor = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_of_all_kinds_are_compared_as_numbers() {
        let version = |release| KernelVersion::parse(release).unwrap();
        assert_eq!(version("6.1.0-38-cloud-amd64"), KernelVersion(6, 1));
        assert_eq!(version("5.17"), KernelVersion(5, 17));
        assert_eq!(version("7.0-rc1"), KernelVersion(7, 0));
        assert!(version("5.9.16") < MEMCG_ACCOUNTING_SINCE);
        assert!(version("6.1") > MEMCG_ACCOUNTING_SINCE);
        assert_eq!(KernelVersion::parse("linux"), None);
        assert_eq!(KernelVersion::parse("6."), None);
    }

    #[test]
    fn an_invalid_cgroup_is_fatal_and_has_a_remedy() {
        let survey = survey(Some(Path::new("/proc")));
        let cgroup = survey
            .iter()
            .find(|prerequisite| prerequisite.name == "cgroup v2")
            .unwrap();
        assert!(cgroup.is_fatal());
        assert!(
            cgroup
                .outcome
                .as_ref()
                .unwrap_err()
                .remedy
                .contains("findmnt")
        );
    }

    #[test]
    fn the_command_that_grants_an_optional_capability_keeps_the_required_ones() {
        assert!(setcap(false).starts_with("setcap cap_bpf,cap_perfmon,cap_net_admin+ep /"));
        let all = "setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_admin,cap_sys_ptrace+ep /";
        assert!(setcap(true).starts_with(all));
    }

    #[test]
    fn sock_diag_needs_no_privilege() {
        sock_diag().unwrap();
    }
}
