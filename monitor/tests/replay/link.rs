//! The layers before an IP packet.

use std::net::IpAddr;

use wire::{ethernet, ip};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    Vlan,
    QinQ,
    Sll,
    SllVlan,
    Sll2,
    Raw,
    RawBsd,
    Ip,
    Null,
    NullSwapped,
    Loop,
    Ppp,
    /// Without address and control, and with a one-byte protocol.
    PppShort,
    PppInHdlc,
    CiscoHdlc,
    PppPppd,
    PppWithDirection,
    PppEther,
    Pppoe,
    /// Two labels.
    Mpls,
    /// A pseudowire: a label, a control word, Ethernet.
    MplsEthernet,
    /// 802.11: from a station, between access points with quality of service, and behind radiotap.
    Wireless,
    WirelessQos,
    Radiotap,
    RadiotapPadded,
    IpInIp,
    Gre,
    GrePptp,
    /// With key and sequence number.
    GreEthernet,
    Vxlan,
    GeneveEthernet,
    GeneveIp,
    /// VXLAN in IP in GRE in a VLAN.
    TunnelInTunnel,
}

impl Link {
    pub(crate) const ALL: [Self; 34] = [
        Self::Ethernet,
        Self::Vlan,
        Self::QinQ,
        Self::Sll,
        Self::SllVlan,
        Self::Sll2,
        Self::Raw,
        Self::RawBsd,
        Self::Ip,
        Self::Null,
        Self::NullSwapped,
        Self::Loop,
        Self::Ppp,
        Self::PppShort,
        Self::PppInHdlc,
        Self::CiscoHdlc,
        Self::PppPppd,
        Self::PppWithDirection,
        Self::PppEther,
        Self::Pppoe,
        Self::Mpls,
        Self::MplsEthernet,
        Self::Wireless,
        Self::WirelessQos,
        Self::Radiotap,
        Self::RadiotapPadded,
        Self::IpInIp,
        Self::Gre,
        Self::GrePptp,
        Self::GreEthernet,
        Self::Vxlan,
        Self::GeneveEthernet,
        Self::GeneveIp,
        Self::TunnelInTunnel,
    ];

    pub(crate) fn number(self, packet: &[u8]) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan | Self::QinQ => 1,
            Self::Sll | Self::SllVlan => 113,
            Self::Sll2 => 276,
            Self::Raw => 101,
            Self::RawBsd => 12,
            Self::Ip => {
                if is_v6(packet) {
                    229
                } else {
                    228
                }
            }
            Self::Null | Self::NullSwapped => 0,
            Self::Loop => 108,
            Self::Ppp | Self::PppShort => 9,
            Self::PppInHdlc => 50,
            Self::CiscoHdlc => 104,
            Self::PppPppd => 166,
            Self::PppWithDirection => 204,
            Self::PppEther => 51,
            Self::Wireless | Self::WirelessQos => 105,
            Self::Radiotap | Self::RadiotapPadded => 127,
            Self::Pppoe
            | Self::Mpls
            | Self::MplsEthernet
            | Self::IpInIp
            | Self::Gre
            | Self::GrePptp
            | Self::GreEthernet
            | Self::Vxlan
            | Self::GeneveEthernet
            | Self::GeneveIp
            | Self::TunnelInTunnel => 1,
        }
    }

    pub(crate) fn wrap(self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = if is_v6(packet) { [0x86, 0xdd] } else { [8, 0] };
        let family: u32 = if is_v6(packet) { 30 } else { 2 };
        let mut frame = Vec::new();
        match self {
            Self::Ethernet => return ethernet(packet),
            Self::Vlan => frame.extend([&[2; 12][..], &[0x81, 0, 0, 5]].concat()),
            Self::QinQ => {
                frame.extend([&[2; 12][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]].concat());
            }
            Self::Sll => frame.extend([0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0]),
            Self::SllVlan => {
                frame.extend([0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 0x81, 0, 0, 5]);
            }
            Self::Sll2 => frame.extend([
                kind[0], kind[1], 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0,
            ]),
            Self::Null => frame.extend(family.to_le_bytes()),
            Self::NullSwapped | Self::Loop => frame.extend(family.to_be_bytes()),
            Self::Raw | Self::RawBsd | Self::Ip => {}
            _ => return self.wrap_deeper(packet, kind),
        }
        if matches!(self, Self::Vlan | Self::QinQ | Self::Sll | Self::SllVlan) {
            frame.extend(kind);
        }
        frame.extend(packet);
        frame
    }
}

impl Link {
    fn wrap_deeper(self, packet: &[u8], kind: [u8; 2]) -> Vec<u8> {
        let ppp: [u8; 2] = if is_v6(packet) { [0, 0x57] } else { [0, 0x21] };
        let unpadded = |kind: [u8; 2], packet: &[u8]| [&[2; 12][..], &kind, packet].concat();
        let [from, to] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let outer = |protocol, content: &[u8]| ip(from, to, protocol, content);
        let in_ip = |protocol, content: &[u8]| unpadded([8, 0], &outer(protocol, content));
        let udp = |port: u16, content: &[u8]| {
            let len = (8 + content.len() as u16).to_be_bytes();
            [&[0xc0, 0][..], &port.to_be_bytes(), &len, &[0, 0], content].concat()
        };
        let vxlan = udp(
            4789,
            &[&[8, 0, 0, 0, 0, 0, 7, 0][..], &unpadded(kind, packet)].concat(),
        );
        let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind, packet].concat();
        let wireless =
            |control: [u8; 2], more: &[u8]| [&control[..], &[0; 22], more, &snap].concat();
        match self {
            Self::Ppp | Self::PppInHdlc => [&[0xff, 3][..], &ppp, packet].concat(),
            Self::PppShort => [&ppp[1..], packet].concat(),
            Self::CiscoHdlc => [&[0x0f, 0][..], &kind, packet].concat(),
            Self::PppPppd => [&[1, 3][..], &ppp, packet].concat(),
            Self::PppWithDirection => [&[0, 0xff, 3][..], &ppp, packet].concat(),
            Self::PppEther => [&[0x11, 0, 0, 1, 0, 9][..], &ppp, packet].concat(),
            Self::Pppoe => {
                let session = [&[0x11, 0, 0, 1, 0, 9][..], &ppp, packet].concat();
                unpadded([0x88, 0x64], &session)
            }
            Self::Mpls => {
                let labels = [0, 1, 0x40, 64, 0, 2, 0x41, 64];
                unpadded([0x88, 0x47], &[&labels[..], packet].concat())
            }
            Self::MplsEthernet => {
                let wire = [&[0, 2, 1, 64, 0, 0, 0, 0][..], &unpadded(kind, packet)].concat();
                unpadded([0x88, 0x48], &wire)
            }
            Self::Wireless => wireless([0x08, 0x01], &[]),
            Self::WirelessQos => wireless(
                [0x88, 0x83],
                &[[0; 6].as_slice(), &[5, 0], &[0; 4]].concat(),
            ),
            // Time, flags.
            Self::Radiotap => {
                let head = [&[0, 0, 17, 0, 3, 0, 0, 0][..], &[9; 8], &[0x10]].concat();
                [head, wireless([0x08, 0x02], &[])].concat()
            }
            // Two presence words, flags that announce padding; 26 bytes become 28.
            Self::RadiotapPadded => {
                let head = [0, 0, 13, 0, 2, 0, 0, 0x80, 0, 0, 0, 0, 0x20];
                [&head[..], &wireless([0x88, 0x02], &[0, 0, 0, 0])].concat()
            }
            Self::IpInIp => in_ip(if is_v6(packet) { 41 } else { 4 }, packet),
            Self::Gre => in_ip(47, &[&[0x80, 0][..], &kind, &[0; 4], packet].concat()),
            Self::GrePptp => {
                let head = [0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
                in_ip(47, &[&head[..], &ppp, packet].concat())
            }
            Self::GreEthernet => {
                let head = [0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2];
                in_ip(47, &[&head[..], &unpadded(kind, packet)].concat())
            }
            Self::Vxlan => in_ip(17, &vxlan),
            Self::GeneveEthernet => {
                let head = [2, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 1, 2, 1, 0, 0, 0, 0];
                in_ip(
                    17,
                    &udp(6081, &[&head[..], &unpadded(kind, packet)].concat()),
                )
            }
            Self::GeneveIp => {
                let head = [0, 0, kind[0], kind[1], 0, 0, 1, 0];
                in_ip(17, &udp(6081, &[&head[..], packet].concat()))
            }
            Self::TunnelInTunnel => {
                let gre = [&[0, 0, 8, 0][..], &outer(17, &vxlan)].concat();
                [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], &outer(47, &gre)].concat()
            }
            _ => unreachable!("{self:?} has its bytes in wrap"),
        }
    }
}

fn is_v6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}
