//! The scans of the host's sockets, as the daemon reports them with `-vv`.

use std::time::{Duration, Instant};

/// What precedes the numbers in the line of a scan.
const PREFIX: &str = "scanned the sockets of this host in ";

/// A completed scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoggedScan {
    /// When its line was read.
    pub(super) at: Instant,
    pub(super) counts: ScanCounts,
}

/// The numbers of a scan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScanCounts {
    /// CPU time.
    pub(super) cost: Duration,
    pub(super) namespaces: u64,
    pub(super) dumped: u64,
    pub(super) queried: u64,
    pub(super) queries: u64,
    pub(super) skipped: u64,
}

/// The scans so far.
#[derive(Debug, Default)]
pub(super) struct ScanLog {
    pub(super) scans: Vec<LoggedScan>,
}

impl ScanLog {
    /// Adds the scans that are new in the daemon's log.
    pub(super) fn update(&mut self, log: &str) {
        let at = Instant::now();
        let lines = log.lines().filter_map(ScanCounts::parse);
        let new = lines.skip(self.scans.len());
        let new: Vec<_> = new.map(|counts| LoggedScan { at, counts }).collect();
        self.scans.extend(new);
    }
}

impl ScanCounts {
    fn parse(line: &str) -> Option<Self> {
        let (_, text) = line.split_once(PREFIX)?;
        let digits = text.split(|c: char| !c.is_ascii_digit());
        let mut numbers = digits.filter_map(|digits| digits.parse().ok());
        let cost = Duration::from_millis(numbers.next()?);
        let _listening = numbers.next()?;
        Some(Self {
            cost,
            namespaces: numbers.next()?,
            dumped: numbers.next()?,
            queried: numbers.next()?,
            queries: numbers.next()?,
            skipped: numbers.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[2026-11-24T08:14:56Z INFO  monitor::daemon] attached the programs to /sys/fs/cgroup
[2026-11-24T08:15:06Z DEBUG monitor::daemon::reconcile] scanned the sockets of this host in 57 ms of CPU \
time: 20 listening sockets on watched ports, 203 network namespaces: 1 dumped, 19 by 5000 queries, 183 without \
a known connection
[2026-11-24T08:15:06Z DEBUG monitor::daemon::reconcile] not every socket could be seen; nothing is given up
";

    #[test]
    fn a_scan_is_read_once_from_the_log() {
        let mut log = ScanLog::default();
        for _ in 0..2 {
            log.update(LOG);
        }
        let expected = ScanCounts {
            cost: Duration::from_millis(57),
            namespaces: 203,
            dumped: 1,
            queried: 19,
            queries: 5_000,
            skipped: 183,
        };
        let counts: Vec<_> = log.scans.iter().map(|scan| scan.counts).collect();
        assert_eq!(counts, [expected]);
        log.update(&LOG.repeat(3));
        assert_eq!(log.scans.len(), 3);
    }
}
