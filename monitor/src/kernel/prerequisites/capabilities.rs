//! The capabilities that wsmon uses, and why one may be missing.

use std::env;

use caps::{CapSet, Capability, errors::CapsError};
use rustix::thread::no_new_privs;

use super::{Missing, Prerequisite};

/// The use of a capability, and so what is lost without it.
pub(super) struct CapabilityUse {
    capability: Capability,
    required: bool,
    purpose: &'static str,
}

pub(super) const NEEDED_CAPABILITIES: [CapabilityUse; 5] = [
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

/// Makes every permitted capability effective. With `setcap cap_bpf,…=p`, as in the container image,
/// the kernel only permits them: it refuses to execute a program whose file makes effective what the
/// container may not have, before the program can name what is missing.
///
/// Call it before the first thread starts: capabilities belong to a thread.
pub fn make_effective() {
    let permitted = caps::read(None, CapSet::Permitted);
    // A capability that stays missing is reported with its use.
    let _ = permitted.and_then(|permitted| caps::set(None, CapSet::Effective, &permitted));
}

impl CapabilityUse {
    pub(super) fn prerequisite(&self) -> Prerequisite {
        let outcome = match held(self.capability) {
            Ok(Some(through)) if through == self.capability => Ok(self.purpose.to_owned()),
            Ok(Some(through)) => Ok(format!("{} (through {through})", self.purpose)),
            Ok(None) => Err(Missing::new(
                format!("cannot {}", self.purpose),
                self.remedy(Obstacle::to(self.capability)),
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

    fn remedy(&self, obstacle: Obstacle) -> String {
        let name = self.capability.to_string();
        match obstacle {
            Obstacle::Bounded => format!(
                "add it to the container (--cap-add={short}; Kubernetes: {short} in capabilities.add), \
                 or to CapabilityBoundingSet= of a systemd unit",
                short = name.trim_start_matches("CAP_"),
            ),
            Obstacle::NoNewPrivileges => format!(
                "no_new_privs keeps this user from getting {name} from the program's file: start the \
                 container without no-new-privileges (Kubernetes: allowPrivilegeEscalation: true), or \
                 as root (--user=0; Kubernetes: runAsUser: 0), or use AmbientCapabilities= in a systemd unit"
            ),
            Obstacle::NotGranted => format!(
                "run as root (sudo), or grant {name}: {}, or AmbientCapabilities= in a systemd unit",
                setcap(!self.required)
            ),
        }
    }
}

/// Why this process lacks a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// Nothing can give it to this process: it is not in the bounding set.
    Bounded,
    /// The file of the program cannot give it to this process.
    NoNewPrivileges,
    NotGranted,
}

impl Obstacle {
    fn to(capability: Capability) -> Self {
        // What cannot be read is taken for no obstacle.
        let is_bounded = !caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(true);
        Self::of(is_bounded, no_new_privs().unwrap_or(false))
    }

    fn of(is_bounded: bool, no_new_privileges: bool) -> Self {
        match (is_bounded, no_new_privileges) {
            (true, _) => Self::Bounded,
            (false, true) => Self::NoNewPrivileges,
            (false, false) => Self::NotGranted,
        }
    }
}

/// The capability that grants `capability`: itself, or CAP_SYS_ADMIN, from which CAP_BPF and
/// CAP_PERFMON were split (capabilities(7)).
pub(super) fn held(capability: Capability) -> Result<Option<Capability>, CapsError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_grants_an_optional_capability_keeps_the_required_ones() {
        assert!(setcap(false).starts_with("setcap cap_bpf,cap_perfmon,cap_net_admin+ep /"));
        let all = "setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_admin,cap_sys_ptrace+ep /";
        assert!(setcap(true).starts_with(all));
    }

    #[test]
    fn the_remedy_for_a_missing_capability_removes_the_first_obstacle() {
        let remedy = |bounded, no_new_privileges| {
            NEEDED_CAPABILITIES[0].remedy(Obstacle::of(bounded, no_new_privileges))
        };
        // Nothing else helps as long as the container may not have it.
        for no_new_privileges in [true, false] {
            let remedy = remedy(true, no_new_privileges);
            assert!(remedy.contains("--cap-add=BPF;"), "{remedy}");
        }
        let privileges = remedy(false, true);
        assert!(
            privileges.contains("allowPrivilegeEscalation: true"),
            "{privileges}"
        );
        // no_new_privs does not take these away.
        assert!(
            privileges.ends_with("AmbientCapabilities= in a systemd unit"),
            "{privileges}"
        );
        assert!(remedy(false, false).contains("setcap cap_bpf"));
    }
}
