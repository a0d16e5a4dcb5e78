use std::{
    fs::File,
    future::Future,
    io,
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

use crate::{LabError, command};

/// A network namespace made with `ip netns add`, removed when the value is dropped by the process that
/// made it.
///
/// The calling thread never enters it. Blocking work runs on a new thread ([`run`](Self::run)),
/// asynchronous work on one shared thread that lives as long as the namespace
/// ([`spawn`](Self::spawn)), and programs by `ip netns exec` ([`command`](Self::command)).
#[derive(Debug)]
pub struct Namespace {
    name: String,
    is_ours: bool,
    runtime: Mutex<Option<RuntimeThread>>,
}

impl Namespace {
    pub(crate) fn add(name: String) -> Result<Self, LabError> {
        let mut ip = command::command("ip");
        ip.args(["netns", "add", &name]);
        command::run(ip, "")?;
        Ok(Self {
            name,
            is_ours: true,
            runtime: Mutex::new(None),
        })
    }

    /// The namespace of this name, which another process made and will remove.
    pub fn existing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_ours: false,
            runtime: Mutex::new(None),
        }
    }

    /// The name used by `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` to its end on a new thread inside the namespace.
    ///
    /// # Errors
    /// [`LabError::Io`] if the namespace cannot be entered.
    ///
    /// # Panics
    /// If `job` panics.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                enter(&self.name)?;
                Ok(job())
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `task` on the namespace's runtime: every socket it creates is inside.
    ///
    /// # Errors
    /// [`LabError::Io`] if the runtime cannot be started.
    pub fn spawn<F>(&self, task: F) -> Result<JoinHandle<F::Output>, LabError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Ok(self.handle()?.spawn(task))
    }

    /// Runs `task` on the namespace's runtime and waits for its result.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`LabError::TaskLost`] if `task` panics.
    pub fn block_on<F>(&self, task: F) -> Result<F::Output, LabError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(async move {
            // The receiver waits below as long as this task lives.
            let _ = sender.send(task.await);
        })?;
        receiver.recv().map_err(|_| LabError::TaskLost)
    }

    /// A command that runs `program` inside the namespace; see [`Process`](crate::Process).
    pub fn command(&self, program: &str) -> Command {
        let mut command = command::command("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn handle(&self) -> Result<Handle, LabError> {
        let mut slot = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(runtime) => Ok(runtime.handle.clone()),
            None => {
                let runtime = RuntimeThread::start(self.name.clone())?;
                let handle = runtime.handle.clone();
                *slot = Some(runtime);
                Ok(handle)
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Sockets first, then the namespace: a live socket would keep it in the kernel.
        *self
            .runtime
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if self.is_ours {
            remove(&self.name);
        }
    }
}

/// Removes the namespace called `name`; prints a failure to stderr, unless another lab has already
/// removed it.
pub(crate) fn remove(name: &str) {
    let mut ip = command::command("ip");
    ip.args(["netns", "delete", name]);
    if let Err(error) = command::run(ip, "")
        && Path::new("/run/netns").join(name).exists()
    {
        eprintln!("lab: {error}");
    }
}

/// A thread inside the namespace that drives a runtime until it is dropped.
#[derive(Debug)]
struct RuntimeThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RuntimeThread {
    fn start(namespace: String) -> Result<Self, LabError> {
        let (started, outcome) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = enter(&namespace).and_then(|()| {
                Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(LabError::io("start a tokio runtime"))
            });
            match runtime {
                Ok(runtime) => {
                    // `start` waits for this message first.
                    let _ = started.send(Ok(runtime.handle().clone()));
                    // Ends when `stop` is dropped; the tasks and their sockets end with it.
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        });
        let handle = outcome.recv().map_err(|_| LabError::TaskLost)??;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was already printed, and every waiting caller got `TaskLost`.
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into the namespace called `name`.
fn enter(name: &str) -> Result<(), LabError> {
    let path = format!("/run/netns/{name}");
    File::open(&path)
        .and_then(|file| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
        })
        .map_err(LabError::io(format!("enter the namespace {path}")))
}
