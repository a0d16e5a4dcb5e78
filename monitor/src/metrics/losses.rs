//! What wsmon lost.

use monitor_common::drop_reason::DropReason;

use crate::{alerting::sinks::UndeliveredAlerts, logs::line_log::LostLines};

/// Losses anywhere between the wire and the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// By [`DropReason`].
    pub kernel: [u64; DropReason::ALL.len()],
    /// Older connections without room in the snapshot map when they were seeded. The kernel programs
    /// also count such a connection at its first packet.
    pub untracked_at_start: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Connections that were given up because no program reported their end.
    pub unreported_ends: u64,
    /// Handshake records that could not be decoded.
    pub undecodable_handshakes: u64,
    /// Alerts that did not reach a receiver.
    pub undelivered: UndeliveredAlerts,
    /// Lines of the access log.
    pub access_log: LostLines,
}

impl Losses {
    /// All losses that degrade wsmon's results. The losses of a live viewer are not included, because
    /// the viewer gets them itself.
    pub fn total(&self) -> u64 {
        let kernel = self.kernel.iter().sum::<u64>() - self.of(DropReason::SamplesFull);
        kernel
            + self.untracked_at_start
            + self.undecodable
            + self.unreported_ends
            + self.undecodable_handshakes
            + self.undelivered.total()
            + self.access_log.total()
    }

    /// Lost records, packets and alerts.
    pub fn events(&self) -> [LossFigure; 20] {
        let (undelivered, access_log) = (&self.undelivered, &self.access_log);
        let lines = &undelivered.lines;
        [
            ("vitals", "full", self.of(DropReason::VitalsFull)),
            ("vitals", "undecodable", self.undecodable),
            ("vitals", "unreported", self.unreported_ends),
            ("handshakes", "full", self.of(DropReason::HandshakesFull)),
            ("handshakes", "undecodable", self.undecodable_handshakes),
            ("samples", "full", self.of(DropReason::SamplesFull)),
            (
                "packets",
                "header_unreadable",
                self.of(DropReason::HeaderUnreadable),
            ),
            (
                "packets",
                "payload_unreadable",
                self.of(DropReason::PayloadUnreadable),
            ),
            ("packets", "contended", self.of(DropReason::Contended)),
            ("packets", "walk_too_long", self.of(DropReason::WalkTooLong)),
            ("alerts", "full", lines.full),
            ("alerts", "unwritten", lines.unwritten),
            ("alerts", "unencodable", lines.unencodable),
            ("access_log", "full", access_log.full),
            ("access_log", "unwritten", access_log.unwritten),
            ("access_log", "unencodable", access_log.unencodable),
            ("alertmanager", "full", undelivered.alertmanager.full),
            ("alertmanager", "refused", undelivered.alertmanager.refused),
            ("webhook", "full", undelivered.webhook.full),
            ("webhook", "refused", undelivered.webhook.refused),
        ]
        .map(|(ring, reason, count)| LossFigure {
            ring,
            reason,
            count,
        })
    }

    /// Connections on watched ports that could not be tracked.
    pub fn untracked(&self) -> [LossFigure; 3] {
        let kernel = |reason: DropReason| (reason.as_str(), self.of(reason));
        [
            kernel(DropReason::SnapshotsFull),
            kernel(DropReason::StorageFull),
            ("no_room_at_start", self.untracked_at_start),
        ]
        .map(|(reason, count)| LossFigure {
            ring: "connections",
            reason,
            count,
        })
    }

    fn of(&self, reason: DropReason) -> u64 {
        self.kernel[reason as usize]
    }
}

/// What was lost in one ring for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossFigure {
    /// The label `ring` of `wsmon_events_lost_total`, or `connections`.
    pub ring: &'static str,
    pub reason: &'static str,
    pub count: u64,
}
