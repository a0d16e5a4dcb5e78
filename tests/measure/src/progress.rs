//! A progress line for long measurements, on stderr: stdout is for the results.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::Interrupt;

/// Response time to Ctrl-C.
const TICK: Duration = Duration::from_millis(20);

/// Interval of lines in a file or a pipe. On a terminal, where each line is overwritten, they are
/// more frequent.
const LINE_INTERVAL: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Progress<'a> {
    interrupt: &'a Interrupt,
    terminal: bool,
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(interrupt: &'a Interrupt) -> Self {
        Self {
            interrupt,
            terminal: io::stderr().is_terminal(),
            shown: None,
        }
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        self.write(&format!("{text}\n"));
    }

    /// The current step; the next line replaces it.
    pub(crate) fn at(&mut self, text: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[K{text}"));
        } else if self.shown.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            self.shown = Some(Instant::now());
            self.write(&format!("{text}\n"));
        }
    }

    /// Ends a line that would be overwritten.
    pub(crate) fn clear(&mut self) {
        if self.terminal {
            self.write("\r\x1b[K");
        }
    }

    /// Waits.
    ///
    /// # Errors
    /// If interrupted.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// # Errors
    /// If interrupted.
    pub(crate) fn check(&self) -> Result<()> {
        if self.interrupt.came() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Ignores a failed write, so that processes are cleaned up even if the terminal is closed.
    fn write(&mut self, text: &str) {
        let mut out = io::stderr();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
