//! Finds a process that holds a socket, by the inode of the socket. This needs a walk through all open
//! files (proc_pid_fd(5)).

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    fs,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, RawDir, SeekFrom, open, openat, readlinkat_raw, seek},
    io::{Errno, read},
};

use super::OwnerMisses;
use crate::kernel::host::{duty_cycle::DutyCycle, generations::Generations};

/// Sockets that are remembered with their process: at most twice as many, about 10 MB.
const REMEMBERED: usize = 65_536;

/// How long the process of a socket is taken for the one found last. A socket can be passed on.
const FRESH: Duration = Duration::from_secs(60);

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// `None` if it has ended meanwhile.
    pub(super) comm: Option<String>,
}

/// Finds processes by their sockets.
#[derive(Debug)]
pub(super) struct Processes {
    /// The longest that one search may take.
    longest: Duration,
    duty_cycle: DutyCycle,
    /// Where the last walk ended early.
    resume: Option<Position>,
    /// By the inode of the socket. A walk sees many sockets that are not searched.
    remembered: Generations<u32, Sighting>,
}

/// A place in the open files of a process. One with very many files takes several walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    pid: u32,
    /// The offset in the directory of open files.
    offset: u64,
}

/// A process that held a socket at a moment.
#[derive(Debug)]
struct Sighting {
    process: Arc<Process>,
    at: Instant,
}

impl Processes {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            duty_cycle: DutyCycle::default(),
            resume: None,
            remembered: Generations::new(REMEMBERED),
        }
    }

    /// Finds the processes that hold sockets with these inodes. Searches those listed in the files
    /// `near` (`cgroup.procs`) first, then all others, until all sockets are found or time is up.
    /// If several share a socket, returns the first one found. A socket whose process was found within
    /// the last minute needs no search.
    pub(super) fn find(
        &mut self,
        inodes: HashSet<u32>,
        near: impl IntoIterator<Item = PathBuf>,
        misses: &mut OwnerMisses,
    ) -> HashMap<u32, Arc<Process>> {
        let started = Instant::now();
        let (known, wanted): (HashSet<_>, HashSet<_>) = inodes
            .into_iter()
            .partition(|inode| self.is_fresh(*inode, started));
        let known = known.into_iter().filter_map(|inode| {
            let sighting = self.remembered.get(&inode)?;
            Some((inode, sighting.process.clone()))
        });
        let mut found: HashMap<_, _> = known.collect();
        if wanted.is_empty() {
            return found;
        }
        if !self.duty_cycle.is_due(started) {
            misses.walks_put_off += 1;
            return found;
        }
        let mut walk = ProcessWalk::new(wanted, started, self.longest);
        walk.resume = self.resume.take();
        walk.visit_all(near.into_iter().flat_map(|file| listed_in(&file)));
        walk.visit_all(all());
        self.duty_cycle.took(started, Instant::now());
        self.resume = walk.resume;
        misses.walks_cut += u64::from(walk.cut);
        misses.processes_refused += walk.refused;
        found.extend(walk.found);
        for (inode, process) in walk.seen {
            let at = started;
            self.remembered.insert(inode, Sighting { process, at });
        }
        found
    }

    fn is_fresh(&self, inode: u32, now: Instant) -> bool {
        let sighting = self.remembered.get(&inode);
        sighting.is_some_and(|sighting| now.saturating_duration_since(sighting.at) < FRESH)
    }
}

/// The processes in a `cgroup.procs`; none if it cannot be read, because the cgroup is gone or
/// threaded.
fn listed_in(file: &Path) -> Vec<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // 0 stands for a process outside our PID namespace.
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|&pid| pid != 0)
        .collect()
}

/// All current processes; none without /proc.
fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The buffer for one system call that reads a directory: about 300 open files.
const ENTRIES: usize = 8192;

struct ProcessWalk {
    started: Instant,
    longest: Duration,
    wanted: HashSet<u32>,
    found: HashMap<u32, Arc<Process>>,
    /// The sockets of the processes visited so far, wanted or not.
    seen: HashMap<u32, Arc<Process>>,
    visited: HashSet<u32>,
    refused: u64,
    /// Where to begin in a process, and then where this walk ended early.
    resume: Option<Position>,
    /// Time ran out before all were found.
    cut: bool,
}

impl ProcessWalk {
    fn new(wanted: HashSet<u32>, started: Instant, longest: Duration) -> Self {
        Self {
            started,
            longest,
            wanted,
            found: HashMap::new(),
            seen: HashMap::new(),
            visited: HashSet::new(),
            refused: 0,
            resume: None,
            cut: false,
        }
    }

    fn visit_all(&mut self, pids: impl IntoIterator<Item = u32>) {
        for pid in pids {
            if self.is_over() {
                return;
            }
            if self.visited.insert(pid) {
                self.visit(pid);
            }
        }
    }

    /// Whether all are found or time is up.
    fn is_over(&mut self) -> bool {
        self.wanted.is_empty() || self.is_late()
    }

    fn is_late(&mut self) -> bool {
        let is_late = self.started.elapsed() >= self.longest;
        self.cut |= is_late && !self.wanted.is_empty();
        is_late
    }

    fn visit(&mut self, pid: u32) {
        // Held open, so that everything read is from this process, not from a later one with the same
        // number.
        let process = open(
            format!("/proc/{pid}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let is_refused = match process {
            Ok(process) => self.read_process(pid, &process).is_err() && !has_ended(&process),
            Err(error) => !matches!(error, Errno::NOENT | Errno::SRCH),
        };
        self.refused += u64::from(is_refused);
    }

    fn read_process(&mut self, pid: u32, process: &OwnedFd) -> Result<(), Errno> {
        let files = openat(
            process,
            c"fd",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let begun = self.resume.take_if(|position| position.pid == pid);
        if let Some(position) = begun {
            seek(&files, SeekFrom::Start(position.offset))?;
        }
        let mut holder = None;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&files, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if let Some(inode) = socket_inode(&files, entry.file_name())? {
                let holder = holder.get_or_insert_with(|| {
                    let comm = comm(process);
                    Arc::new(Process { pid, comm })
                });
                if self.wanted.remove(&inode) {
                    self.found.insert(inode, holder.clone());
                }
                self.seen.entry(inode).or_insert_with(|| holder.clone());
            }
            // The rest of the process is read even when all are found, because its other sockets are
            // likely to be searched next.
            if self.is_late() {
                let offset = entry.next_entry_cookie();
                self.resume = Some(Position { pid, offset });
                return Ok(());
            }
        }
        Ok(())
    }
}

/// `None` for a file that is not a socket, or has been closed.
fn socket_inode(files: &OwnedFd, name: &CStr) -> Result<Option<u32>, Errno> {
    // `socket:[4294967295]` fits; a longer link is not a socket.
    let mut buffer = [MaybeUninit::uninit(); 24];
    match readlinkat_raw(files, name, &mut buffer) {
        Ok((link, _)) => Ok(parse_link(link)),
        // `.` and `..` are not links.
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_link(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether the process has ended. An error alone does not say so: if a process ends during readlinkat(2) on one of
/// its files, the call fails with EACCES, as for a hidden one (`proc_pid_readlink` in fs/proc/base.c).
fn has_ended(process: &OwnedFd) -> bool {
    comm(process).is_none()
}

fn comm(process: &OwnedFd) -> Option<String> {
    let file = openat(
        process,
        c"comm",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    // 15 bytes and a newline. A kernel thread's name may be longer, but such a thread has no sockets
    // with a file.
    let mut buffer = [0; 64];
    let length = read(&file, &mut buffer).ok()?;
    let name = buffer[..length]
        .strip_suffix(b"\n")
        .unwrap_or(&buffer[..length]);
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests;
