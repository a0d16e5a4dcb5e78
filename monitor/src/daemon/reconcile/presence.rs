//! Finds connections whose end no kernel program reported.
//!
//! The kernel can skip a program, and then the snapshot of a closed connection stays. A connection is
//! given up when two complete scans in a row do not find its socket, and the second has sought it everywhere
//! it can be. A single scan may miss one, because sock_diag resumes by position in a table that changes.

use crate::kernel::sock_diag::scan::known::Fate;
use monitor_core::ConnId;

/// What the last complete scan found. Both lists are sorted.
#[derive(Debug, Default)]
pub(super) struct Presence {
    found: Vec<ConnId>,
    /// Connections that it did not find although it should have.
    absent: Vec<ConnId>,
}

impl Presence {
    /// Takes a complete scan. `known` are the connections before it, sorted, with the fate of each. Returns
    /// those that have to be given up.
    ///
    /// If a network namespace may be hidden, only a connection that was found before can be missing.
    pub(super) fn update(
        &mut self,
        known: &[ConnId],
        fates: &[Fate],
        all_visible: bool,
    ) -> Vec<ConnId> {
        let last = std::mem::take(self);
        let mut gone = Vec::new();
        for (conn, fate) in known.iter().zip(fates) {
            let was_absent = last.absent.binary_search(conn).is_ok();
            if *fate == Fate::Found {
                self.found.push(*conn);
            } else if was_absent && *fate == Fate::Absent {
                gone.push(*conn);
            } else if was_absent || all_visible || last.found.binary_search(conn).is_ok() {
                self.absent.push(*conn);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans in order, each with the known connections and those it found. The last column is what is
    /// given up.
    fn assert_scans(all_visible: bool, scans: &[(&[u64], &[u64], &[u64])]) {
        let mut presence = Presence::default();
        for (i, (known, found, gone)) in scans.iter().enumerate() {
            let fate = |conn: &u64| match found.contains(conn) {
                true => Fate::Found,
                false => Fate::Absent,
            };
            let fates: Vec<_> = known.iter().map(fate).collect();
            let known: Vec<_> = known.iter().map(|conn| ConnId(*conn)).collect();
            let given_up = presence.update(&known, &fates, all_visible);
            let given_up: Vec<u64> = given_up.iter().map(|conn| conn.0).collect();
            assert_eq!(given_up, *gone, "scan {i}");
        }
    }

    #[test]
    fn a_connection_is_given_up_at_the_second_scan_in_a_row_without_its_socket() {
        assert_scans(
            true,
            &[
                (&[1, 2, 3], &[1, 3], &[]),
                // The second came back, the third is missing now.
                (&[1, 2, 3], &[1, 2], &[]),
                (&[1, 2, 3], &[1], &[3]),
                (&[1, 2], &[1], &[2]),
                (&[1], &[1], &[]),
            ],
        );
    }

    #[test]
    fn a_connection_in_a_hidden_namespace_is_never_given_up() {
        let never_found: (&[u64], &[u64], &[u64]) = (&[1, 2], &[1], &[]);
        assert_scans(
            false,
            &[
                never_found,
                never_found,
                never_found,
                (&[1, 2], &[], &[]),
                (&[1, 2], &[], &[1]),
            ],
        );
    }
    #[test]
    fn a_connection_is_not_given_up_before_it_was_sought_everywhere() {
        let mut presence = Presence::default();
        let known = [ConnId(1)];
        for (fate, given_up) in [
            (Fate::Unlocated, &[][..]),
            (Fate::Unlocated, &[]),
            (Fate::Absent, &known),
        ] {
            assert_eq!(presence.update(&known, &[fate], true), given_up);
        }
    }
}
