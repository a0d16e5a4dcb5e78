//! A line that says how far a long measurement is, on stderr: stdout is for its results.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::interrupt::Interrupt;

/// How soon Ctrl-C is noticed.
const TICK: Duration = Duration::from_millis(20);

/// Into a file or a pipe a line goes less often than onto a terminal, where it is overwritten.
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

    /// What is being done right now; the next line takes its place.
    pub(crate) fn at(&mut self, text: &str) {
        if self.terminal {
            self.write(&format!("\r\x1b[K{text}"));
        } else if self.shown.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            self.shown = Some(Instant::now());
            self.write(&format!("{text}\n"));
        }
    }

    /// Ends the line that would be overwritten.
    pub(crate) fn clear(&mut self) {
        if self.terminal {
            self.write("\r\x1b[K");
        }
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When somebody interrupts.
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
    /// When somebody has interrupted.
    pub(crate) fn check(&self) -> Result<()> {
        if self.interrupt.came() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// A closed terminal is no reason to leave processes behind, so a failed write is ignored.
    fn write(&mut self, text: &str) {
        let mut out = io::stderr();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
