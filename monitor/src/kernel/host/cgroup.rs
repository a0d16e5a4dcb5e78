//! Finds the mount of the cgroup v2 hierarchy. The programs attach at its root.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};

use super::mountinfo::{self, Mount};

/// `CGROUP2_SUPER_MAGIC` in `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// The inode of the root of the hierarchy, also as seen from a cgroup namespace or through a bind
/// mount. Every other cgroup, including a namespace's root, has another number.
const ROOT_INODE: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mountinfo(#[source] io::Error),
    #[error("no cgroup v2 hierarchy is mounted here")]
    NotMounted,
    #[error("cannot open cgroup {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not on a cgroup v2 file system", .0.display())]
    NotCgroup2(PathBuf),
    #[error(
        "{} is not the root of the host's hierarchy but that of a cgroup namespace: only this \
         container's sockets are below it", .0.display()
    )]
    NamespaceRoot(PathBuf),
}

impl CgroupError {
    pub fn remedy(&self) -> String {
        match self {
            Self::Mountinfo(_) => "mount /proc in this container".to_owned(),
            Self::NotMounted => {
                "mount -t cgroup2 none /mnt/cgroup2, and pass --cgroup /mnt/cgroup2; a \
                 container needs the host's hierarchy (-v /sys/fs/cgroup:/host/cgroup:ro)"
                    .to_owned()
            }
            Self::Unreadable { .. } => "make it readable, or pass another with --cgroup".to_owned(),
            Self::NotCgroup2(_) => {
                "pass a directory below a cgroup2 mount with --cgroup (findmnt -t cgroup2)"
                    .to_owned()
            }
            Self::NamespaceRoot(path) => format!(
                "start the container with the host's hierarchy (-v /sys/fs/cgroup:/host/cgroup:ro) \
                 and pass --cgroup /host/cgroup, or start it with --cgroupns=host; to watch this \
                 container alone, pass --cgroup {}",
                path.display()
            ),
        }
    }
}

/// The cgroup to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedCgroup {
    pub path: PathBuf,
    /// It is the root of the hierarchy, so every socket of the host is below it.
    pub is_root: bool,
}

/// The root of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host,
/// or wherever it is mounted. Inside a cgroup namespace that shows no more, it is that namespace's
/// root.
pub fn find_cgroup2() -> Result<PathBuf, CgroupError> {
    let mounts = mountinfo::read().map_err(CgroupError::Mountinfo)?;
    choose(mounts, |path| {
        usable_cgroup2(Some(path)).is_ok_and(|cgroup| cgroup.is_root)
    })
    .ok_or(CgroupError::NotMounted)
}

/// The root of the cgroup v2 hierarchy, to look up names of cgroups. Without a hierarchy no cgroup has a path.
pub fn cgroup2_root() -> PathBuf {
    find_cgroup2().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup"))
}

/// `wanted`, or else the root of the hierarchy, after checking that it is a readable cgroup v2
/// directory. Without `wanted`, a namespace's root is refused.
pub fn usable_cgroup2(wanted: Option<&Path>) -> Result<WatchedCgroup, CgroupError> {
    let path = match wanted {
        Some(path) => path.to_owned(),
        None => find_cgroup2()?,
    };
    let unreadable = |errno: rustix::io::Errno| CgroupError::Unreadable {
        path: path.clone(),
        source: errno.into(),
    };

    let directory = open(
        &path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(unreadable)?;
    if !is_on_cgroup2(&directory).map_err(unreadable)? {
        return Err(CgroupError::NotCgroup2(path));
    }
    let is_root = fstat(&directory).map_err(unreadable)?.st_ino == ROOT_INODE;
    if wanted.is_none() && !is_root {
        return Err(CgroupError::NamespaceRoot(path));
    }
    Ok(WatchedCgroup { path, is_root })
}

/// The cgroup and its visible ancestors, innermost first.
pub(in crate::kernel) fn with_ancestors(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    let cgroup = fs::canonicalize(cgroup)?;
    let mut found = Vec::new();
    for path in cgroup.ancestors() {
        let directory = fs::File::open(path)?;
        if !is_on_cgroup2(&directory)? {
            break;
        }
        found.push(path.to_owned());
    }
    Ok(found)
}

fn is_on_cgroup2(file: impl AsFd) -> rustix::io::Result<bool> {
    // The type of f_type differs in sign and width by architecture; the magic fits all.
    Ok(fstatfs(file)?.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// The mount whose root is that of the hierarchy; else one that looks like the whole of it, like a
/// namespace's root; else one of a part.
fn choose(
    mounts: impl IntoIterator<Item = Mount>,
    is_root: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let mounts = mounts.into_iter();
    let mut found: Vec<_> = mounts
        .filter(|mount| mount.filesystem == "cgroup2")
        .collect();
    found.sort_by_key(|mount| (!is_root(&mount.mount_point), mount.root != "/"));
    found.into_iter().next().map(|mount| mount.mount_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(mountinfo: &str) -> Option<PathBuf> {
        choose(mountinfo::parse(mountinfo.as_bytes()), |_| false)
    }

    #[test]
    fn a_unified_host_has_it_at_the_usual_path() {
        let mountinfo = "\
            24 1 0:22 / /sys rw,nosuid shared:6 - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(chosen(mountinfo), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_hybrid_host_has_it_next_to_the_old_controllers() {
        let mountinfo = "\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu\n";
        assert_eq!(chosen(mountinfo), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_legacy_host_has_none() {
        let mountinfo = "32 30 0:28 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu\n";
        assert_eq!(chosen(mountinfo), None);
        assert_eq!(chosen(""), None);
    }

    #[test]
    fn a_path_with_a_space_is_unescaped() {
        let mountinfo = "31 30 0:27 / /mnt/cgroup\\040two rw - cgroup2 none rw\n";
        assert_eq!(chosen(mountinfo), Some("/mnt/cgroup two".into()));
    }

    #[test]
    fn the_whole_hierarchy_takes_precedence_over_a_part_of_it() {
        let mountinfo = "\
            31 30 0:27 /kubepods /mnt/part rw - cgroup2 none rw\n\
            32 30 0:27 / /run/cgroup rw - cgroup2 none rw\n";
        assert_eq!(chosen(mountinfo), Some("/run/cgroup".into()));
    }

    #[test]
    fn the_true_root_takes_precedence_over_an_apparent_one() {
        let mountinfo = b"\
            31 30 0:27 / /sys/fs/cgroup rw - cgroup2 none rw\n\
            32 30 0:27 /../../.. /host/cgroup ro - cgroup2 none rw\n\
            33 30 0:27 /kubepods /mnt/part rw - cgroup2 none rw\n";
        let chosen = choose(mountinfo::parse(mountinfo), |path| {
            path == Path::new("/host/cgroup")
        });
        assert_eq!(chosen, Some("/host/cgroup".into()));
    }

    #[test]
    fn the_remedy_for_a_namespace_names_both_ways_out_and_how_to_watch_it_alone() {
        let remedy = CgroupError::NamespaceRoot("/sys/fs/cgroup".into()).remedy();
        for way in [
            "--cgroup /host/cgroup",
            "--cgroupns=host",
            "--cgroup /sys/fs/cgroup",
        ] {
            assert!(remedy.contains(way), "{remedy}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = usable_cgroup2(Some(Path::new("/proc"))).unwrap_err();
        assert!(matches!(error, CgroupError::NotCgroup2(_)), "{error}");
        let error = usable_cgroup2(Some(Path::new("/no/such/cgroup"))).unwrap_err();
        assert!(matches!(error, CgroupError::Unreadable { .. }), "{error}");
    }
}
