//! Link layers before IP packets.

/// The link layer of a recording.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    /// Ethernet with frames padded to 60 bytes, as a network card delivers them.
    PaddedEthernet,
    /// One 802.1Q tag.
    Vlan,
    /// An 802.1ad tag and an 802.1Q tag.
    StackedVlan,
    /// `LINKTYPE_RAW`: no link layer.
    RawIp,
    /// `LINKTYPE_NULL`: BSD loopback, in this byte order.
    Null,
}

impl Link {
    /// See <https://www.tcpdump.org/linktypes.html>.
    pub(crate) const fn link_type(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::RawIp => 101,
            Self::Ethernet | Self::PaddedEthernet | Self::Vlan | Self::StackedVlan => 1,
        }
    }

    pub(crate) fn wrap(self, ip_packet: &[u8], from_client: bool) -> Vec<u8> {
        let v6 = ip_packet[0] >> 4 == 6;
        let tags: &[u8] = match self {
            Self::RawIp => return ip_packet.to_vec(),
            Self::Null => {
                // FreeBSD's AF_INET6; AF_INET is 2 everywhere.
                let family: u32 = if v6 { 28 } else { 2 };
                return [&family.to_le_bytes()[..], ip_packet].concat();
            }
            Self::Ethernet | Self::PaddedEthernet => &[],
            Self::Vlan => &[0x81, 0x00, 0, 10],
            Self::StackedVlan => &[0x88, 0xa8, 0, 20, 0x81, 0x00, 0, 10],
        };
        const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
        const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
        let (from, to) = if from_client {
            (CLIENT, SERVER)
        } else {
            (SERVER, CLIENT)
        };
        let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut frame = [&to, &from, tags, &ethertype, ip_packet].concat();
        if self == Self::PaddedEthernet {
            // 0x89: read as payload, the padding would be a ping.
            frame.resize(frame.len().max(60), 0x89);
        }
        frame
    }
}
