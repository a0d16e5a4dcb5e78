//! Counts the runs of programs that the kernel left out.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// How often the kernel skipped this program, because it was already running on the CPU. The kernel has no
/// other interface for it than the descriptor's `fdinfo` (Linux 5.12, commit 9ed9e9ba2337).
pub(super) fn of(program: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    parse(&info).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(info: &str) -> Option<u64> {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_taken_from_its_line() {
        let info = "prog_type:\t26\nrun_cnt:\t9\nrecursion_misses:\t1394\nverified_insns:\t7\n";
        assert_eq!(parse(info), Some(1394));
        assert_eq!(parse("prog_type:\t26\n"), None);
        assert_eq!(parse("recursion_misses:\tmany\n"), None);
    }
}
