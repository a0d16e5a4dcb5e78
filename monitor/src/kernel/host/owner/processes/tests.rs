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
fn a_process_has_ended_only_after_its_end() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let path = format!("/proc/{}", child.id());
    let process = open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    assert!(!has_ended(&process));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has_ended(&process));
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
        assert!(walk.resume.is_some(), "the rest is read by the next walk");
        if walk.found.contains_key(&wanted) {
            assert!(!walk.cut, "all were found");
            break;
        }
        assert!(walk.cut);
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
