//! Checks whether this process may call bpf(2) with the capabilities it holds.

use std::fs;

use super::Missing;
use crate::kernel::bpf::syscall::{self, Instruction, LoadVerdict, ProgramKind};

/// The map of the initial user namespace (user_namespaces(7)): every id maps to itself.
const INITIAL_UID_MAP: [&str; 3] = ["0", "0", "4294967295"];

/// Loads a program that does nothing.
pub(super) fn bpf_call() -> Result<String, Missing> {
    if in_user_namespace(&read("/proc/self/uid_map")) {
        return Err(Missing::new(
            "this process is in a user namespace, where its capabilities do not reach the kernel's BPF",
            "start the container without user namespaces (docker: --userns=host; podman: as root)",
        ));
    }
    let nothing = [Instruction::set(0, 1), Instruction::EXIT];
    match syscall::load(ProgramKind::CgroupSkb, &nothing) {
        LoadVerdict::Loaded(_) => Ok("loads a program".to_owned()),
        LoadVerdict::Refused { error, .. } if has_seccomp_filter(&read("/proc/self/status")) => {
            Err(Missing::new(
                format!(
                    "the seccomp filter of this process refuses bpf(2) despite its capabilities: {error}"
                ),
                "allow the bpf system call in the container's seccomp profile, or start it with \
                 --security-opt seccomp=unconfined",
            ))
        }
        LoadVerdict::Refused { error, .. } => Err(Missing::new(
            format!("the kernel refuses bpf(2) despite the capabilities: {error}"),
            "build the kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF, and allow bpf in the \
             security module (SELinux, AppArmor)",
        )),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// False if the map is unreadable.
fn in_user_namespace(uid_map: &str) -> bool {
    let ids: Vec<_> = uid_map.split_whitespace().collect();
    !ids.is_empty() && ids != INITIAL_UID_MAP
}

/// `SECCOMP_MODE_FILTER` in `/proc/PID/status` (proc_pid_status(5)).
fn has_seccomp_filter(status: &str) -> bool {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Seccomp:"))
        .any(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_initial_user_namespace_maps_every_id_to_itself() {
        assert!(!in_user_namespace("         0          0 4294967295\n"));
        assert!(!in_user_namespace(""));
        assert!(in_user_namespace("         0       1000          1\n"));
        assert!(in_user_namespace("0 1000 1\n1 100000 65536\n"));
    }

    #[test]
    fn a_seccomp_filter_is_distinguished_from_strict_mode_and_from_none() {
        assert!(has_seccomp_filter(
            "Name:\twsmon\nSeccomp:\t2\nSeccomp_filters:\t1\n"
        ));
        assert!(!has_seccomp_filter("Seccomp:\t0\nSeccomp_filters:\t0\n"));
        assert!(!has_seccomp_filter("Seccomp:\t1\n"));
        assert!(!has_seccomp_filter(""));
    }
}
