//! Looks up single snapshots while the daemon's loop goes on.

use std::os::fd::OwnedFd;

use aya::maps::{HashMap, Map, MapData, MapError};
use monitor_common::published::Published;

use crate::{decode, kernel::clock};
use monitor_core::{ConnId, Facts};

/// Another descriptor of the snapshots, for another thread.
#[derive(Debug)]
pub struct SnapshotReader(HashMap<MapData, u64, Published>);

impl SnapshotReader {
    pub(super) fn new(map: OwnedFd) -> Result<Self, MapError> {
        let map = Map::HashMap(MapData::from_fd(map)?);
        HashMap::try_from(map).map(Self)
    }

    /// The facts of a flow. `None` if the kernel no longer has it, and also if they cannot be read, which
    /// the sweeps and inspections of the daemon report.
    pub fn get(&self, conn: ConnId) -> Option<Facts> {
        let published = self.0.get(&conn.0, 0).ok()?;
        decode::facts(&published.snapshot(conn.0, clock::now().0)).ok()
    }
}
