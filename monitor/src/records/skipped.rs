//! Skipped packets, in the summary of a recording.

use serde::{Serialize, Serializer, ser::SerializeMap};
use strum::{IntoStaticStr, VariantArray};

/// A reason to skip a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
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
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name in the summary.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
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
        let all = Skip::ALL.iter();
        all.map(|reason| (*reason, self.get(*reason)))
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
