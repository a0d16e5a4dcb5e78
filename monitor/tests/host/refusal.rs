//! A kernel that refuses a program: reported quickly, in one line, without the verifier's log.

use std::{
    io::{self, Read},
    mem::MaybeUninit,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{PREREQUISITE, RUN, only_line, wsmon};

/// The documented limit for hosts; a guest without hardware support is ten times slower.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_RSS_KIB: i64 = 200 * 1024;

#[test]
#[ignore = "needs root: loads programs"]
fn it_ends_soon_with_one_line_and_takes_little_memory() {
    let run = measured(&[&RUN[..], &["--refused-shape"]].concat());
    let line = only_line(&run.output, PREREQUISITE);
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    assert!(
        line.starts_with(&format!("wsmon: Linux {release} refuses program ")),
        "{line}"
    );
    assert!(line.contains("program is too large"), "{line}");
    assert!(line.contains("docs/kernels.md"), "{line}");
    println!("{:?}, {} KiB", run.took, run.max_rss_kib);
    assert!(run.took < LIMIT, "{:?}", run.took);
    assert!(run.max_rss_kib < MAX_RSS_KIB, "{} KiB", run.max_rss_kib);
}

#[test]
#[ignore = "needs root: loads programs"]
fn the_check_is_as_quick_and_shows_the_end_of_the_log_on_request() {
    for arguments in [
        &["check", "--refused-shape"][..],
        &["check", "--refused-shape", "-v"],
    ] {
        let run = measured(arguments);
        let table = String::from_utf8_lossy(&run.output.stdout);
        assert_eq!(run.output.status.code(), Some(PREREQUISITE), "{table}");
        assert!(table.contains("program is too large"), "{table}");
        assert!(run.took < LIMIT, "{:?}", run.took);
        assert!(run.max_rss_kib < MAX_RSS_KIB, "{} KiB", run.max_rss_kib);
        let log = String::from_utf8_lossy(&run.output.stderr);
        let is_verbose = arguments.contains(&"-v");
        assert_eq!(
            log.contains("the verifier's log of program "),
            is_verbose,
            "{log}"
        );
        assert!(log.len() < 64 * 1024, "{} bytes", log.len());
    }
}

struct Run {
    output: Output,
    took: Duration,
    max_rss_kib: i64,
}

/// Runs `wsmon` to its end, and measures its peak memory.
#[expect(
    clippy::zombie_processes,
    reason = "wait4 is used instead: it reports the memory"
)]
fn measured(arguments: &[&str]) -> Run {
    let start = Instant::now();
    let mut child = Command::new(wsmon())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = lab::wait_for("wsmon to end", 6 * LIMIT, || wait4(child.id()).transpose());
    let took = start.elapsed();
    let Ok(ended) = ended else {
        child.kill().unwrap();
        panic!("{arguments:?} was not refused");
    };
    let (status, usage) = ended.unwrap();
    // Both are smaller than a pipe's buffer, so they never blocked it.
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.unwrap().read_to_end(&mut stdout).unwrap();
    child.stderr.unwrap().read_to_end(&mut stderr).unwrap();
    Run {
        output: Output {
            status: ExitStatus::from_raw(status),
            stdout,
            stderr,
        },
        took,
        max_rss_kib: usage.ru_maxrss,
    }
}

/// Exit status and resource usage of a child, once it has ended.
fn wait4(child: u32) -> io::Result<Option<(i32, libc::rusage)>> {
    let (mut status, mut usage) = (0, MaybeUninit::zeroed());
    let child = libc::pid_t::try_from(child).expect("process ids are positive");
    // SAFETY: both are writable, and the kernel fills them before it returns.
    let waited = unsafe { libc::wait4(child, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match waited {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has filled it, and all zeros were a valid value before.
        _ => Ok(Some((status, unsafe { usage.assume_init() }))),
    }
}
