//! Every way the kernel side can fail to report. Nothing is lost without one of these counters.

/// Index into the per-CPU `DROPS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// `VITALS` was full: a birth, a death or a trouble was not reported.
    VitalsFull = 0,
    /// `SAMPLES` was full: a live viewer missed a frame header.
    SamplesFull = 1,
    /// `SNAPSHOTS` was full: the daemon cannot see this connection. Counted once per connection.
    SnapshotsFull = 2,
    /// The kernel had no memory for a socket's storage: the connection is not tracked.
    StorageFull = 3,
    /// A packet of a watched socket whose headers could not be read (IPv6 extension headers, a
    /// truncated header).
    HeaderUnreadable = 4,
    /// Payload bytes of a watched socket that could not be loaded.
    PayloadUnreadable = 5,
    /// A segment with more frames than one walk may visit; the rest counts as unsynced bytes.
    WalkTooLong = 6,
    /// `HANDSHAKES` was full: the head of an upgrade request or of its answer was not reported.
    HandshakesFull = 7,
    /// Another CPU kept a socket's received segment in hand for too long: one that came meanwhile
    /// was not looked at.
    Contended = 8,
}

impl DropReason {
    pub const ALL: [Self; 9] = [
        Self::VitalsFull,
        Self::SamplesFull,
        Self::SnapshotsFull,
        Self::StorageFull,
        Self::HeaderUnreadable,
        Self::PayloadUnreadable,
        Self::WalkTooLong,
        Self::HandshakesFull,
        Self::Contended,
    ];

    /// Entries of the `DROPS` map.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VitalsFull => "vitals_full",
            Self::SamplesFull => "samples_full",
            Self::SnapshotsFull => "snapshots_full",
            Self::StorageFull => "storage_full",
            Self::HeaderUnreadable => "header_unreadable",
            Self::PayloadUnreadable => "payload_unreadable",
            Self::WalkTooLong => "walk_too_long",
            Self::HandshakesFull => "handshakes_full",
            Self::Contended => "contended",
        }
    }
}
