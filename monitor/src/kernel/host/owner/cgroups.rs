//! Finds the path of a cgroup by its number.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use rustix::io::Errno;

use super::{OwnerMisses, handle};
use crate::kernel::host::duty_cycle::{self, DutyCycle};

/// Paths that are remembered: more cgroups than a host has pods, and about 3 MB.
const MAX_REMEMBERED: usize = 16_384;

/// The paths of cgroups, relative to the root of the hierarchy.
///
/// A cgroup keeps its path for life, and its number is not reused, so a known path stays valid; for a
/// removed cgroup it is the path it had.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    /// Open while cgroups can be found by handle; otherwise they are found by a walk.
    mount: Option<fs::File>,
    remembered: HashMap<u64, Arc<Path>>,
    duty_cycle: DutyCycle,
}

impl Cgroups {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            mount: fs::File::open(root).ok(),
            remembered: HashMap::new(),
            duty_cycle: DutyCycle::default(),
        }
    }

    /// `None` for a cgroup that is gone, is not below this root, or was not reached by a walk.
    pub(super) fn path(&mut self, id: u64, misses: &mut OwnerMisses) -> Option<Arc<Path>> {
        if let Some(path) = self.remembered.get(&id) {
            return Some(path.clone());
        }
        match self.by_handle(id) {
            ByHandle::Found(path) => {
                if self.remembered.len() >= MAX_REMEMBERED {
                    self.remembered.clear();
                }
                self.remembered.insert(id, path.clone());
                Some(path)
            }
            ByHandle::Absent => None,
            ByHandle::Impossible => {
                self.mount = None;
                self.by_walk(id, misses)
            }
        }
    }

    fn by_handle(&self, id: u64) -> ByHandle {
        let Some(mount) = &self.mount else {
            return ByHandle::Impossible;
        };
        match handle::open_cgroup(mount.as_fd(), id) {
            Ok(directory) => {
                let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
                fs::read_link(link)
                    .ok()
                    // The path of a cgroup removed meanwhile ends in "(deleted)".
                    .filter(|path| fs::metadata(path).is_ok_and(|found| found.ino() == id))
                    .and_then(|path| Some(path.strip_prefix(&self.root).ok()?.into()))
                    .map_or(ByHandle::Absent, ByHandle::Found)
            }
            Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => {
                ByHandle::Absent
            }
            // No capability, or a sandbox that forbids the call.
            Err(_) => ByHandle::Impossible,
        }
    }

    /// Remembers all cgroups found, and forgets those that the walk should have found and did not.
    fn by_walk(&mut self, id: u64, misses: &mut OwnerMisses) -> Option<Arc<Path>> {
        let started = Instant::now();
        if !self.duty_cycle.is_due(started) {
            misses.walks_put_off += 1;
            return None;
        }
        let walk = walk(&self.root, id, started);
        self.duty_cycle.took(started, Instant::now());
        let before = std::mem::replace(&mut self.remembered, walk.found);
        if walk.cut {
            misses.walks_cut += 1;
            let room = MAX_REMEMBERED.saturating_sub(self.remembered.len());
            self.remembered.extend(before.into_iter().take(room));
        }
        self.remembered.get(&id).cloned()
    }
}

enum ByHandle {
    Found(Arc<Path>),
    Absent,
    Impossible,
}

#[derive(Debug, Default)]
struct CgroupWalk {
    found: HashMap<u64, Arc<Path>>,
    /// Time ran out before the end.
    cut: bool,
}

/// Walks the cgroups below `root`, those near the root first: units and pods before what is in them.
/// Always remembers `wanted` if found.
fn walk(root: &Path, wanted: u64, started: Instant) -> CgroupWalk {
    let mut walk = CgroupWalk::default();
    let mut remember = |id, path: &Path| {
        if id == wanted || walk.found.len() < MAX_REMEMBERED {
            walk.found.insert(id, path.into());
        }
    };
    if let Ok(metadata) = fs::metadata(root) {
        remember(metadata.ino(), Path::new(""));
    }
    let mut unread = VecDeque::from([PathBuf::new()]);
    while let Some(parent) = unread.pop_front() {
        // Removed meanwhile, or not readable.
        let Ok(entries) = fs::read_dir(root.join(&parent)) else {
            continue;
        };
        for entry in entries.flatten() {
            if started.elapsed() >= duty_cycle::LONGEST {
                walk.cut = true;
                return walk;
            }
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = parent.join(entry.file_name());
            remember(entry.ino(), &path);
            // Most cgroups have none below them. Their link count shows that without reading their many
            // files.
            if entry.metadata().is_ok_and(|found| found.nlink() > LEAF) {
                unread.push_back(path);
            }
        }
    }
    walk
}

/// The links to a directory without subdirectories: its name and its own `.`.
const LEAF: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        host::cgroup::find_cgroup2,
        testing::{CgroupDir, wait_for},
    };

    fn by_walk_only(root: &Path) -> Cgroups {
        Cgroups {
            mount: None,
            ..Cgroups::new(root)
        }
    }

    #[test]
    fn the_root_is_found_without_privileges() {
        let root = find_cgroup2().unwrap();
        let id = fs::metadata(&root).unwrap().ino();
        let path = by_walk_only(&root).path(id, &mut OwnerMisses::default());
        assert_eq!(path.as_deref(), Some(Path::new("")));
    }

    #[test]
    fn a_walk_right_after_another_is_postponed_and_counted() {
        let mut cgroups = by_walk_only(&find_cgroup2().unwrap());
        let mut misses = OwnerMisses::default();
        let now = Instant::now();
        cgroups
            .duty_cycle
            .took(now, now + std::time::Duration::from_secs(60));
        assert_eq!(cgroups.path(u64::MAX, &mut misses), None);
        assert_eq!(misses.walks_put_off, 1);
    }

    #[test]
    fn a_walk_without_time_is_cut_and_knows_the_root() {
        let root = find_cgroup2().unwrap();
        let id = fs::metadata(&root).unwrap().ino();
        let walk = walk(&root, id, Instant::now() - duty_cycle::LONGEST);
        assert!(walk.cut);
        assert_eq!(walk.found.len(), 1);
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn a_cgroup_is_found_by_handle_and_by_walk_alike() {
        let outer = CgroupDir::new("outer");
        let inner = outer.below("in ner\\x2d.scope");
        for mut cgroups in [Cgroups::new(&outer.root), by_walk_only(&outer.root)] {
            for directory in [&outer, &inner] {
                let mut misses = OwnerMisses::default();
                let path = cgroups.path(directory.id(), &mut misses).unwrap();
                assert_eq!(outer.root.join(path), directory.path);
                assert_eq!(misses, OwnerMisses::default());
            }
        }
        let by_handle = Cgroups::new(&outer.root).by_handle(outer.id());
        assert!(matches!(by_handle, ByHandle::Found(_)));
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn a_removed_cgroup_has_its_last_known_path_and_otherwise_none() {
        let mut seen = Cgroups::new(&find_cgroup2().unwrap());
        let mut misses = OwnerMisses::default();
        let (id, path) = {
            let directory = CgroupDir::new("short");
            let id = directory.id();
            (id, seen.path(id, &mut misses).unwrap())
        };
        assert_eq!(seen.path(id, &mut misses), Some(path));
        for mut late in [Cgroups::new(&seen.root), by_walk_only(&seen.root)] {
            assert_eq!(late.path(id, &mut misses), None);
        }
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn a_cgroup_outside_the_root_is_not_reported() {
        let (ours, theirs) = (CgroupDir::new("ours"), CgroupDir::new("theirs"));
        let mut misses = OwnerMisses::default();
        for mut cgroups in [Cgroups::new(&ours.path), by_walk_only(&ours.path)] {
            assert_eq!(cgroups.path(theirs.id(), &mut misses), None);
        }
    }

    #[test]
    #[ignore = "needs root: makes cgroups"]
    fn thousands_of_cgroups_are_found_in_one_walk_or_a_few() {
        const CGROUPS: u32 = 4_000;
        let parent = CgroupDir::new("many");
        let children: Vec<_> = (0..CGROUPS)
            .map(|number| parent.below(&format!("pod{number}.scope")))
            .collect();
        let known = |cgroups: &mut Cgroups| {
            let started = Instant::now();
            let mut misses = OwnerMisses::default();
            let found = |child: &&CgroupDir| cgroups.path(child.id(), &mut misses).is_some();
            let found = children.iter().filter(found).count();
            println!("{found} of {CGROUPS}: {:?}, {misses:?}", started.elapsed());
            (found == children.len()).then_some(())
        };
        let mut walking = by_walk_only(&parent.root);
        wait_for("all cgroups to be found", || {
            walking.remembered.clear();
            walking.duty_cycle = DutyCycle::default();
            known(&mut walking)
        });
        for child in &children {
            let path = walking
                .path(child.id(), &mut OwnerMisses::default())
                .unwrap();
            assert_eq!(parent.root.join(path), child.path);
        }
        known(&mut Cgroups::new(&parent.root)).unwrap();
    }
}
