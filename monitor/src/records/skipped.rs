//! Skipped packets, in the summary of a recording.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// A reason to skip a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// An unsupported link layer.
    LinkType,
    /// ARP and the like.
    NotIp,
    /// UDP outside of tunnels, ICMP and the like.
    NotTcp,
    /// A part of a larger IP packet, which is not reassembled.
    Fragment,
    /// IPv6 with an extension header that is not followed, or with too many.
    ExtensionHeader,
    /// Too little was captured.
    TruncatedHeader,
    /// Lengths that contradict each other.
    Malformed,
    /// Neither port is watched.
    NotWatched,
    /// The connection had ended before.
    AfterClose,
    /// A reset without a connection, or one that TCP would not accept.
    StrayReset,
    /// A copy of a packet, from another interface.
    CapturedTwice,
}

impl Skip {
    pub const ALL: [Self; 11] = [
        Self::LinkType,
        Self::NotIp,
        Self::NotTcp,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::TruncatedHeader,
        Self::Malformed,
        Self::NotWatched,
        Self::AfterClose,
        Self::StrayReset,
        Self::CapturedTwice,
    ];

    /// The name in the summary.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Fragment => "fragment",
            Self::ExtensionHeader => "extension_header",
            Self::TruncatedHeader => "truncated_header",
            Self::Malformed => "malformed",
            Self::NotWatched => "not_watched",
            Self::AfterClose => "after_close",
            Self::StrayReset => "stray_reset",
            Self::CapturedTwice => "captured_twice",
        }
    }
}

/// Skipped packets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    pub fn get(&self, reason: Skip) -> u64 {
        self.0[reason as usize]
    }

    /// Counts one packet.
    pub fn count(&mut self, reason: Skip) {
        self.0[reason as usize] += 1;
    }

    /// The reasons that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Skip, u64)> {
        Skip::ALL
            .into_iter()
            .map(|reason| (reason, self.get(reason)))
            .filter(|(_, packets)| *packets > 0)
    }
}

impl Serialize for Skipped {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (reason, packets) in self.iter() {
            map.serialize_entry(reason.as_str(), &packets)?;
        }
        map.end()
    }
}
