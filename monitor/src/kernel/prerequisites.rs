//! What wsmon needs from the kernel and from its privileges, with a remedy for each missing item.

pub mod capabilities;
pub mod programs;
mod sandbox;

use std::{fs, io, path::Path};

use caps::Capability;
use rustix::process::{Resource, getrlimit};

use capabilities::{CapabilityUse, NEEDED_CAPABILITIES, held};

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
    let list = netns::enumerate()
        .map_err(|error| Missing::new(error.to_string(), "mount /proc in this container"))?;
    if let Some(cut) = list.cut {
        let remedy = "raise the limit of open files of this process";
        return Err(Missing::new(cut.to_string(), remedy));
    }
    let found = list.found.len();
    if list.refused > 0 {
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
        return Err(Missing::new(
            format!("{found} found; {hidden}"),
            format!(
                "{grant}leave the sandbox; older connections in a hidden namespace stay unknown"
            ),
        ));
    }
    if sandbox::in_pid_namespace() {
        return Err(Missing::new(
            format!("{found} found; the host's processes, which lead to the others, are hidden"),
            "start the container with --pid=host (Kubernetes: hostPID: true); older connections in a \
             hidden namespace stay unknown, and alerts do not name processes",
        ));
    }
    Ok(format!("{found} found"))
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
    fn sock_diag_needs_no_privilege() {
        sock_diag().unwrap();
    }
}
