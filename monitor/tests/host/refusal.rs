//! A kernel that refuses a program: quickly, in one line, without a log of its work.

use std::{
    io::{self, Read},
    mem::MaybeUninit,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{PREREQUISITE, RUN, only_line, wsmon};

/// The promise for hosts; a guest without hardware support is ten times slower.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_RSS_KIB: i64 = 200 * 1024;

#[test]
#[ignore = "needs root: loads programs"]
fn it_ends_soon_in_one_line_and_takes_little_memory() {
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
fn the_check_is_as_quick_and_shows_the_end_of_the_log_if_asked_to() {
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

/// `wsmon` to its end, with the largest memory it had.
#[expect(
    clippy::zombie_processes,
    reason = "wait4 takes its place: it knows the memory"
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
    // Both are far smaller than a pipe.
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut stdout)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut stderr)
        .unwrap();
    let (status, usage) = wait4(child.id()).unwrap();
    Run {
        output: Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(status),
            stdout,
            stderr,
        },
        took: start.elapsed(),
        max_rss_kib: usage.ru_maxrss,
    }
}

fn wait4(child: u32) -> io::Result<(i32, libc::rusage)> {
    let (mut status, mut usage) = (0, MaybeUninit::zeroed());
    // SAFETY: both are writable, and all zeros are a valid `rusage`.
    let waited = unsafe { libc::wait4(child as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    match waited {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: zeroed above, so initialised in any case.
        _ => Ok((status, unsafe { usage.assume_init() })),
    }
}
