//! What this process uses.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use procfs::{
    ProcError,
    process::{LimitValue, Process},
};
use rustix::time::{ClockId, clock_gettime};

/// What the process uses at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFigures {
    /// To the tick, usually 10 ms.
    pub started: Timestamp,
    /// In user mode and in the kernel.
    pub cpu: Duration,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: usize,
    /// `None` without a limit.
    pub max_fds: Option<u64>,
    pub threads: u64,
}

/// Reads what this process uses.
#[derive(Debug)]
pub struct OwnProcess {
    process: Process,
    /// Converted once, because the wall clock may be set.
    started: Timestamp,
}

impl OwnProcess {
    /// # Errors
    ///
    /// Without `/proc`.
    pub fn open() -> Result<Self, ProcError> {
        let process = Process::myself()?;
        let start = Duration::from_secs_f64(
            process.stat()?.starttime as f64 / procfs::ticks_per_second() as f64,
        );
        let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        let age = since_boot.saturating_sub(start);
        let started = Timestamp::try_from(SystemTime::now() - age).unwrap_or_default();
        Ok(Self { process, started })
    }

    /// When the process started.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// # Errors
    ///
    /// If a file of `/proc` cannot be read, such as without a free file descriptor.
    pub fn read(&self) -> Result<ProcessFigures, ProcError> {
        let stat = self.process.stat()?;
        let ticks = (stat.utime + stat.stime) as f64;
        Ok(ProcessFigures {
            started: self.started,
            cpu: Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: self.process.fd_count()?,
            max_fds: match self.process.limits()?.max_open_files.soft_limit {
                LimitValue::Unlimited => None,
                LimitValue::Value(limit) => Some(limit),
            },
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let process = OwnProcess::open().expect("/proc");
        let before = process.read().expect("readable");
        let age = Timestamp::now().duration_since(before.started);
        assert!(age.as_secs() < 3600 && age.as_millis() > -50, "{age:?}");
        assert!(before.resident_bytes > 1 << 20, "{before:?}");
        assert!(before.virtual_bytes >= before.resident_bytes, "{before:?}");
        assert!(
            before.threads >= 2,
            "this test has its own thread: {before:?}"
        );
        let files: Vec<_> = (0..100)
            .map(|_| File::open("/proc/self/stat").expect("readable"))
            .collect();
        let after = process.read().expect("readable");
        assert!(after.open_fds > files.len(), "{after:?}");
        assert!(after.cpu >= before.cpu);
        assert_eq!(after.started, before.started);
    }
}
