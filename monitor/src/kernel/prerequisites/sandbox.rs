//! What a sandbox or container keeps from this process despite its capabilities.

use std::{fs, io};

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
        LoadVerdict::Refused { error, .. }
            if is_of_a_filter(&error) && has_seccomp_filter(&read("/proc/self/status")) =>
        {
            Err(Missing::new(
                format!(
                    "the seccomp filter of this process refuses bpf(2) despite its capabilities: {error}"
                ),
                "allow the bpf system call in the container's seccomp profile (podman's default allows \
                 it with CAP_SYS_ADMIN only), or start it with --security-opt seccomp=unconfined \
                 (Kubernetes: seccompProfile: { type: Unconfined })",
            ))
        }
        LoadVerdict::Refused { error, .. } => Err(Missing::new(
            format!("the kernel refuses bpf(2) despite the capabilities: {error}"),
            "build the kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF, and allow bpf in the \
             security module (SELinux, AppArmor)",
        )),
    }
}

/// Whether `/proc` shows only the processes of a PID namespace.
pub(super) fn in_pid_namespace() -> bool {
    // Unreadable only without /proc, which is reported elsewhere.
    let own = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    own.to_str().is_some_and(is_pid_namespace)
}

/// False for the initial one, `PROC_PID_INIT_INO` in `include/uapi/linux/nsfs.h`.
fn is_pid_namespace(link: &str) -> bool {
    link.starts_with("pid:[") && link != "pid:[4026531836]"
}

/// The errors with which filters refuse a system call. A filter that lets it pass has no part in others.
fn is_of_a_filter(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
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
    fn only_the_initial_pid_namespace_shows_every_process() {
        assert!(!is_pid_namespace("pid:[4026531836]"));
        assert!(!is_pid_namespace(""));
        assert!(is_pid_namespace("pid:[4026532345]"));
    }

    #[test]
    fn a_filter_is_blamed_only_for_what_filters_return() {
        let is_blamed = |errno| is_of_a_filter(&io::Error::from_raw_os_error(errno));
        assert!(is_blamed(libc::EPERM) && is_blamed(libc::ENOSYS));
        assert!(!is_blamed(libc::EINVAL) && !is_blamed(libc::EACCES));
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
