//! The verdicts that each connection had, for its summary.

use std::collections::HashMap;

use super::{
    alert::AlertResolution,
    facts::ConnId,
    verdict::{Certainty, VerdictKind},
};

/// Verdicts on one connection of the same kind that ended in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastVerdict {
    pub kind: VerdictKind,
    /// The highest that it reached.
    pub certainty: Certainty,
    /// `None` if it stands.
    pub resolution: Option<AlertResolution>,
    pub count: u32,
}

/// By connection, only those that had a verdict.
///
/// Equal verdicts share an entry, so a connection has at most one for each kind, certainty and resolution
/// of verdicts that it survived, and one for the verdict at its end.
#[derive(Debug, Default)]
pub(super) struct PastVerdicts(HashMap<ConnId, Vec<PastVerdict>>);

impl PastVerdicts {
    /// A verdict on the connection ended.
    pub(super) fn add(
        &mut self,
        conn: ConnId,
        kind: VerdictKind,
        certainty: Certainty,
        resolution: AlertResolution,
    ) {
        let ended = PastVerdict {
            kind,
            certainty,
            resolution: Some(resolution),
            count: 1,
        };
        let verdicts = self.0.entry(conn).or_default();
        let is_same = |known: &&mut PastVerdict| {
            PastVerdict {
                count: 1,
                ..**known
            } == ended
        };
        match verdicts.iter_mut().find(is_same) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => verdicts.push(ended),
        }
    }

    /// Those of a connection, in the order of their first end.
    pub(super) fn of(&self, conn: ConnId) -> &[PastVerdict] {
        self.0.get(&conn).map_or(&[], Vec::as_slice)
    }

    /// Removes and returns those of a connection that leaves the table.
    pub(super) fn take(&mut self, conn: ConnId) -> Vec<PastVerdict> {
        self.0.remove(&conn).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseHow;

    #[test]
    fn equal_verdicts_share_an_entry_so_their_number_is_bounded() {
        let mut verdicts = PastVerdicts::default();
        let conn = ConnId(1);
        let survived = [AlertResolution::Recovered, AlertResolution::Superseded];
        for _ in 0..100 {
            for kind in VerdictKind::ALL {
                for certainty in [Certainty::Suspected, Certainty::Confirmed] {
                    for resolution in survived {
                        verdicts.add(conn, *kind, certainty, resolution);
                    }
                }
            }
        }
        let closed = AlertResolution::Closed(CloseHow::Timeout);
        verdicts.add(conn, VerdictKind::Expired, Certainty::Confirmed, closed);
        let taken = verdicts.take(conn);
        assert_eq!(taken.len(), VerdictKind::ALL.len() * 2 * 2 + 1);
        let (last, earlier) = taken.split_last().expect("not empty");
        assert!(earlier.iter().all(|verdict| verdict.count == 100));
        assert_eq!((last.resolution, last.count), (Some(closed), 1));
        assert!(verdicts.0.is_empty(), "nothing is left of it");
        assert!(verdicts.of(conn).is_empty());
    }
}
