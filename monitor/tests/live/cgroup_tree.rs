//! Cgroups of tests.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use lab::wait_for;

use crate::stage::SOON;

/// A cgroup with all above it up to one that no other test has; dropping it deletes them, once they are
/// empty.
pub(crate) struct CgroupTree {
    root: PathBuf,
    /// Below the root, outermost first.
    names: Vec<String>,
}

impl CgroupTree {
    /// Creates it, by its path below that one.
    pub(crate) fn new(path: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let outermost = format!("wsmon-live-{}-{number}", process::id());
        let names = [&*outermost].into_iter().chain(path.split('/'));
        let tree = Self {
            root: mount(),
            names: names.map(str::to_owned).collect(),
        };
        fs::create_dir_all(tree.leaf()).unwrap();
        tree
    }

    /// Its directory.
    pub(crate) fn leaf(&self) -> PathBuf {
        self.root.join(self.names.join("/"))
    }

    /// As wsmon reports it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.names.join("/"))
    }
}

impl Drop for CgroupTree {
    fn drop(&mut self) {
        let mut directory = self.leaf();
        while directory != self.root {
            // A process that was in it may take a moment to leave.
            let removed = wait_for("a cgroup to be empty", SOON, || {
                fs::remove_dir(&directory).ok()
            });
            if removed.is_err() {
                assert!(thread::panicking(), "{} is not empty", directory.display());
                return;
            }
            directory.pop();
        }
    }
}

/// Where the cgroup v2 hierarchy is mounted.
fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mut cgroup2 = fields.filter(|fields| fields[2] == "cgroup2");
    cgroup2.next().expect("a cgroup v2 hierarchy")[1].into()
}
