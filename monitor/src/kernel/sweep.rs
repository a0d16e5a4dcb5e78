//! All snapshots, some hundred with one system call.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use monitor_common::snapshot::Snapshot;

/// Reads the snapshots in the order of the kernel's hash table, over and over.
pub struct Sweep {
    /// Of the hash table.
    buckets: u32,
    /// The next one.
    bucket: u32,
    cookies: Vec<u64>,
    snapshots: Vec<Snapshot>,
}

impl Sweep {
    /// Of a table that was made for so many entries.
    pub fn over(max_entries: u32) -> Self {
        Self {
            // As the kernel rounds (`htab_map_alloc`).
            buckets: max_entries.checked_next_power_of_two().unwrap_or(u32::MAX),
            bucket: 0,
            cookies: vec![0; AT_ONCE],
            snapshots: vec![Snapshot::EMPTY; AT_ONCE],
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
        mut show: impl FnMut(&Snapshot),
    ) -> io::Result<()> {
        let end = (f64::from(self.buckets) * share.min(1.0)) as u32;
        while self.bucket < end {
            let count = self.read(map)?;
            self.snapshots.iter().take(count).for_each(&mut show);
        }
        Ok(())
    }

    /// From the first snapshot on.
    pub fn restart(&mut self) {
        self.bucket = 0;
    }

    /// Fills `snapshots`, says how many there are, and goes on.
    fn read(&mut self, map: BorrowedFd<'_>) -> io::Result<usize> {
        let mut next = self.bucket;
        let mut batch = Batch {
            in_batch: (&raw const self.bucket).expose_provenance() as u64,
            out_batch: (&raw mut next).expose_provenance() as u64,
            keys: self.cookies.as_mut_ptr().expose_provenance() as u64,
            values: self.snapshots.as_mut_ptr().expose_provenance() as u64,
            count: self.cookies.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are those of this command, which reads `in_batch` and writes at most
        // `count` keys and values of this map's sizes, and one `u32` each to `out_batch` and `count`.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut batch,
                size_of::<Batch>(),
            )
        };
        match answer {
            0 => self.bucket = next,
            _ => match io::Error::last_os_error() {
                // The last of them: `count` holds.
                error if error.raw_os_error() == Some(libc::ENOENT) => self.bucket = self.buckets,
                error => return Err(error),
            },
        }
        Ok(batch.count as usize)
    }
}

/// The attributes of `BPF_MAP_LOOKUP_BATCH` (`union bpf_attr`, `include/uapi/linux/bpf.h`).
#[repr(C)]
struct Batch {
    /// Of a hash table the number of the bucket to begin with.
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// They stay in the CPU's cache until they are shown. No bucket holds as many.
const AT_ONCE: usize = 256;
