use std::{
    io,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{LabError, wait_for};

/// A running program that is killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` with its configured streams.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self, LabError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .map_err(LabError::io(format!("start `{name}`")))?;
        Ok(Self { child, name })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipes, as in [`std::process::Child`].
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status, if the process has ended.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel does not report it.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child
            .try_wait()
            .map_err(LabError::io(format!("wait for `{}`", self.name)))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] if it still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        self.signal(Signal::TERM)?;
        let what = format!("`{}` to end after SIGTERM", self.name);
        wait_for(&what, limit, || self.try_wait().transpose())?
    }

    /// Ends the process with SIGKILL and waits for it.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, LabError> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(LabError::io(format!("kill `{}`", self.name)))
    }

    /// Sends a signal, unless the process has ended.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        // The pid of a child that was already waited for may be reused: never signal it.
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(io::Error::from)
            .map_err(LabError::io(format!("signal `{}`", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, path::Path};

    #[test]
    fn dropping_a_process_kills_it() {
        let process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        let entry = format!("/proc/{}", process.id());
        assert!(Path::new(&entry).exists());
        drop(process);
        assert!(!Path::new(&entry).exists());
    }

    #[test]
    fn termination_gives_the_exit_status() {
        let mut process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        let status = process.terminate(Duration::from_secs(5)).unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
        assert_eq!(process.terminate(Duration::from_secs(5)).unwrap(), status);
    }
}
