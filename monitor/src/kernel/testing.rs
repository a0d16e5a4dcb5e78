//! Network namespaces, connections and cgroups for the tests of this folder.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, bind, connect, listen, netdevice, socket, sockopt},
    process::chroot,
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{
    host::{
        cgroup::find_cgroup2,
        netns::{self, NetNs},
    },
    sock_diag::socket_query::SocketKey,
};

/// A name that no other test of this or another run has.
fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("wsmon-{what}-{}-{number}", std::process::id())
}

/// A network namespace with its loopback up; dropping it deletes it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let namespace = Self {
            name: unique("kernel"),
        };
        ip(&["netns", "add", &namespace.name]);
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        namespace
    }

    pub(crate) fn netns(&self) -> NetNs {
        let found = netns::enumerate().unwrap().found;
        found
            .into_iter()
            .find(|found| found.name() == self.name)
            .expect("a mounted namespace")
    }

    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        netns::in_namespace(&self.netns(), act).unwrap()
    }

    /// Binds an address to a new interface; returns the interface's number.
    pub(super) fn add_link_local(&self, address: &str) -> u32 {
        let inside = |arguments: &[&str]| ip(&[&["-n", &self.name], arguments].concat());
        inside(&[
            "link", "add", "scoped", "type", "veth", "peer", "name", "other",
        ]);
        inside(&["link", "set", "scoped", "up"]);
        inside(&["link", "set", "other", "up"]);
        let address = format!("{address}/64");
        inside(&["address", "add", &address, "dev", "scoped", "nodad"]);
        self.enter(|| {
            let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
            netdevice::name_to_index(&any, "scoped").unwrap()
        })
    }

    /// A connection from inside to a listener, which is then closed.
    pub(crate) fn connect(&self, listen: &str, server: &str) -> Connection {
        self.enter(|| Connection::new(listen, server))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Connection {
    /// In the calling thread's namespace. If `server` has port 0, the listener's port is used.
    pub(super) fn new(listen: &str, server: &str) -> Self {
        let listener = TcpListener::bind(listen).unwrap();
        let mut server: SocketAddr = server.parse().unwrap();
        server.set_port(listener.local_addr().unwrap().port());
        let client = TcpStream::connect(server).unwrap();
        let (server, _) = listener.accept().unwrap();
        Self { client, server }
    }

    /// From a client's address chosen by the caller, which is free again at once: dropping the client
    /// sends a RST.
    pub(super) fn between(client: &str, server: &str) -> Self {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        // A program started by another test has copies of all sockets until its exec, and holds their
        // addresses for as long.
        wait_for("the addresses to be free", || {
            match Self::try_between(client, server) {
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => None,
                made => Some(made.unwrap()),
            }
        })
    }

    fn try_between(client: SocketAddr, server: SocketAddr) -> rustix::io::Result<Self> {
        let open = || {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            Ok(socket)
        };
        let listener = open()?;
        bind(&listener, &server)?;
        listen(&listener, 1)?;
        let socket = open()?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        bind(&socket, &client)?;
        connect(&socket, &server)?;
        let (server, _) = TcpListener::from(listener).accept().unwrap();
        Ok(Self {
            client: TcpStream::from(socket),
            server,
        })
    }

    /// Asserts that bytes pass each way.
    #[track_caller]
    pub(super) fn assert_alive(&self) {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
    }
}

pub(crate) fn key_of(socket: &TcpStream) -> SocketKey {
    SocketKey::new(
        sockopt::socket_cookie(socket).unwrap(),
        socket.local_addr().unwrap(),
        socket.peer_addr().unwrap(),
    )
    .unwrap()
}

/// The same addresses with another cookie.
pub(super) fn with_cookie(key: &SocketKey, cookie: u64) -> SocketKey {
    SocketKey::new(cookie, key.local(), key.peer()).unwrap()
}

/// Runs `act` on a thread whose root directory is empty, so there is no `/proc`.
pub(crate) fn without_proc<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let root = tempfile::tempdir().unwrap();
    let isolated = || {
        // SAFETY: this unshares the root and working directory only, not the table of open files.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
        chroot(root.path()).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(isolated).join()).unwrap()
}

/// Runs `act` on a thread that cannot start others.
pub(crate) fn without_threads<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let isolated = || {
        refuse_new_threads();
        act()
    };
    std::thread::scope(|scope| scope.spawn(isolated).join()).unwrap()
}

/// From now on, the calling thread cannot start others.
pub(crate) fn refuse_new_threads() {
    const LOAD_SYSCALL: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    // The number of the system call is the first field of the data.
    let mut filter = [
        instruction(LOAD_SYSCALL, 0, 0),
        instruction(JUMP_IF_EQUAL, 2, libc::SYS_clone as u32),
        instruction(JUMP_IF_EQUAL, 1, libc::SYS_clone3 as u32),
        instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        instruction(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the filter, which lives until then.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The value of `probe` once it has one.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A cgroup of the v2 hierarchy; dropping it deletes it, once it is empty.
pub(super) struct CgroupDir {
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
}

impl CgroupDir {
    pub(super) fn new(name: &str) -> Self {
        let root = find_cgroup2().unwrap();
        let path = root.join(unique(name));
        fs::create_dir(&path).unwrap();
        Self { root, path }
    }

    pub(super) fn below(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap();
        Self {
            root: self.root.clone(),
            path,
        }
    }

    pub(super) fn id(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }
}

impl Drop for CgroupDir {
    fn drop(&mut self) {
        // A process that was in it may take a moment to leave.
        wait_for("a cgroup to be empty", || fs::remove_dir(&self.path).ok());
    }
}
