//! Ctrl-C ends the reading; what was read so far is still judged and summarized.

use std::{
    io,
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// The exit code a shell reports for a process ended by SIGINT.
const ENDED_BY_SIGINT: i32 = 130;

/// Set by the first SIGINT. The second one ends the process.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles SIGINT from here on.
    pub(super) fn watch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let mut interrupts = {
            let _context = runtime.enter();
            signal(SignalKind::interrupt())?
        };
        let raised = Arc::new(AtomicBool::new(false));
        let raise = Arc::clone(&raised);
        thread::Builder::new()
            .name("interrupt".into())
            .spawn(move || {
                runtime.block_on(async {
                    interrupts.recv().await;
                    raise.store(true, Ordering::Relaxed);
                    interrupts.recv().await;
                    exit(ENDED_BY_SIGINT);
                })
            })?;
        Ok(Self(raised))
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
