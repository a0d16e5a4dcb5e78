//! The signals that end a command.

use std::{future::poll_fn, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;

/// Signals that are handled from its creation on.
pub(super) struct StopSignals(Vec<Signal>);

impl StopSignals {
    /// # Errors
    /// If a signal cannot be handled.
    pub(super) fn new(kinds: &[SignalKind]) -> Result<Self, Failure> {
        let signals = kinds.iter().map(|kind| listen(*kind));
        signals.collect::<Result<_, _>>().map(Self)
    }

    /// Waits for the first of them.
    pub(super) async fn wait(&mut self) {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            match signals.any(|signal| signal.poll_recv(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Handles a signal.
pub(super) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
}
