//! Where the cgroup v2 hierarchy is mounted: the programs attach at its root.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, fstatfs, open};

use super::mountinfo::{self, Mount};

/// `CGROUP2_SUPER_MAGIC` in `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mountinfo(#[source] io::Error),
    #[error("no cgroup v2 hierarchy is mounted here; mount one and name it with --cgroup")]
    NotMounted,
    #[error("cannot open cgroup {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not on a cgroup v2 file system; name a cgroup v2 directory with --cgroup", .0.display())]
    NotCgroup2(PathBuf),
}

/// The root of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid
/// host, or wherever else it is mounted. Inside a cgroup namespace it is that namespace's root.
pub fn find_cgroup2() -> Result<PathBuf, CgroupError> {
    let mounts = mountinfo::read().map_err(CgroupError::Mountinfo)?;
    choose(mounts).ok_or(CgroupError::NotMounted)
}

/// `wanted`, or else the root of the hierarchy, once it is known to be a readable cgroup v2
/// directory.
pub fn usable_cgroup2(wanted: Option<&Path>) -> Result<PathBuf, CgroupError> {
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
    let filesystem = fstatfs(&directory).map_err(unreadable)?;
    // f_type is signed or unsigned and of different width by architecture; the magic fits all.
    if filesystem.f_type as u64 != CGROUP2_SUPER_MAGIC {
        return Err(CgroupError::NotCgroup2(path));
    }
    Ok(path)
}

/// A mount of the whole hierarchy wins over a bind mount of a part of it.
fn choose(mounts: impl IntoIterator<Item = Mount>) -> Option<PathBuf> {
    let (whole, part): (Vec<_>, Vec<_>) = mounts
        .into_iter()
        .filter(|mount| mount.filesystem == "cgroup2")
        .partition(|mount| mount.root == "/");
    whole
        .into_iter()
        .chain(part)
        .next()
        .map(|mount| mount.mount_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(mountinfo: &str) -> Option<PathBuf> {
        choose(mountinfo::parse(mountinfo.as_bytes()))
    }

    #[test]
    fn a_unified_host_has_it_at_the_usual_place() {
        let mountinfo = "\
            24 1 0:22 / /sys rw,nosuid shared:6 - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(chosen(mountinfo), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_hybrid_host_has_it_beside_the_old_controllers() {
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
    fn the_whole_hierarchy_wins_over_a_part_of_it() {
        let mountinfo = "\
            31 30 0:27 /kubepods /mnt/part rw - cgroup2 none rw\n\
            32 30 0:27 / /run/cgroup rw - cgroup2 none rw\n";
        assert_eq!(chosen(mountinfo), Some("/run/cgroup".into()));
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = usable_cgroup2(Some(Path::new("/proc"))).unwrap_err();
        assert!(matches!(error, CgroupError::NotCgroup2(_)), "{error}");
        let error = usable_cgroup2(Some(Path::new("/no/such/cgroup"))).unwrap_err();
        assert!(matches!(error, CgroupError::Unreadable { .. }), "{error}");
    }
}
