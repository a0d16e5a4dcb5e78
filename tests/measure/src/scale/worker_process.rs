//! A process that holds sockets and is driven by lines: commands to its standard input, answers from its
//! standard output.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use lab::Process;
use rustix::process::Signal;

/// Ends when the value is dropped.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Process,
}

/// The path of this program, which is also that of the workers.
pub(super) fn this_program() -> Result<PathBuf> {
    env::current_exe().context("cannot find this program")
}

impl WorkerProcess {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let child = process.child_mut();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            input: input.context("a worker without input")?,
            output: BufReader::new(output.context("a worker without output")?),
            process,
        })
    }

    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("a worker has ended")
    }

    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a worker has ended");
        }
        Ok(line.trim_end().to_owned())
    }

    pub(super) fn expect(&mut self, line: &str) -> Result<()> {
        let said = self.line()?;
        if said != line {
            bail!("a worker answered `{said}` instead of `{line}`");
        }
        Ok(())
    }

    /// Notifies all of them first, because each takes a while to close its sockets, and then waits for
    /// each. A worker that can't be notified has already ended.
    pub(super) fn end_all(workers: &mut Vec<Self>) {
        for worker in workers.iter_mut() {
            let _ = worker.process.signal(Signal::KILL);
        }
        workers.clear();
    }
}
