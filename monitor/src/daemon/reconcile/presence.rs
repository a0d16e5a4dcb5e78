//! Finds connections whose end no kernel program reported.
//!
//! The kernel can skip a program, and then the snapshot of a closed connection stays. A connection is given up
//! after two complete scans that searched for its socket wherever it can be and did not find it, if none finds
//! it in between. A single scan may miss one, because sock_diag resumes by position in a table that changes.

use crate::kernel::sock_diag::scan::known::Fate;
use monitor_core::ConnId;

/// Searches after which a missed connection is given up, or no longer searched for everywhere.
const SEARCHES: u8 = 2;

/// Maximum number of scans between two incomplete searches of all namespaces, as a power of two.
const MAX_PAUSE: u32 = 6;

/// What the scans have found, and what the next one has to search for everywhere.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// The connections that the last scan found. Sorted, as are the missed ones.
    found: Vec<ConnId>,
    missed: Vec<Missed>,
    /// Whether the last complete scan saw all network namespaces.
    all_visible: bool,
    /// Searches of all namespaces in a row that were incomplete.
    incomplete: u32,
    /// Scans to be done before the next search of all namespaces.
    pause: u32,
}

/// A connection that the last scan did not find.
#[derive(Clone, Copy, Debug)]
struct Missed {
    conn: ConnId,
    /// Whether a scan has ever found it.
    was_found: bool,
    /// Complete scans since then that searched for it wherever it can be.
    searches: u8,
}

/// How much a scan proves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coverage {
    /// Whether it searched all namespaces.
    pub(super) everywhere: bool,
    /// Whether it read every socket that it had to.
    pub(super) complete: bool,
    /// Whether no network namespace may be hidden.
    pub(super) all_visible: bool,
}

impl Presence {
    /// Whether a connection in `known`, which is sorted, has to be searched for in all namespaces.
    ///
    /// An incomplete search decides nothing. While one follows another, they come more and more rarely.
    pub(super) fn must_search_everywhere(&self, known: &[ConnId]) -> bool {
        let mut due = self.missed.iter().filter(|it| it.searches < SEARCHES);
        self.pause == 0 && due.any(|it| known.binary_search(&it.conn).is_ok())
    }

    /// Takes a scan. `known` are the connections before it, sorted, with the fate of each. Returns those that
    /// have to be given up.
    ///
    /// If a network namespace may be hidden, only a connection that was found before can be missing.
    pub(super) fn update(
        &mut self,
        known: &[ConnId],
        fates: &[Fate],
        coverage: Coverage,
    ) -> Vec<ConnId> {
        self.set_pause(coverage);
        let last_found = std::mem::take(&mut self.found);
        let last_missed = std::mem::take(&mut self.missed);
        let mut gone = Vec::new();
        for (conn, fate) in known.iter().zip(fates) {
            if *fate == Fate::Found {
                self.found.push(*conn);
                continue;
            }
            let last = last_missed.binary_search_by_key(conn, |it| it.conn);
            let mut missed = last.map_or_else(
                |_| Missed {
                    conn: *conn,
                    was_found: last_found.binary_search(conn).is_ok(),
                    searches: 0,
                },
                |index| last_missed[index],
            );
            if coverage.complete {
                let could_be_hidden = !self.all_visible && !missed.was_found;
                if could_be_hidden && coverage.all_visible {
                    missed.searches = 0;
                }
                if *fate == Fate::Absent {
                    missed.searches = SEARCHES.min(missed.searches + 1);
                    let is_proven = missed.was_found || coverage.all_visible;
                    if missed.searches == SEARCHES && is_proven {
                        gone.push(*conn);
                    }
                }
            }
            self.missed.push(missed);
        }
        if coverage.complete {
            self.all_visible = coverage.all_visible;
        }
        gone
    }

    fn set_pause(&mut self, coverage: Coverage) {
        if coverage.complete {
            (self.incomplete, self.pause) = (0, 0);
        } else if coverage.everywhere {
            self.pause = (1 << self.incomplete.min(MAX_PAUSE)) - 1;
            self.incomplete += 1;
        } else {
            self.pause = self.pause.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Coverage = Coverage {
        everywhere: true,
        complete: true,
        all_visible: true,
    };
    const HIDDEN: Coverage = Coverage {
        all_visible: false,
        ..SEEN
    };
    const INCOMPLETE: Coverage = Coverage {
        complete: false,
        ..SEEN
    };
    const CONN: ConnId = ConnId(1);

    /// Scans in order, each with the known connections and those it found. The last column is what is
    /// given up.
    fn assert_scans(coverage: Coverage, scans: &[(&[u64], &[u64], &[u64])]) {
        let mut presence = Presence::default();
        for (i, (known, found, gone)) in scans.iter().enumerate() {
            let fate = |conn: &u64| match found.contains(conn) {
                true => Fate::Found,
                false => Fate::Absent,
            };
            let fates: Vec<_> = known.iter().map(fate).collect();
            let known: Vec<_> = known.iter().map(|conn| ConnId(*conn)).collect();
            let given_up = presence.update(&known, &fates, coverage);
            let given_up: Vec<u64> = given_up.iter().map(|conn| conn.0).collect();
            assert_eq!(given_up, *gone, "scan {i}");
        }
    }

    #[test]
    fn a_connection_is_given_up_at_the_second_scan_in_a_row_without_its_socket() {
        assert_scans(
            SEEN,
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
            HIDDEN,
            &[
                never_found,
                never_found,
                never_found,
                (&[1, 2], &[], &[]),
                (&[1, 2], &[], &[1]),
            ],
        );
    }

    /// Scans for one connection whose socket is gone, as the search does it.
    #[derive(Default)]
    struct Dead {
        presence: Presence,
        /// Whether the last scan found it in a namespace. The next one looks it up there, once.
        is_located: bool,
        /// Scans that searched for it wherever it can be, and all of them.
        searches: usize,
        scans: usize,
    }

    impl Dead {
        /// Whether it is given up by a scan, which searches everywhere if `coverage` says so or if it must.
        fn scan(&mut self, coverage: Coverage) -> bool {
            let everywhere = coverage.everywhere || self.presence.must_search_everywhere(&[CONN]);
            let is_sought = std::mem::take(&mut self.is_located) || everywhere;
            let fate = match is_sought {
                true => Fate::Absent,
                false => Fate::Unlocated,
            };
            self.searches += usize::from(is_sought);
            self.scans += 1;
            let coverage = Coverage {
                everywhere,
                ..coverage
            };
            !self.presence.update(&[CONN], &[fate], coverage).is_empty()
        }

        /// Scans that search everywhere only if they must.
        fn scan_as_needed(&mut self, coverage: Coverage) -> bool {
            self.scan(Coverage {
                everywhere: false,
                ..coverage
            })
        }
    }

    #[test]
    fn a_dead_connection_is_given_up_after_two_searches_however_the_first_one_was() {
        for (is_located, first, scans) in [
            (true, true, 2),
            (true, false, 2),
            (false, true, 2),
            // The first scan does not search for it anywhere.
            (false, false, 3),
        ] {
            let mut dead = Dead {
                is_located,
                ..Dead::default()
            };
            let everywhere = first;
            assert!(!dead.scan(Coverage { everywhere, ..SEEN }));
            while !dead.scan_as_needed(SEEN) {
                assert!(dead.scans < 9, "located: {is_located}, everywhere: {first}");
            }
            assert_eq!((dead.searches, dead.scans), (2, scans));
        }
    }

    #[test]
    fn an_incomplete_scan_is_no_search_and_is_repeated_more_and_more_rarely() {
        let mut dead = Dead::default();
        assert!(!dead.scan(INCOMPLETE));
        assert!(!dead.scan_as_needed(INCOMPLETE));
        assert_eq!(dead.searches, 2, "once more at once");
        for _ in 2..1000 {
            assert!(!dead.scan_as_needed(INCOMPLETE));
        }
        assert!((10..30).contains(&dead.searches), "{}", dead.searches);
        let before = dead.searches;
        while !dead.scan_as_needed(SEEN) {
            assert!(dead.scans < 1010);
        }
        assert!(dead.searches >= before + 2);
    }

    #[test]
    fn a_hidden_connection_is_sought_everywhere_twice_and_again_when_nothing_is_hidden() {
        let mut dead = Dead::default();
        for _ in 0..9 {
            assert!(!dead.scan_as_needed(HIDDEN));
        }
        assert_eq!(dead.searches, 2);
        for gone in [false, false, true] {
            assert_eq!(dead.scan_as_needed(SEEN), gone);
        }
        assert_eq!(dead.searches, 4);
    }

    #[test]
    fn a_connection_that_was_found_is_given_up_although_a_namespace_is_hidden() {
        let mut dead = Dead::default();
        dead.presence.update(&[CONN], &[Fate::Found], HIDDEN);
        // Its location was lost meanwhile.
        for gone in [false, false, true] {
            assert_eq!(dead.scan_as_needed(HIDDEN), gone);
        }
    }

    #[test]
    fn a_connection_that_has_ended_is_not_sought() {
        let mut presence = Presence::default();
        presence.update(&[CONN], &[Fate::Unlocated], SEEN);
        assert!(presence.must_search_everywhere(&[CONN]));
        assert!(!presence.must_search_everywhere(&[ConnId(2)]));
    }
}
