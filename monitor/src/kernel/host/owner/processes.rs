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
    /// Where the last walk was cut.
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
    /// Where to begin in a process, and then where this walk was cut.
    resume: Option<Position>,
    /// Time ran out before the end.
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
        self.cut |= self.started.elapsed() >= self.longest;
        self.cut
    }

    fn visit(&mut self, pid: u32) {
        match self.read_process(pid) {
            Ok(()) => {}
            // The process has ended.
            Err(Errno::NOENT | Errno::SRCH) => {}
            Err(_) => self.refused += 1,
        }
    }

    fn read_process(&mut self, pid: u32) -> Result<(), Errno> {
        // Held open, so that everything read is from this process, not from a later one with the same
        // number.
        let process = open(
            format!("/proc/{pid}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let files = openat(
            &process,
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
                    let comm = comm(&process);
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
mod tests {
    use std::{
        ffi::OsStr,
        net::{TcpStream, UdpSocket},
        os::unix::{
            ffi::OsStrExt,
            fs::{chown, symlink},
            process::CommandExt,
        },
        process::{Child, Command},
    };

    use rustix::fs::fstat;

    use super::*;
    use crate::kernel::host::duty_cycle::LONGEST;
    use crate::kernel::testing::{CgroupDir, Connection, wait_for};

    fn inode(socket: &TcpStream) -> u32 {
        fstat(socket).unwrap().st_ino.try_into().unwrap()
    }

    fn find(inodes: &[u32], near: Option<&CgroupDir>) -> (HashMap<u32, Arc<Process>>, OwnerMisses) {
        let mut misses = OwnerMisses::default();
        let near = near.map(|cgroup| cgroup.path.join("cgroup.procs"));
        let inodes = inodes.iter().copied().collect();
        let found = Processes::new(LONGEST).find(inodes, near, &mut misses);
        (found, misses)
    }

    /// Holds a socket until this value is dropped.
    struct Holder(Child);

    impl Holder {
        /// Takes the command too, which would otherwise keep holding the socket.
        fn of(socket: TcpStream, mut command: Command) -> Self {
            let child = command.arg("60").stdin(OwnedFd::from(socket)).spawn();
            Self(child.unwrap())
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn links_to_sockets_are_distinguished_from_others() {
        assert_eq!(parse_link(b"socket:[4294967295]"), Some(u32::MAX));
        for other in [
            "pipe:[5]",
            "/tmp/socket:[5]",
            "socket:[5",
            "socket:[]",
            "socket:[-5]",
            "",
        ] {
            assert_eq!(parse_link(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn all_sockets_of_a_process_are_found_in_one_walk() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let inodes = [inode(&connection.client), inode(&connection.server)];
        let mut walk = ProcessWalk::new(HashSet::from(inodes), Instant::now(), LONGEST);
        walk.visit(std::process::id());
        let pids: Vec<_> = inodes.iter().map(|inode| walk.found[inode].pid).collect();
        assert_eq!(pids, [std::process::id(); 2]);
        assert!(walk.is_over() && !walk.cut);
    }

    #[test]
    #[ignore = "needs root: reads other users' processes"]
    fn the_other_sockets_of_a_process_need_no_walk_for_a_minute() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let (client, server) = (inode(&connection.client), inode(&connection.server));
        let mut processes = Processes::new(Duration::from_secs(10));
        let mut find = |wanted, misses: &mut OwnerMisses| {
            processes.find(HashSet::from([wanted]), [], misses).len()
        };
        let mut misses = OwnerMisses::default();
        assert_eq!(find(client, &mut misses), 1);
        assert_eq!(find(server, &mut misses), 1);
        assert_eq!(misses.walks_put_off, 0, "a second walk would be put off");
        let later = Instant::now() + FRESH;
        assert!(processes.remembered.get(&server).is_some());
        assert!(!processes.is_fresh(server, later));
    }

    #[test]
    fn a_cut_walk_is_resumed_where_it_ended() {
        let sockets: Vec<_> = (0..100)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let last = fstat(sockets.last().unwrap()).unwrap();
        let wanted = u32::try_from(last.st_ino).unwrap();
        let pid = std::process::id();
        // Each walk has time for one file only.
        let mut position = Position { pid, offset: 0 };
        let mut walks = 0;
        loop {
            let mut walk = ProcessWalk::new([wanted].into(), Instant::now(), Duration::ZERO);
            walk.resume = Some(position);
            walk.visit(pid);
            walks += 1;
            if walk.found.contains_key(&wanted) {
                break;
            }
            let next = walk.resume.expect("the walk was cut");
            assert!(next.offset > position.offset, "{next:?}");
            position = next;
        }
        assert!(walks > 100, "{walks}");
    }

    #[test]
    fn a_walk_without_time_finds_nothing_and_is_marked_as_cut() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let inodes = HashSet::from([inode(&connection.client)]);
        let mut walk = ProcessWalk::new(inodes, Instant::now() - LONGEST, LONGEST);
        walk.visit_all([std::process::id()]);
        assert!(walk.cut && walk.found.is_empty());
    }

    #[test]
    fn a_walk_right_after_another_is_postponed_and_counted() {
        let mut processes = Processes::new(LONGEST);
        let mut misses = OwnerMisses::default();
        let now = Instant::now();
        processes
            .duty_cycle
            .took(now, now + Duration::from_secs(60));
        assert!(
            processes
                .find(HashSet::from([1]), [], &mut misses)
                .is_empty()
        );
        assert_eq!(misses.walks_put_off, 1);
        // An empty search does no walk.
        processes.find(HashSet::new(), [], &mut misses);
        assert_eq!(misses.walks_put_off, 1);
    }

    #[test]
    fn a_missing_process_is_not_a_refusal() {
        let mut walk = ProcessWalk::new(HashSet::from([1]), Instant::now(), LONGEST);
        walk.visit(u32::MAX);
        assert_eq!((walk.found.len(), walk.refused), (0, 0));
    }

    #[test]
    #[ignore = "needs root: reads other users' processes"]
    fn a_process_of_another_user_is_found_and_its_hostile_name_is_text() {
        let folder = tempfile::tempdir().unwrap();
        let name = OsStr::from_bytes(b"ev\x1b[2J\xffil");
        symlink("/bin/sleep", folder.path().join(name)).unwrap();
        chown(folder.path(), Some(65534), None).unwrap();
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let wanted = inode(&connection.client);
        let mut evil = Command::new(folder.path().join(name));
        evil.uid(65534);
        let holder = Holder::of(connection.client, evil);
        let process = wait_for("the process", || find(&[wanted], None).0.remove(&wanted));
        assert_eq!(process.pid, holder.0.id());
        assert_eq!(process.comm.as_deref(), Some("ev\x1b[2J\u{fffd}il"));
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn the_processes_of_the_cgroup_are_searched_first() {
        let cgroup = CgroupDir::new("near");
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let wanted = inode(&connection.client);
        // This process holds the socket too, and comes earlier in /proc.
        let ours = connection.client.try_clone().unwrap();
        let holder = Holder::of(connection.client, Command::new("sleep"));
        fs::write(cgroup.path.join("cgroup.procs"), holder.0.id().to_string()).unwrap();

        let (found, misses) = find(&[wanted], Some(&cgroup));
        assert_eq!(found[&wanted].pid, holder.0.id());
        assert_eq!(misses, OwnerMisses::default());
        drop(holder);
        let (found, _) = find(&[wanted], Some(&cgroup));
        assert_eq!(
            found[&wanted].pid,
            std::process::id(),
            "then all the others"
        );
        drop(ours);
    }

    #[test]
    #[ignore = "needs root: drops capabilities"]
    fn inaccessible_processes_are_counted_and_are_not_an_error() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let wanted = inode(&connection.client);
        let mut stranger = Command::new("sleep");
        stranger.uid(65534).gid(65534);
        let _holder = Holder::of(connection.client, stranger);
        // Capabilities belong to a thread.
        let (found, misses) = std::thread::spawn(move || {
            caps::clear(None, caps::CapSet::Effective).unwrap();
            find(&[wanted], None)
        })
        .join()
        .unwrap();
        assert!(found.is_empty());
        assert!(misses.processes_refused > 0);
    }

    #[test]
    #[ignore = "needs root: reads other users' processes"]
    fn the_last_of_many_sockets_is_found() {
        const SOCKETS: u32 = 2_000;
        let sockets: Vec<_> = (0..SOCKETS)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let last = fstat(sockets.last().unwrap()).unwrap();
        let wanted = u32::try_from(last.st_ino).unwrap();
        let started = Instant::now();
        // Longer than a busy machine needs.
        let longest = Duration::from_secs(20);
        let mut walk = ProcessWalk::new(HashSet::from([wanted]), started, longest);
        walk.visit(std::process::id());
        println!("an open file: {:?}", started.elapsed() / SOCKETS);
        assert_eq!(walk.found[&wanted].pid, std::process::id());
        drop(sockets);

        let started = Instant::now();
        let (found, misses) = find(&[u32::MAX], None);
        println!(
            "{} processes: {:?}, {misses:?}",
            all().count(),
            started.elapsed()
        );
        assert!(found.is_empty());
    }
}
