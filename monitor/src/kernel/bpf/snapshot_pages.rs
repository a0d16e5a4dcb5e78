//! Reads everything the kernel programs have published, a page at a time (`BPF_MAP_LOOKUP_BATCH`, Linux
//! 5.6).
//!
//! Iterating from key to key would start again whenever the current key is removed meanwhile. This
//! iterates from bucket to bucket.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use monitor_common::{published::Published, snapshot::Snapshot};
use rustix::io::Errno;

use crate::kernel::clock;

/// An iterator over the hash map of snapshots. Entries that are added or removed meanwhile may be
/// returned or not; all that stay are returned.
#[derive(Debug)]
pub struct Pages {
    /// The kernel's position; `None` before the first page.
    position: Option<u32>,
    keys: Vec<u64>,
    values: Vec<Published>,
}

/// `BPF_MAP_LOOKUP_BATCH`.
const LOOKUP_BATCH: libc::c_int = 24;

/// The member `batch` of `union bpf_attr` (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Pages {
    /// Pages of at most `page` snapshots, unless a bucket holds more.
    pub fn new(page: usize) -> Self {
        Self {
            position: None,
            keys: vec![0; page],
            values: vec![Published::EMPTY; page],
        }
    }

    /// Starts again at the first page.
    pub(super) fn restart(&mut self) {
        self.position = None;
    }

    /// The number of the bucket with which the next page begins.
    pub(super) fn bucket(&self) -> u32 {
        self.position.unwrap_or_default()
    }

    /// The next page, and whether it is the last one. `map` holds [`Published`] by `u64`.
    pub(super) fn next(
        &mut self,
        map: BorrowedFd<'_>,
    ) -> io::Result<(impl Iterator<Item = Snapshot>, bool)> {
        let (count, last) = self.read(map)?;
        // No moment in the entries is later.
        let now = clock::now().0;
        let page = self.keys.iter().zip(&self.values).take(count);
        Ok((
            page.map(move |(cookie, it)| it.snapshot(*cookie, now)),
            last,
        ))
    }

    fn read(&mut self, map: BorrowedFd<'_>) -> io::Result<(usize, bool)> {
        loop {
            match self.lookup_batch(map) {
                Ok(answer) => return Ok(answer),
                // The bucket holds more than a page.
                Err(Errno::NOSPC) => {
                    let room = self.keys.len() * 2;
                    self.keys.resize(room, 0);
                    self.values.resize(room, Published::EMPTY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn lookup_batch(&mut self, map: BorrowedFd<'_>) -> Result<(usize, bool), Errno> {
        let from = self.position;
        // The position remains there if the kernel gets no further.
        let mut to = from.unwrap_or_default();
        let mut attr = BatchAttr {
            in_batch: address(from.as_ref().map_or(ptr::null(), ptr::from_ref)),
            out_batch: address(&raw mut to),
            keys: address(self.keys.as_mut_ptr()),
            values: address(self.values.as_mut_ptr()),
            count: self.keys.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute is complete; both buffers hold `count` entries of the map's key and
        // value sizes, any bytes are a valid value, and all of it outlives the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let last = match answer {
            0 => false,
            _ => match Errno::from_io_error(&io::Error::last_os_error()) {
                // The last page comes with this error.
                Some(Errno::NOENT) => true,
                // Another CPU holds a bucket's lock; the entries read so far are valid.
                Some(Errno::BUSY | Errno::DEADLK | Errno::TIMEDOUT) => false,
                error => return Err(error.unwrap_or(Errno::IO)),
            },
        };
        self.position = Some(to);
        Ok((attr.count as usize, last))
    }
}

/// An address for the kernel, which takes 64 bits everywhere.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
