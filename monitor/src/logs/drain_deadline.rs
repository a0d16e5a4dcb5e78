//! The end of a thread that writes or sends: it gets a limited time to drain its queue.

use std::{
    convert::Infallible,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

/// Time that a slow reader has for the last items.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The wait for a thread that has to end.
#[derive(Debug)]
pub(crate) struct DrainDeadline {
    /// Disconnected when the thread has ended.
    ended: Receiver<Infallible>,
    until: Option<Instant>,
}

impl DrainDeadline {
    /// The thread drops the first of the two when it ends.
    pub(crate) fn pair() -> (Sender<Infallible>, Self) {
        let (thread, ended) = channel();
        (thread, Self { ended, until: None })
    }

    /// Starts the clock. The waits for several threads may run in parallel.
    pub(crate) fn begin(&mut self) {
        self.until
            .get_or_insert_with(|| Instant::now() + DRAIN_LIMIT);
    }

    /// Waits for the remaining time; `false` if the thread did not end in it.
    pub(crate) fn wait(&mut self) -> bool {
        self.begin();
        let left = self.until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}
