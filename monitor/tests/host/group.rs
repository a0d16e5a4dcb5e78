//! Cgroups for tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use monitor::kernel::host::cgroup::find_cgroup2;

/// A cgroup below the root. Dropping it removes the cgroup and the programs attached to it.
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    pub(crate) fn new() -> Self {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        let root = find_cgroup2().expect("a cgroup v2 hierarchy");
        Self::at(root.join(format!("wsmon-test-{}-{taken}", process::id())))
    }

    /// Must be dropped before its parent.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("needs root, and a writable cgroup v2 hierarchy");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn as_str(&self) -> &str {
        self.path.to_str().expect("a path of these tests")
    }

    /// A shell line that moves the shell into this cgroup.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > '{}/cgroup.procs'", self.path.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has just ended stays in it for a moment.
        let removed = lab::wait_until("the cgroup to be empty", Duration::from_secs(10), || {
            fs::remove_dir(&self.path).is_ok()
        });
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error}", self.path.display());
        }
    }
}
