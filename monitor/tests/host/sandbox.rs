//! Where the capabilities are held, and bpf(2) is refused all the same.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Output},
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
fn a_user_namespace_is_named_where_its_root_may_do_nothing() {
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

/// `wsmon` under a filter that gives EPERM for bpf(2), as the default profiles of container
/// engines do without `CAP_BPF` and `CAP_SYS_ADMIN`.
fn without_bpf(arguments: &[&str]) -> Output {
    let mut command = Command::new(wsmon());
    command.args(arguments);
    // SAFETY: the closure makes one system call, which is allowed between fork and exec, and
    // touches no memory but its own.
    unsafe { command.pre_exec(refuse_bpf) };
    command.output().unwrap()
}

fn refuse_bpf() -> io::Result<()> {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let filter = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let mut filters = [
        // The number of the system call (`struct seccomp_data`).
        filter((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        filter(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            1,
            libc::SYS_bpf as u32,
        ),
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
