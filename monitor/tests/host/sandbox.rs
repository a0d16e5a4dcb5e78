//! The capabilities are held, but system calls are refused.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use crate::{PREREQUISITE, RUN, only_line, wsmon};

#[test]
#[ignore = "needs root: holds the capabilities"]
fn a_seccomp_filter_that_refuses_bpf_is_named() {
    let line = only_line(&without_bpf(&RUN), PREREQUISITE);
    assert!(
        line.contains("the seccomp filter of this process refuses bpf(2)"),
        "{line}"
    );
    assert!(line.contains("seccomp profile"), "{line}");

    let check = without_bpf(&["check"]);
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(PREREQUISITE), "{table}");
    assert!(
        table.contains("the seccomp filter of this process"),
        "{table}"
    );
}

#[test]
#[ignore = "needs root: makes a user namespace"]
fn a_user_namespace_is_named_if_its_root_has_no_privileges() {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(wsmon())
        .args(RUN)
        .output()
        .unwrap();
    let line = only_line(&output, PREREQUISITE);
    assert!(line.contains("in a user namespace"), "{line}");
    assert!(line.contains("--userns=host"), "{line}");
}

/// As with `RestrictAddressFamilies=` in a systemd unit.
#[test]
#[ignore = "needs root: loads programs"]
fn without_netlink_it_runs_and_names_what_it_cannot_see() {
    let mut check = Command::new(wsmon());
    let check = sandboxed(check.arg("check"), NETLINK).output().unwrap();
    let table = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{table}");
    assert!(
        table.contains("allow AF_NETLINK in this sandbox"),
        "{table}"
    );

    let mut run = Command::new(wsmon());
    let mut run = sandboxed(run.args(RUN), NETLINK)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    // The lines arrive at the latest when the daemon has stopped.
    let is_about_it = |line: &String| line.contains("missing: sock_diag");
    let first = lines.find_map(|line| line.ok().filter(is_about_it));
    let mut text = first.expect("a line about sock_diag");
    // A long line goes on, indented.
    let rest = lines.by_ref().map_while(Result::ok);
    text.extend(rest.take_while(|line| line.starts_with("    ")));
    let words: Vec<_> = text.split_whitespace().collect();
    let sentence = words.join(" ");
    assert!(
        sentence.contains("connections older than itself"),
        "{sentence}"
    );
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&run),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(lines.any(|line| line.unwrap().contains("stopped")));
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

/// Runs `wsmon` under a filter like the default profiles of container engines without `CAP_BPF` and
/// `CAP_SYS_ADMIN`.
fn without_bpf(arguments: &[&str]) -> Output {
    let mut command = Command::new(wsmon());
    sandboxed(command.args(arguments), BPF).output().unwrap()
}

/// System calls for which a filter returns EPERM.
#[derive(Clone, Copy)]
struct Refused {
    call: libc::c_long,
    /// Only with this first argument, if set.
    argument: Option<libc::c_int>,
}

const BPF: Refused = Refused {
    call: libc::SYS_bpf,
    argument: None,
};
const NETLINK: Refused = Refused {
    call: libc::SYS_socket,
    argument: Some(libc::AF_NETLINK),
};

fn sandboxed(command: &mut Command, refused: Refused) -> &mut Command {
    // SAFETY: the closure makes one system call, which is allowed between fork and exec, and
    // touches no memory but its own.
    unsafe { command.pre_exec(move || refuse(refused)) }
}

fn refuse(Refused { call, argument }: Refused) -> io::Result<()> {
    /// Offsets in `struct seccomp_data`: the system call number, and the lower half of its first
    /// argument.
    const CALL: u32 = 0;
    const ARGUMENT: u32 = 16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let filter = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let load = |place| {
        filter(
            (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
            0,
            0,
            place,
        )
    };
    // If the value differs, skips the following filters up to the last one.
    let unless = |value, skip| {
        filter(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            skip,
            value,
        )
    };
    let (place, value) = match argument {
        Some(value) => (ARGUMENT, value as u32),
        None => (CALL, call as u32),
    };
    let mut filters = [
        load(CALL),
        unless(call as u32, 3),
        load(place),
        unless(value, 1),
        filter(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        filter(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filters.len() as u16,
        filter: filters.as_mut_ptr(),
    };
    // SAFETY: `program` points to `filters`, and the kernel copies both before it returns.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
