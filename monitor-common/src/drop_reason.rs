//! Every way the kernel side can fail to report. Each loss counts in one of these counters.

use strum::{IntoStaticStr, VariantArray};

/// Index into the per-CPU `DROPS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[repr(u32)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum DropReason {
    /// `VITALS` was full: an open, close or trouble event was not reported.
    VitalsFull = 0,
    /// `SAMPLES` was full: a live viewer missed a frame header.
    SamplesFull = 1,
    /// `SNAPSHOTS` was full: the daemon cannot see this connection. Counted once per connection.
    SnapshotsFull = 2,
    /// The kernel had no memory for a socket's storage: the connection is not tracked.
    StorageFull = 3,
    /// The headers of a watched socket's packet could not be read (IPv6 extension headers, a truncated
    /// header).
    HeaderUnreadable = 4,
    /// Payload bytes of a watched socket could not be loaded.
    PayloadUnreadable = 5,
    /// A segment had more frames than one walk may visit; the rest counts as unsynced bytes.
    WalkTooLong = 6,
    /// `HANDSHAKES` was full: the head of an upgrade request or response was not reported.
    HandshakesFull = 7,
    /// Another CPU was processing a segment received by the same socket for too long: this segment was not
    /// examined.
    Contended = 8,
}

impl DropReason {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Entries of the `DROPS` map.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}
