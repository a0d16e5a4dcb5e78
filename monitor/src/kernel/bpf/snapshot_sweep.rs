//! Reads all snapshots in parts, repeatedly.

use std::{io, os::fd::BorrowedFd};

use monitor_common::snapshot::Snapshot;

use super::snapshot_pages::Pages;

/// Reads the snapshots in the order of the kernel's hash table.
pub struct Sweep {
    /// The number of buckets of the hash table.
    buckets: u32,
    pages: Pages,
    complete: bool,
}

impl Sweep {
    /// A sweep over a table with room for `max_entries`.
    pub fn over(max_entries: u32) -> Self {
        Self {
            // Rounded like the kernel does (`htab_map_alloc`).
            buckets: max_entries.checked_next_power_of_two().unwrap_or(u32::MAX),
            pages: Pages::new(PAGE),
            complete: false,
        }
    }

    /// Passes what is in this share of the table, from 0 to 1, and was not passed since the last
    /// [`Sweep::restart`]. A snapshot that is present throughout is passed once.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the next call passes the rest.
    pub fn up_to(
        &mut self,
        share: f64,
        map: BorrowedFd<'_>,
        mut show: impl FnMut(Snapshot),
    ) -> io::Result<()> {
        let end = (f64::from(self.buckets) * share.min(1.0)) as u32;
        while !self.complete && self.pages.bucket() < end {
            let (page, last) = self.pages.next(map)?;
            page.for_each(&mut show);
            self.complete = last;
        }
        Ok(())
    }

    /// Starts again at the first snapshot.
    pub fn restart(&mut self) {
        self.pages.restart();
        self.complete = false;
    }
}

/// Small enough to stay in the CPU's cache until they are passed.
const PAGE: usize = 256;
