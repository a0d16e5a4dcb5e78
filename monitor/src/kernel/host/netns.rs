//! Network namespaces: finds all of them, and runs code inside one.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    ops::ControlFlow,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    panic, thread,
};

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::mountinfo::{self, Mount};

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    id: NetNsId,
    file: File,
}

/// The identity of a namespace: the device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetNsId {
    pub dev: u64,
    pub inode: u64,
}

/// All the namespaces that could be found, each once, our own first.
#[derive(Debug)]
pub struct NetNsList {
    pub found: Vec<NetNs>,
    /// Processes and mounts whose namespace we may not read (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH).
    /// Their namespace may still be found in another way.
    pub refused: usize,
    /// Why there may be more: the limit of open files.
    pub cut: Option<OutOfFiles>,
}

/// The limit of open files was reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot hold all network namespaces open: {0}; raise the limit of open files (LimitNOFILE)"
)]
pub struct OutOfFiles(#[source] io::Error);

/// Files that are left for others when the limit was reached: to enter the namespaces and query them, and for
/// connections to the daemon.
const SPARE_FILES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    #[error("cannot list network namespaces: {0}; is /proc mounted?")]
    Proc(#[source] io::Error),
    #[error(transparent)]
    OutOfFiles(#[from] OutOfFiles),
    #[error("cannot enter network namespace {name}: {source}; this needs CAP_SYS_ADMIN")]
    Enter { name: String, source: io::Error },
    #[error("cannot start a thread for network namespace {name}: {source}")]
    Thread { name: String, source: io::Error },
}

impl NetNs {
    /// The calling thread's own namespace.
    pub fn own() -> io::Result<Self> {
        let file = File::open(OWN)?;
        Ok(Self {
            name: "own".to_owned(),
            id: NetNsId::of(&file.metadata()?),
            file,
        })
    }

    /// A printable name: `own`, the name of `ip netns`, or `pid 4711`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> NetNsId {
        self.id
    }
}

impl NetNsId {
    fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Finds our own namespace, those mounted somewhere (`ip netns`, container engines) and those of all
/// processes. A namespace held only by a thread other than its process's first, or only by an open
/// file, is not found. If the limit of open files does not allow all, there are fewer.
pub fn enumerate() -> Result<NetNsList, NetNsError> {
    let own = NetNs::own().map_err(NetNsError::Proc)?;
    let mut walk = NetNsWalk {
        nsfs: own.id.dev,
        seen: HashSet::from([own.id]),
        found: vec![own],
        refused: 0,
        out_of_files: None,
    };
    // Opened before the namespaces, which may take all files.
    let processes = fs::read_dir("/proc").map_err(NetNsError::Proc)?;
    for mount in mountinfo::read().map_err(NetNsError::Proc)? {
        walk.visit_mount(&mount);
    }
    for process in processes {
        if walk.out_of_files.is_some() {
            break;
        }
        let name = process.map_err(NetNsError::Proc)?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            walk.visit_process(pid);
        }
    }
    Ok(walk.into_list())
}

/// Runs `act` inside `namespace`, on a separate thread, so the caller's thread stays in its namespace.
/// Sockets that `act` opens belong to the namespace permanently.
///
/// # Panics
///
/// If `act` does.
pub fn in_namespace<T: Send>(
    namespace: &NetNs,
    act: impl FnOnce() -> T + Send,
) -> Result<T, NetNsError> {
    let name = || namespace.name.clone();
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                enter(namespace).map_err(|source| NetNsError::Enter {
                    name: name(),
                    source,
                })?;
                Ok(act())
            })
            .map_err(|source| NetNsError::Thread {
                name: name(),
                source,
            })?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// Calls `act` inside each of `namespaces` in turn, or with the error of entering it, until it breaks;
/// returns the break value. All calls run on one separate thread, as in [`in_namespace`].
///
/// # Panics
///
/// If `act` does.
pub fn in_each<'a, T: Send>(
    namespaces: &[&'a NetNs],
    mut act: impl FnMut(&'a NetNs, Result<(), NetNsError>) -> ControlFlow<T> + Send,
) -> Result<Option<T>, NetNsError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                namespaces.iter().find_map(|namespace| {
                    let entered = enter(namespace).map_err(|source| NetNsError::Enter {
                        name: namespace.name.clone(),
                        source,
                    });
                    act(namespace, entered).break_value()
                })
            })
            .map_err(|source| NetNsError::Thread {
                name: format!("1 of {}", namespaces.len()),
                source,
            })?;
        Ok(worker
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

const OWN: &str = "/proc/thread-self/ns/net";

/// Enters a namespace. Does nothing in the current one, which therefore needs no capability.
fn enter(namespace: &NetNs) -> io::Result<()> {
    if NetNsId::of(&fs::metadata(OWN)?) == namespace.id {
        return Ok(());
    }
    move_into_link_name_space(namespace.file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

struct NetNsWalk {
    /// The device of all namespace files.
    nsfs: u64,
    seen: HashSet<NetNsId>,
    found: Vec<NetNs>,
    refused: usize,
    /// The limit of open files was reached: a namespace may be missing.
    out_of_files: Option<io::Error>,
}

impl NetNsWalk {
    fn into_list(mut self) -> NetNsList {
        if self.out_of_files.is_some() {
            let kept = self.found.len().saturating_sub(SPARE_FILES).max(1);
            self.found.truncate(kept);
        }
        NetNsList {
            found: self.found,
            refused: self.refused,
            cut: self.out_of_files.map(OutOfFiles),
        }
    }

    fn visit_mount(&mut self, mount: &Mount) {
        let Some(id) = mounted_netns(mount).map(|inode| NetNsId {
            dev: self.nsfs,
            inode,
        }) else {
            return;
        };
        let path = &mount.mount_point;
        let name = path.file_name().map(printable).unwrap_or_default();
        self.visit(|| Ok(id), || File::open(path), name);
    }

    fn visit_process(&mut self, pid: u32) {
        let path = format!("/proc/{pid}/ns/net");
        let id = || fs::metadata(&path).map(|metadata| NetNsId::of(&metadata));
        self.visit(id, || File::open(&path), format!("pid {pid}"));
    }

    /// Opens only new namespaces, because there are far more processes than namespaces.
    fn visit(
        &mut self,
        id: impl FnOnce() -> io::Result<NetNsId>,
        open: impl FnOnce() -> io::Result<File>,
        name: String,
    ) {
        let opened = id().and_then(|id| {
            if self.seen.contains(&id) {
                return Ok(None);
            }
            let file = open()?;
            // Another mount may cover the path, and the process may have changed its namespace.
            let id = NetNsId::of(&file.metadata()?);
            Ok((id.dev == self.nsfs).then_some(NetNs { name, id, file }))
        });
        match opened {
            Ok(Some(namespace)) if self.seen.insert(namespace.id) => self.found.push(namespace),
            Ok(_) => {}
            Err(error) if has_vanished(&error) => {}
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                self.out_of_files = Some(error);
            }
            Err(_) => self.refused += 1,
        }
    }
}

/// The inode in the `net:[4026531840]` of a bind-mounted network namespace.
fn mounted_netns(mount: &Mount) -> Option<u64> {
    if mount.filesystem != "nsfs" {
        return None;
    }
    mount
        .root
        .to_str()?
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn printable(name: &OsStr) -> String {
    name.as_bytes().escape_ascii().to_string()
}

/// A process that ended during the walk, or is a zombie.
fn has_vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, filesystem: &str) -> Mount {
        Mount {
            root: root.into(),
            mount_point: "/run/netns/lb".into(),
            filesystem: filesystem.into(),
        }
    }

    /// A walk that has found nothing yet, where `own` is a namespace.
    fn new_walk(own: &NetNs) -> NetNsWalk {
        NetNsWalk {
            nsfs: own.id.dev,
            seen: HashSet::new(),
            found: Vec::new(),
            refused: 0,
            out_of_files: None,
        }
    }

    #[test]
    fn only_mounted_network_namespaces_count() {
        assert_eq!(
            mounted_netns(&mount("net:[4026532001]", "nsfs")),
            Some(4_026_532_001)
        );
        assert_eq!(mounted_netns(&mount("mnt:[4026532001]", "nsfs")), None);
        assert_eq!(mounted_netns(&mount("net:[]", "nsfs")), None);
        assert_eq!(mounted_netns(&mount("/", "tmpfs")), None);
    }

    #[test]
    fn a_hostile_name_is_escaped() {
        assert_eq!(printable(OsStr::new("a\x1b[2Jb")), r"a\x1b[2Jb");
    }

    #[test]
    fn our_own_namespace_comes_first_and_once() {
        let list = enumerate().unwrap();
        let own = list.found[0].id();
        assert_eq!(own, NetNs::own().unwrap().id());
        assert_eq!(
            list.found
                .iter()
                .filter(|namespace| namespace.id() == own)
                .count(),
            1
        );
    }

    #[test]
    fn our_own_namespace_needs_no_capability() {
        let own = NetNs::own().unwrap();
        let inside = in_namespace(&own, || NetNs::own().unwrap().id()).unwrap();
        assert_eq!(inside, own.id());
    }

    #[test]
    fn each_namespace_is_entered_until_the_callback_breaks() {
        let own = NetNs::own().unwrap();
        let mut visits = 0;
        let broke_off_with = in_each(&[&own; 3], |namespace, entered| {
            entered.unwrap();
            assert_eq!(NetNs::own().unwrap().id(), namespace.id());
            visits += 1;
            if visits == 2 {
                ControlFlow::Break("enough")
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(broke_off_with.unwrap(), Some("enough"));
        assert_eq!(visits, 2);
        let ended = in_each(&[&own], |_, _| ControlFlow::<()>::Continue(()));
        assert_eq!(ended.unwrap(), None);
    }

    #[test]
    fn a_missing_process_is_not_a_refusal() {
        let own = NetNs::own().unwrap();
        let mut walk = new_walk(&own);
        walk.visit_process(u32::MAX);
        assert_eq!((walk.found.len(), walk.refused), (0, 0));
    }

    #[test]
    fn at_the_limit_of_open_files_some_namespaces_are_found_and_files_are_left() {
        let own = NetNs::own().unwrap();
        let mut walk = new_walk(&own);
        let limit = 100;
        let id = |inode| NetNsId {
            dev: own.id.dev,
            inode,
        };
        for inode in 1..=limit {
            walk.found.push(NetNs {
                name: inode.to_string(),
                id: id(inode),
                file: File::open("/dev/null").unwrap(),
            });
        }
        let at_limit = || Err(io::Error::from(Errno::MFILE));
        walk.visit(|| Ok(id(limit + 1)), at_limit, "one more".to_owned());
        let list = walk.into_list();
        let kept = limit as usize - SPARE_FILES;
        assert_eq!((list.found.len(), list.refused), (kept, 0));
        assert_eq!(list.found[0].name(), "1", "our own is first and stays");
        let cut = list.cut.unwrap().to_string();
        assert!(cut.contains("LimitNOFILE"), "{cut}");
    }
}
