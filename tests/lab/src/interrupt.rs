//! Termination signals as a flag that the program polls.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::LabError;

/// What a shell reports for a program ended by SIGINT.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Turns SIGINT, SIGTERM and SIGHUP into a flag, so that everything is dropped in order.
#[derive(Debug)]
pub struct Interrupt {
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on, these signals no longer end the process.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn watch() -> Result<Self, LabError> {
        Self::try_watch().map_err(LabError::io("wait for signals"))
    }

    fn try_watch() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(context);

        let came = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&came);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self { came })
    }

    /// Whether one of the signals has come.
    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}
