//! Resources used by a process and by the kernel, from `/proc`.

use std::{fs, str::FromStr, time::Duration};

use anyhow::{Context, Result};

/// The CPU time that a process has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuTime {
    /// All its threads, including those that have ended.
    pub(super) process: Duration,
    /// Its first thread: wsmon's loop. The other threads scan the host's sockets.
    pub(super) main_thread: Duration,
}

impl CpuTime {
    pub(super) fn of(pid: u32) -> Result<Self> {
        Ok(Self {
            process: ticks(&format!("/proc/{pid}/stat"))?,
            main_thread: ticks(&format!("/proc/{pid}/task/{pid}/stat"))?,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            process: self.process.saturating_sub(before.process),
            main_thread: self.main_thread.saturating_sub(before.main_thread),
        }
    }

    pub(super) fn other_threads(self) -> Duration {
        self.process.saturating_sub(self.main_thread)
    }
}

/// Resident memory of a process in bytes.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    memory_status(pid, "VmRSS:")
}

/// The most that its resident memory has ever been.
pub(super) fn peak_bytes(pid: u32) -> Result<u64> {
    memory_status(pid, "VmHWM:")
}

fn memory_status(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    kib_of(&text, name).with_context(|| format!("no {name} in {path}"))
}

/// Available memory in bytes.
pub(super) fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    kib_of(&text, "MemAvailable:").context("no MemAvailable in /proc/meminfo")
}

/// Bytes of all live objects in the kernel's slabs: sockets and their data.
pub(super) fn slab_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("cannot read /proc/slabinfo")?;
    let sizes = text.lines().skip(2).map(|line| {
        // Name, live objects, objects, object size …
        let mut fields = line.split_whitespace().skip(1);
        let active: u64 = parse(fields.next(), line)?;
        let size: u64 = parse(fields.nth(1), line)?;
        Ok(active * size)
    });
    sizes.sum()
}

/// User and system time in `/proc/PID/stat`, after a name that may contain anything.
fn ticks(path: &str) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let (_, fields) = text.rsplit_once(')').with_context(|| text.clone())?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = parse(fields.next(), &text)?;
    let system: u64 = parse(fields.next(), &text)?;
    let rate = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos((user + system) * 1_000_000_000 / rate))
}

fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024)
}

fn parse<T: FromStr>(field: Option<&str>, line: &str) -> Result<T> {
    let field = field.and_then(|field| field.parse().ok());
    field.with_context(|| format!("cannot understand `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_has_a_main_thread() {
        let pid = std::process::id();
        let cpu = CpuTime::of(pid).unwrap();
        assert!(cpu.main_thread <= cpu.process);
        let resident = resident_bytes(pid).unwrap();
        assert!(resident > 100_000 && resident <= peak_bytes(pid).unwrap());
        assert!(available_bytes().unwrap() > 0);
    }
}
