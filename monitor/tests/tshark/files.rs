//! The contents of `testdata/recordings`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::frames::{Line, Streams};

pub(crate) struct Recording {
    pub(crate) path: PathBuf,
}

impl Recording {
    /// Sorted by name.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<_> = fs::read_dir(folder())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "pcap" || extension == "pcapng")
            })
            .map(|path| Self { path })
            .collect();
        all.sort_by_key(Self::name);
        all
    }

    pub(crate) fn named(name: &str) -> Self {
        let path = folder().join(name);
        assert!(path.is_file(), "{name} is not in testdata/recordings");
        Self { path }
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into()
    }

    /// Whether it has no upgrade, so that the port's protocol must be specified.
    pub(crate) fn starts_in_mid_stream(&self) -> bool {
        self.name().starts_with("mid-")
    }

    /// Whether its last packet is truncated, which every reader reports.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.name() == "file-cut-short.pcap"
    }

    /// The frames that were put into it; `None` for the recording of a real connection.
    pub(crate) fn truth(&self) -> Option<Streams> {
        let list = fs::read_to_string(self.path.with_extension("json")).ok()?;
        let lines: Vec<Line> = serde_json::from_str(&list).unwrap();
        Some(lines.into_iter().collect())
    }
}

/// The first column of the tables in the recordings' README.
pub(crate) fn explained() -> Vec<String> {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let mut names: Vec<_> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    names.sort();
    names
}

/// Calls `look` with each recording, on all CPUs.
pub(crate) fn in_parallel<T: Send>(
    recordings: &[Recording],
    look: impl Fn(&Recording) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(recording) = recordings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = look(recording);
                    seen.lock().unwrap().push(result);
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/recordings")
}
