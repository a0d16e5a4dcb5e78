//! Reads the rings and reports their records in order.

use super::Daemon;
use crate::decode::{self, DecodeError};
use monitor_core::{Closed, Event};

/// Maximum number of vitals held in memory while handshakes are drained.
const VITALS_AT_ONCE: usize = 1024;

/// A drain of more records than this suggests that the ring was full.
const BIG_DRAIN: usize = 4096;

/// A decoded record of the vitals ring, and the final figures of a connection if it holds them.
pub(super) type Vital = (Result<Event, DecodeError>, Option<Box<Closed>>);

impl Daemon {
    /// Empties both rings. An invalid record is counted and never stops the loop.
    pub(super) fn drain(&mut self) {
        let mut records = 0;
        loop {
            // Vitals are read before the handshakes and reported after them, so that the end of a
            // handshake is never reported before its beginning.
            self.read_vitals();
            self.drain_handshakes();
            if self.waiting.is_empty() {
                break;
            }
            records += self.waiting.len();
            let mut waiting = std::mem::take(&mut self.waiting);
            for (event, closed) in waiting.drain(..) {
                if let Some(closed) = closed {
                    self.remember(*closed);
                }
                self.handle_vital(event);
            }
            self.waiting = waiting;
        }
        if records >= BIG_DRAIN {
            self.notice_losses();
        }
    }

    fn read_vitals(&mut self) {
        let ring = self.vitals.get_mut();
        let read = std::iter::from_fn(|| {
            ring.next(|record| (decode::vital(record), decode::closed(record)))
        });
        self.waiting.extend(read.take(VITALS_AT_ONCE));
    }

    fn drain_handshakes(&mut self) {
        let ring = self.handshakes.get_mut();
        while let Some(event) = ring.next(decode::handshake) {
            match event {
                Ok(event) => self.core.handle_event(event),
                Err(error) => {
                    self.undecodable_handshakes += 1;
                    log::warn!("invalid record in the handshakes ring: {error}");
                }
            }
        }
    }

    fn handle_vital(&mut self, event: Result<Event, DecodeError>) {
        match event {
            Ok(event) => {
                // The kernel removed the snapshot too, unless it was seeded a moment ago.
                if let Some(conn) = event.ends()
                    && let Err(error) = self.reconciler.forget(conn, &mut self.snapshots)
                {
                    log::warn!("socket {}: {error}", conn.0);
                }
                self.core.handle_event(event);
            }
            Err(error) => {
                self.undecodable += 1;
                log::warn!("invalid record in the vitals ring: {error}");
            }
        }
    }
}
