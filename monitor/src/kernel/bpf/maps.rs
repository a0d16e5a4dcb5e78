//! The daemon's access to the maps.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use monitor_common::{
    drop_reason::DropReason,
    published::Published,
    snapshot::{Snapshot, origin},
    stats::{Counter, ListenerStats},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    loader::{LoadError, Loaded},
    ring_peak::RingPeak,
    snapshot_pages::Pages,
    snapshot_reader::SnapshotReader,
    snapshot_sweep::Sweep,
};
use crate::{
    decode::{self, DecodeError},
    diagnostics::error_chain::one_line,
    kernel::clock,
};
use monitor_core::{ConnId, Detail, Facts};

const SNAPSHOTS: &str = "SNAPSHOTS";
const STATS: &str = "STATS";
const DROPS: &str = "DROPS";
const SAMPLE_EVERY: &str = "SAMPLE_EVERY";

/// The published facts of every tracked flow.
pub struct Snapshots {
    map: HashMap<MapData, u64, Published>,
    /// A second descriptor of the map.
    fd: OwnedFd,
    max_entries: u32,
    sweep: Sweep,
}

impl Snapshots {
    pub fn take(loaded: &mut Loaded) -> Result<Self, LoadError> {
        let map = loaded.take_map(SNAPSHOTS)?;
        let open = || {
            let max_entries = max_entries(&map)?;
            Ok(Self {
                fd: duplicate(&map)?,
                map: HashMap::try_from(map)?,
                max_entries,
                sweep: Sweep::over(max_entries),
            })
        };
        Ok(open().map_err(cannot("open", SNAPSHOTS))?)
    }

    /// The maximum number of flows.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The facts of a flow; `None` if the kernel no longer has it.
    pub fn get(&self, conn: ConnId) -> Result<Option<Facts>, SnapshotError> {
        match self.lookup(conn)? {
            Some(snapshot) => Ok(Some(decode::facts(&snapshot)?)),
            None => Ok(None),
        }
    }

    /// Passes the facts of every flow in this share of the map, from 0 to 1, that was not passed since
    /// [`Snapshots::restart_sweep`].
    pub fn sweep(
        &mut self,
        share: f64,
        mut show: impl FnMut(Result<Facts, DecodeError>),
    ) -> io::Result<()> {
        let map = self.fd.as_fd();
        self.sweep
            .up_to(share, map, |snapshot| show(decode::facts(&snapshot)))
    }

    pub fn restart_sweep(&mut self) {
        self.sweep.restart();
    }

    /// All data of a flow; `None` if the kernel no longer has it.
    pub fn detail(&self, conn: ConnId) -> Result<Option<Detail>, SnapshotError> {
        match self.lookup(conn)? {
            Some(snapshot) => Ok(Some(decode::detail(&snapshot)?)),
            None => Ok(None),
        }
    }

    /// Writes a flow that only sock_diag has reported. Data already published by the kernel programs is
    /// newer and stays. Returns whether the flow was written.
    pub fn seed(&mut self, facts: &Facts) -> Result<bool, SnapshotError> {
        const BPF_NOEXIST: u64 = 1;
        match self
            .map
            .insert(facts.conn.0, decode::seed(facts), BPF_NOEXIST)
        {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::ArgumentListTooLong =>
            {
                Err(SnapshotError::Full)
            }
            Err(error) => Err(cannot("write", SNAPSHOTS)(error).into()),
        }
    }

    /// Whether the entry of a flow is still its seed, without a packet since.
    pub fn is_seed(&self, conn: ConnId) -> bool {
        let snapshot = self.lookup(conn).ok().flatten();
        snapshot.is_some_and(|snapshot| snapshot.origin == origin::SEEDED)
    }

    /// Removes a flow whose socket is gone. A missing entry is not an error.
    pub fn remove(&mut self, conn: ConnId) -> Result<(), SnapshotError> {
        present(self.map.remove(&conn.0)).map_err(cannot("write", SNAPSHOTS))?;
        Ok(())
    }

    /// The next page of published flows, as connections and their facts, and whether it is the last
    /// page.
    pub fn next_page(
        &self,
        pages: &mut Pages,
    ) -> Result<(Vec<SnapshotEntry>, bool), SnapshotError> {
        let (page, last) = pages.next(self.fd.as_fd()).map_err(SnapshotError::Pages)?;
        let entries = page.map(|snapshot| {
            let facts = decode::facts(&snapshot).map_err(SnapshotError::from);
            (ConnId(snapshot.cookie), facts)
        });
        Ok((entries.collect(), last))
    }

    /// Looks up facts on another thread.
    pub fn reader(&self) -> Result<SnapshotReader, MapAccessError> {
        let fd = self.fd.try_clone().map_err(MapError::IoError);
        fd.and_then(SnapshotReader::new)
            .map_err(cannot("open", SNAPSHOTS))
    }

    fn lookup(&self, conn: ConnId) -> Result<Option<Snapshot>, MapAccessError> {
        let published = present(self.map.get(&conn.0, 0)).map_err(cannot("read", SNAPSHOTS))?;
        Ok(published.map(|published| published.snapshot(conn.0, clock::now().0)))
    }
}

/// The kernel refused to open, read or write a map.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} map {map}: {}", one_line(source))]
pub struct MapAccessError {
    action: &'static str,
    map: &'static str,
    source: MapError,
}

/// For `map_err`: the failed action and the map.
pub(super) fn cannot(
    action: &'static str,
    map: &'static str,
) -> impl Fn(MapError) -> MapAccessError {
    move |source| MapAccessError {
        action,
        map,
        source,
    }
}

/// The result of a lookup or removal by key; `None` if the map has no such key. aya reports that as
/// `KeyNotFound` for a lookup, but as a failed system call for a removal.
fn present<T>(outcome: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A connection, and its facts if they are valid.
pub type SnapshotEntry = (ConnId, Result<Facts, SnapshotError>);

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Map(#[from] MapAccessError),
    #[error("cannot iterate over the snapshots: {0}")]
    Pages(#[source] io::Error),
    #[error("no room for another connection; raise --max-connections")]
    Full,
    #[error("invalid snapshot: {0}")]
    Decode(#[from] DecodeError),
}

/// Per-listener aggregates, summed over the CPUs.
pub struct Stats(PerCpuArray<MapData, ListenerStats>);

impl Stats {
    pub fn take(loaded: &mut Loaded) -> Result<Self, LoadError> {
        let map = PerCpuArray::try_from(loaded.take_map(STATS)?);
        Ok(Self(map.map_err(cannot("open", STATS))?))
    }

    /// One entry per listener, in their order.
    pub fn read(&self) -> Result<Vec<ListenerStats>, MapAccessError> {
        (0..self.0.len()).map(|i| self.read_one(i)).collect()
    }

    /// That of the listener at `index`.
    pub fn read_one(&self, index: u32) -> Result<ListenerStats, MapAccessError> {
        let per_cpu = self.0.get(&index, 0).map_err(cannot("read", STATS))?;
        let mut sum = ListenerStats::EMPTY;
        for cpu in per_cpu.iter() {
            sum.merge(cpu);
        }
        Ok(sum)
    }
}

/// What the kernel programs could not report.
pub struct Drops(PerCpuArray<MapData, Counter>);

impl Drops {
    pub fn take(loaded: &mut Loaded) -> Result<Self, LoadError> {
        let map = PerCpuArray::try_from(loaded.take_map(DROPS)?);
        Ok(Self(map.map_err(cannot("open", DROPS))?))
    }

    pub fn read(&self, reason: DropReason) -> Result<u64, MapAccessError> {
        let per_cpu = self.0.get(&(reason as u32), 0);
        let per_cpu = per_cpu.map_err(cannot("read", DROPS))?;
        Ok(per_cpu.iter().map(Counter::get).sum())
    }
}

/// How many frame headers go to the `SAMPLES` ring; none by default.
pub struct SampleRate(Array<MapData, u32>);

impl SampleRate {
    pub fn take(loaded: &mut Loaded) -> Result<Self, LoadError> {
        let map = Array::try_from(loaded.take_map(SAMPLE_EVERY)?);
        Ok(Self(map.map_err(cannot("open", SAMPLE_EVERY))?))
    }

    /// Sends one in `frames` of each flow and direction from now on; 0 = none.
    pub fn set_one_in(&mut self, frames: u32) -> Result<(), MapAccessError> {
        self.0
            .set(0, frames, 0)
            .map_err(cannot("write", SAMPLE_EVERY))
    }
}

/// One of the three rings.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// Bytes.
    size: u32,
    /// Bytes taken since it was last empty.
    taken: u64,
    peak: RingPeak,
}

impl Ring {
    /// Establishments, closes and anomalies.
    pub fn vitals(loaded: &mut Loaded) -> Result<Self, LoadError> {
        Self::take(loaded, "VITALS")
    }

    /// The heads of upgrade requests and of their responses.
    pub fn handshakes(loaded: &mut Loaded) -> Result<Self, LoadError> {
        Self::take(loaded, "HANDSHAKES")
    }

    /// Frame headers for a live viewer.
    pub fn samples(loaded: &mut Loaded) -> Result<Self, LoadError> {
        Self::take(loaded, "SAMPLES")
    }

    /// Registers the ring with the current runtime.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the map's descriptor is owned by the ring, never changes, and closes with it.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }
            .map_err(io::Error::from)
    }

    /// Passes the next record to `f`; `None` when the ring is empty.
    pub fn next<T>(&mut self, f: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Some(record) = self.ring.next() else {
            if self.taken > 0 {
                self.peak.observe(self.taken, clock::now());
                self.taken = 0;
            }
            return None;
        };
        // The kernel's layout: each record follows a header, both at multiples of 8 bytes.
        self.taken += (RECORD_HEADER + record.len()).next_multiple_of(8) as u64;
        Some(f(&record))
    }

    /// The bytes of records it can hold, and the most that a single drain took in the last one to two
    /// minutes.
    pub fn usage(&self) -> RingUse {
        RingUse {
            size: self.size.into(),
            peak: self.peak.recent(clock::now()),
        }
    }

    fn take(loaded: &mut Loaded, name: &'static str) -> Result<Self, LoadError> {
        let map = loaded.take_map(name)?;
        let open = || {
            Ok(Self {
                size: max_entries(&map)?,
                ring: RingBuf::try_from(map)?,
                taken: 0,
                peak: RingPeak::default(),
            })
        };
        Ok(open().map_err(cannot("open", name))?)
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingUse {
    pub size: u64,
    /// More than `size` if records arrived during a drain.
    pub peak: u64,
}

/// The size of a ring in bytes.
fn max_entries(map: &Map) -> Result<u32, MapError> {
    match map {
        Map::HashMap(data) | Map::RingBuf(data) => Ok(data.info()?.max_entries()),
        // The conversion that follows refuses any other kind.
        _ => Ok(0),
    }
}

fn duplicate(map: &Map) -> Result<OwnedFd, MapError> {
    match map {
        Map::HashMap(data) => data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(MapError::IoError),
        _ => Err(MapError::InvalidMapType { map_type: 0 }),
    }
}

/// Bytes (`BPF_RINGBUF_HDR_SZ`).
const RECORD_HEADER: usize = 8;

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn refused(errno: i32) -> MapError {
        MapError::SyscallError(SyscallError {
            call: "bpf_map_delete_elem",
            io_error: io::Error::from_raw_os_error(errno),
        })
    }

    #[test]
    fn a_missing_key_is_not_an_error_however_it_is_reported() {
        assert_eq!(present(Ok(7)).expect("present"), Some(7));
        for absent in [MapError::KeyNotFound, refused(libc::ENOENT)] {
            assert_eq!(present::<()>(Err(absent)).expect("absent"), None);
        }
        present::<()>(Err(refused(libc::EPERM))).expect_err("another error");
    }

    #[test]
    fn a_refused_access_names_action_map_and_errno() {
        assert_eq!(
            cannot("write", SNAPSHOTS)(refused(libc::EPERM)).to_string(),
            "cannot write map SNAPSHOTS: `bpf_map_delete_elem` failed: \
             Operation not permitted (os error 1)"
        );
    }
}
