//! All snapshots in parts, over and over.

use std::{io, os::fd::BorrowedFd};

use monitor_common::snapshot::Snapshot;

use super::snapshot_pages::Pages;

/// Reads the snapshots in the order of the kernel's hash table.
pub struct Sweep {
    /// Of the hash table.
    buckets: u32,
    pages: Pages,
    complete: bool,
}

impl Sweep {
    /// Of a table that was made for so many entries.
    pub fn over(max_entries: u32) -> Self {
        Self {
            // As the kernel rounds (`htab_map_alloc`).
            buckets: max_entries.checked_next_power_of_two().unwrap_or(u32::MAX),
            pages: Pages::new(PAGE),
            complete: false,
        }
    }

    /// Shows what lies in this share of the table, from 0 to 1, and was not shown since the last
    /// [`Sweep::restart`]. A snapshot that is there all the time is shown once.
    ///
    /// # Errors
    /// When the kernel refuses; what comes after is shown by the next call.
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

    /// From the first snapshot on.
    pub fn restart(&mut self) {
        self.pages.restart();
        self.complete = false;
    }
}

/// They stay in the CPU's cache until they are shown.
const PAGE: usize = 256;
