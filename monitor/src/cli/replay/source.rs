//! The source of a recording: reports progress, and ends at the user's interrupt.

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use super::interrupt::Interrupt;

/// Progress is shown only for reads that take longer.
const FIRST: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct CaptureSource {
    bytes: Box<dyn Read>,
    interrupt: Interrupt,
    progress: Option<ReadProgress>,
}

/// The progress shown on stderr.
#[derive(Debug)]
pub(super) struct ReadProgress {
    doing: &'static str,
    /// Bytes; `None` if unknown.
    size: Option<u64>,
    read: u64,
    next: Instant,
    written: bool,
}

impl CaptureSource {
    pub(super) fn new(
        bytes: Box<dyn Read>,
        interrupt: Interrupt,
        progress: Option<ReadProgress>,
    ) -> Self {
        Self {
            bytes,
            interrupt,
            progress,
        }
    }
}

impl Read for CaptureSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_raised() {
            return Ok(0);
        }
        let read = self.bytes.read(buffer)?;
        if let Some(progress) = &mut self.progress {
            progress.add(read);
        }
        Ok(read)
    }
}

impl ReadProgress {
    pub(super) fn new(doing: &'static str, size: Option<u64>) -> Self {
        Self {
            doing,
            size,
            read: 0,
            next: Instant::now() + FIRST,
            written: false,
        }
    }

    fn add(&mut self, read: usize) {
        self.read += read as u64;
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            self.show();
        }
    }

    fn show(&mut self) {
        let mebibytes = self.read >> 20;
        let mut stderr = io::stderr().lock();
        // A failure to show progress does not matter.
        let _ = match self.size.filter(|size| *size > 0) {
            Some(size) => write!(
                stderr,
                "\r{}: {mebibytes} of {} MiB, {} %\x1b[K",
                self.doing,
                size >> 20,
                (u128::from(self.read) * 100 / u128::from(size)).min(100)
            ),
            None => write!(stderr, "\r{}: {mebibytes} MiB\x1b[K", self.doing),
        };
        let _ = stderr.flush();
        self.written = true;
    }
}

impl Drop for ReadProgress {
    fn drop(&mut self) {
        if self.written {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}
