//! A log of lines on stderr or in a file: the alert log and the access log.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use super::DrainDeadline;

/// What becomes one line.
pub trait Line: Send + 'static {
    /// The line without its newline. Called on the log's thread.
    fn into_line(self) -> serde_json::Result<String>;
}

impl Line for String {
    fn into_line(self) -> serde_json::Result<String> {
        Ok(self)
    }
}

/// The destination of the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stderr,
    File(PathBuf),
}

impl LogTarget {
    /// `-` is stderr.
    pub fn parse(text: &str) -> Self {
        match text {
            "-" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        match self {
            Self::Stderr => Path::new("-"),
            Self::File(path) => path,
        }
    }
}

/// For people: `stderr`, or the file.
impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Lines that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostLines {
    /// Dropped because of a slow reader.
    pub full: u64,
    /// They could not be written.
    pub unwritten: u64,
    /// They could not be serialized.
    pub unencodable: u64,
}

impl LostLines {
    pub fn total(self) -> u64 {
        self.full + self.unwritten + self.unencodable
    }
}

/// Writes lines on its own thread.
#[derive(Debug)]
pub struct LineLog<L = String> {
    /// In messages.
    name: &'static str,
    queue: Option<SyncSender<LogCommand<L>>>,
    shared: Arc<SharedLog>,
    full: u64,
    drain_deadline: DrainDeadline,
}

/// State shared by both threads.
#[derive(Debug, Default)]
struct SharedLog {
    /// Separate from the queue, which may have no room for another command.
    reopen: AtomicBool,
    unwritten: AtomicU64,
    unencodable: AtomicU64,
}

#[derive(Debug)]
enum LogCommand<L> {
    Line(L),
    /// Check the flags.
    Wake,
}

impl<L: Line> LineLog<L> {
    /// Opens the target. A file is appended to. Up to `capacity` lines may wait for a slow reader. Further
    /// lines are dropped and counted, because a stuck pipe must not block the daemon.
    pub fn open(name: &'static str, target: &LogTarget, capacity: usize) -> io::Result<Self> {
        let out = Out::open(target)?;
        let (queue, orders) = sync_channel(capacity);
        let (ended, drain_deadline) = DrainDeadline::pair();
        let shared = Arc::new(SharedLog::default());
        let writer = Writer {
            name,
            out,
            shared: shared.clone(),
        };
        std::thread::Builder::new()
            .name(name.replace(' ', "-"))
            .spawn(move || {
                writer.run(&orders);
                drop(ended);
            })?;
        Ok(Self {
            name,
            queue: Some(queue),
            shared,
            full: 0,
            drain_deadline,
        })
    }

    /// Queues one line.
    pub fn write(&mut self, line: L) {
        let queue = self.queue.as_ref();
        if queue.is_none_or(|queue| queue.try_send(LogCommand::Line(line)).is_err()) {
            self.full += 1;
        }
    }

    /// Reopens the file by its name after another program has moved it away. Waiting lines go to the
    /// new file. If opening fails, the old one is kept.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        if let Some(queue) = &self.queue {
            // If there is no room, the writer is busy and sees the flag before its next line.
            drop(queue.try_send(LogCommand::Wake));
        }
    }

    pub fn lost(&self) -> LostLines {
        LostLines {
            full: self.full,
            unwritten: self.shared.unwritten.load(Ordering::Relaxed),
            unencodable: self.shared.unencodable.load(Ordering::Relaxed),
        }
    }
}

impl<L> LineLog<L> {
    /// Accepts no more lines; waiting ones have [`DrainDeadline`]'s time to be written.
    pub(crate) fn close(&mut self) {
        self.queue = None;
        self.drain_deadline.begin();
    }
}

impl<L> Drop for LineLog<L> {
    fn drop(&mut self) {
        // The writer ends after it has written the whole queue. A stuck reader must not keep the
        // daemon, and so the programs, from ending.
        self.close();
        if !self.drain_deadline.wait() {
            let name = self.name;
            log::warn!("the {name} is not being read; its last lines are lost");
        }
    }
}

enum Out {
    Stderr(io::Stderr),
    File(File, PathBuf),
}

impl Out {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stderr => Ok(Self::Stderr(io::stderr())),
            LogTarget::File(path) => Ok(Self::File(append_to(path)?, path.clone())),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct Writer {
    name: &'static str,
    out: Out,
    shared: Arc<SharedLog>,
}

impl Writer {
    fn run<L: Line>(mut self, orders: &Receiver<LogCommand<L>>) {
        for order in orders {
            if self.shared.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            if let LogCommand::Line(line) = order {
                self.write(line);
            }
        }
    }

    fn write(&mut self, line: impl Line) {
        let name = self.name;
        let mut line = match line.into_line() {
            Ok(line) => line,
            Err(error) => {
                log::error!("a line of the {name} can't be written as JSON: {error}");
                self.shared.unencodable.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        line.push('\n');
        let written = match &mut self.out {
            Out::Stderr(stderr) => stderr.write_all(line.as_bytes()),
            Out::File(file, _) => file.write_all(line.as_bytes()),
        };
        if let Err(error) = written {
            log::error!("cannot write to the {name}: {error}");
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reopen(&mut self) {
        let Out::File(file, path) = &mut self.out else {
            return;
        };
        match append_to(path) {
            Ok(new) => *file = new,
            Err(error) => log::error!(
                "cannot reopen the {} {}: {error}; lines still go to the old file",
                self.name,
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsRawFd, sync::mpsc::RecvTimeoutError, time::Duration};

    use super::*;
    use crate::logs::DRAIN_LIMIT;

    const QUEUE: usize = 4096;

    fn open(target: &LogTarget) -> io::Result<LineLog> {
        LineLog::open("test log", target, QUEUE)
    }

    #[test]
    fn a_stuck_reader_loses_lines_and_does_not_block_the_daemon() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let mut log = open(&LogTarget::File(path.into())).expect("a writable pipe");
        // The queue, the line being written, and the pipe's buffer.
        let line = "x".repeat(1 << 16);
        let lines = QUEUE as u64 + 1_000;
        for _ in 0..lines {
            log.write(line.clone());
        }
        assert!(
            (998..=1_000).contains(&log.lost().full),
            "{}",
            log.lost().full
        );
        let (ended, dropped) = sync_channel::<()>(0);
        std::thread::spawn(move || {
            drop(log);
            drop(ended);
        });
        assert_eq!(
            dropped.recv_timeout(DRAIN_LIMIT * 10),
            Err(RecvTimeoutError::Disconnected)
        );
        drop(reader);
    }

    #[test]
    fn a_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = LogTarget::parse(dir.path().to_str().expect("UTF-8"));
        assert!(open(&target).is_err());
    }

    #[test]
    fn a_file_that_was_moved_away_is_replaced_and_no_line_is_lost_or_split() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, old) = (dir.path().join("alerts"), dir.path().join("alerts.1"));
        let mut log = open(&LogTarget::File(path.clone())).expect("a writable file");
        for n in 0..1_000 {
            if n == 500 {
                fs::rename(&path, &old).expect("moved away");
                log.reopen();
            }
            log.write(format!("line {n}"));
        }
        assert_eq!(log.lost(), LostLines::default());
        drop(log);
        let read = |path| fs::read_to_string(path).expect("a file");
        let (before, after) = (read(&old), read(&path));
        let expected: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(before.clone() + &after, expected);
        assert!(after.ends_with("line 999\n"), "{after}");
    }

    #[test]
    fn an_idle_log_reopens_without_waiting_for_a_line() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("alerts");
        let log = open(&LogTarget::File(path.clone())).expect("a writable file");
        fs::remove_file(&path).expect("taken away");
        log.reopen();
        lab::wait_until("the new file", Duration::from_secs(10), || path.exists()).expect("made");
    }

    #[test]
    fn the_old_file_is_kept_if_a_new_one_cannot_be_created() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, old) = (dir.path().join("alerts"), dir.path().join("alerts.1"));
        let mut log = open(&LogTarget::File(path.clone())).expect("a writable file");
        fs::rename(&path, &old).expect("moved away");
        fs::create_dir(&path).expect("something in its place");
        log.reopen();
        log.write("a line".into());
        drop(log);
        assert_eq!(fs::read_to_string(&old).expect("the old file"), "a line\n");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        let full = LogTarget::File("/dev/full".into());
        let mut log = open(&full).expect("opens");
        log.write("a line".into());
        let counted = || log.lost().unwritten == 1;
        lab::wait_until("the loss", Duration::from_secs(10), counted).expect("counted");
    }
}
