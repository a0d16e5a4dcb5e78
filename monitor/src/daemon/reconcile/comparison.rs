//! Compares the core's table with the published snapshots after records were lost.

use super::SLICE;
use crate::kernel::{
    bpf::{
        maps::{SnapshotEntry, SnapshotError, Snapshots},
        snapshot_pages::Pages,
    },
    clock,
};
use monitor_core::{ConnId, Correlator, Event, Facts};

/// A running comparison. First it reads the snapshots, for connections unknown to the core, then the
/// core's list as of the beginning, for connections without a snapshot. The rings report what opens or
/// closes meanwhile.
#[derive(Debug)]
pub(super) struct Comparison {
    /// `None` when all snapshots were read.
    unread: Option<Pages>,
    known: Vec<ConnId>,
}

impl Comparison {
    pub(super) fn begin(core: &Correlator) -> Self {
        Self {
            unread: Some(Pages::new(SLICE)),
            known: core.conns(),
        }
    }

    /// Compares a slice; returns whether it was the last one.
    pub(super) fn step(&mut self, snapshots: &Snapshots, core: &mut Correlator) -> bool {
        let Some(pages) = &mut self.unread else {
            self.check_known(|conn| snapshots.get(conn), core);
            return self.known.is_empty();
        };
        match snapshots.next_page(pages) {
            Ok((page, last)) => {
                add_unknown(page, core);
                if last {
                    self.unread = None;
                }
            }
            Err(error) => {
                log::error!(
                    "connections with lost records are tracked from their next record: {error}"
                );
                self.unread = None;
            }
        }
        false
    }

    /// Checks whether the kernel still has a slice of the core's connections.
    fn check_known(
        &mut self,
        get: impl Fn(ConnId) -> Result<Option<Facts>, SnapshotError>,
        core: &mut Correlator,
    ) {
        let slice = self.known.len().saturating_sub(SLICE);
        for conn in self.known.split_off(slice) {
            match get(conn) {
                Ok(Some(facts)) => core.handle_snapshot(conn, Some(Box::new(facts))),
                Ok(None) => {
                    let at = clock::now();
                    core.handle_event(Event::Gone { conn, at });
                }
                Err(error) => warn(conn, &error),
            }
        }
    }
}

fn add_unknown(page: Vec<SnapshotEntry>, core: &mut Correlator) {
    for (conn, facts) in page {
        match facts {
            Ok(facts) if !core.knows(conn) => core.handle_event(Event::Seeded(Box::new(facts))),
            Ok(_) => {}
            Err(error) => warn(conn, &error),
        }
    }
}

fn warn(conn: ConnId, error: &SnapshotError) {
    log::warn!("socket {}: {error}", conn.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::reconcile::tests::{empty_core, facts, seeded};
    use monitor_core::{Action, CloseHow, State};

    /// The connections whose end was reported, in order.
    fn ended(core: &mut Correlator) -> Vec<u64> {
        let actions = std::iter::from_fn(|| core.poll_action());
        let ended = actions.filter_map(|action| match action {
            Action::Transition(t) if t.to == State::Closed => Some(t.conn.0),
            _ => None,
        });
        ended.collect()
    }

    #[test]
    fn connections_that_end_or_open_between_slices_are_reported_once_or_left_alone() {
        let all = SLICE as u64 + 3;
        let mut core = empty_core();
        for conn in 0..all {
            core.handle_event(seeded(conn));
        }
        let mut comparison = Comparison::begin(&core);
        comparison.known.sort_unstable();
        // The last ones come first: one of them is gone, and its end was not reported.
        let lost = all - 1;
        let get = |conn: ConnId| Ok((conn.0 != lost).then(|| facts(conn.0)));
        comparison.check_known(get, &mut core);
        assert_eq!(ended(&mut core), [lost]);
        assert_eq!(comparison.known.len(), 3);

        let closed = Event::Closed {
            facts: Box::new(facts(1)),
            how: CloseHow::Fin,
        };
        core.handle_event(closed);
        core.handle_event(seeded(all));
        let get = |conn: ConnId| Ok((conn.0 == 0).then(|| facts(conn.0)));
        comparison.check_known(get, &mut core);
        assert_eq!(ended(&mut core), [1, 2], "the first by its record");
        assert!(comparison.known.is_empty());
        assert!(core.knows(ConnId(all)), "opened after the beginning");
        assert!(core.knows(ConnId(0)));
        assert_eq!(core.len(), SLICE + 1);
    }

    #[test]
    fn a_connection_unknown_to_the_core_is_added_once() {
        let mut core = empty_core();
        core.handle_event(seeded(1));
        let page = || [1, 2].map(|conn| (ConnId(conn), Ok(facts(conn)))).into();
        add_unknown(page(), &mut core);
        add_unknown(page(), &mut core);
        assert_eq!(core.len(), 2);
        assert!(
            !core.wants_inspection(),
            "a known connection is inspected later"
        );
    }
}
