//! The filter of frames for one viewer.

use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr};

use monitor_common::frame::opcode;

use super::{super::endpoint::Endpoint, FrameRecord, InvalidOpcode, OpcodeName};
use monitor_core::{ConnId, facts::Direction};

/// A frame passes if it satisfies every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of either end of the connection.
    pub port: Option<u16>,
    pub peer: Option<Peers>,
    pub opcodes: Option<Opcodes>,
    pub direction: Option<Direction>,
    /// Either end of the connection.
    pub endpoint: Option<Endpoint>,
    pub cookie: Option<ConnId>,
    /// Close, ping, pong, and the reserved control opcodes (RFC 6455 §5.5).
    pub control_only: bool,
}

impl Filter {
    pub fn accepts(&self, frame: &FrameRecord) -> bool {
        let Self {
            port,
            peer,
            opcodes,
            direction,
            endpoint,
            cookie,
            control_only,
        } = self;
        port.is_none_or(|port| frame.local.port() == port || frame.peer.port() == port)
            && peer.is_none_or(|peers| peers.contains(frame.peer.ip()))
            && opcodes.is_none_or(|opcodes| opcodes.contains(frame.opcode))
            && direction.is_none_or(|direction| frame.direction == direction)
            && endpoint.is_none_or(|endpoint| {
                endpoint.matches(frame.peer) || endpoint.matches(frame.local)
            })
            && cookie.is_none_or(|cookie| frame.cookie == cookie)
            && (!control_only || frame.opcode >= opcode::CLOSE)
    }
}

/// A set of opcodes, written `text,ping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcodes(u16);

impl Opcodes {
    pub fn contains(self, opcode: u8) -> bool {
        self.0 & (1 << (opcode & 0xf)) != 0
    }
}

impl fmt::Display for Opcodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = (0..=0xf).filter(|raw| self.contains(*raw)).map(OpcodeName);
        for (i, name) in names.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

impl FromStr for Opcodes {
    type Err = InvalidOpcode;

    fn from_str(text: &str) -> Result<Self, InvalidOpcode> {
        text.split(',')
            .map(|name| name.trim().parse())
            .try_fold(Self(0), |set, name| {
                let OpcodeName(raw) = name?;
                Ok(Self(set.0 | 1 << raw))
            })
    }
}

/// An address, or a block of them in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    network: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address {0:?}, expected one like 10.0.0.7, 10.0.0.0/8 or fd00::/8")]
pub struct InvalidPeers(String);

impl Peers {
    /// An IPv4 peer of a dual-stack socket matches by its IPv4 address.
    pub fn contains(self, peer: IpAddr) -> bool {
        let differing = match (self.network, peer.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(peer)) => {
                u128::from(network.to_bits() ^ peer.to_bits()) << 96
            }
            (IpAddr::V6(network), IpAddr::V6(peer)) => network.to_bits() ^ peer.to_bits(),
            _ => return false,
        };
        differing.leading_zeros() >= self.prefix.into()
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Peers {
    type Err = InvalidPeers;

    fn from_str(text: &str) -> Result<Self, InvalidPeers> {
        let wrong = || InvalidPeers(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let mut network: IpAddr = address.parse().map_err(|_| wrong())?;
        if prefix.is_none() {
            network = network.to_canonical();
        }
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => bits,
        };
        if prefix > bits {
            return Err(wrong());
        }
        Ok(Self { network, prefix })
    }
}

/// A sampling rate, written `1/100` or `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OneIn(pub NonZeroU32);

impl OneIn {
    pub const ALL: Self = Self(NonZeroU32::MIN);
}

impl fmt::Display for OneIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1/{}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid share {0:?}, expected 1/100 for one frame in a hundred")]
pub struct InvalidShare(String);

impl FromStr for OneIn {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        text.strip_prefix("1/")
            .unwrap_or(text)
            .parse()
            .map(Self)
            .map_err(|_| InvalidShare(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::frame, *};

    fn peers(text: &str) -> Peers {
        text.parse().expect(text)
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn without_conditions_everything_passes_and_each_condition_can_refuse() {
        let frame = frame();
        assert!(Filter::default().accepts(&frame));
        let all = |filter: fn(&mut Filter)| {
            let mut it = Filter::default();
            filter(&mut it);
            it.accepts(&frame)
        };
        for (passes, refused) in [
            (
                all(|f| f.port = Some(8080)) && all(|f| f.port = Some(53_787)),
                all(|f| f.port = Some(80)),
            ),
            (
                all(|f| f.peer = Some(peers("10.77.1.0/24"))),
                all(|f| f.peer = Some(peers("10.77.2.0/24"))),
            ),
            (
                all(|f| f.opcodes = Some(Opcodes(1 << opcode::TEXT))),
                all(|f| f.opcodes = Some(Opcodes(1 << opcode::PING))),
            ),
            (
                all(|f| f.direction = Some(Direction::Tx)),
                all(|f| f.direction = Some(Direction::Rx)),
            ),
            (
                all(|f| f.endpoint = Some(endpoint("10.77.1.12:53787")))
                    && all(|f| f.endpoint = Some(endpoint(":8080"))),
                all(|f| f.endpoint = Some(endpoint("10.77.1.12:8080"))),
            ),
            (
                all(|f| f.cookie = Some(ConnId(u64::MAX))),
                all(|f| f.cookie = Some(ConnId(1))),
            ),
            (
                all(|f| f.control_only = false),
                all(|f| f.control_only = true),
            ),
        ] {
            assert!(passes);
            assert!(!refused);
        }
        let both = Filter {
            port: Some(8080),
            direction: Some(Direction::Rx),
            ..Filter::default()
        };
        assert!(!both.accepts(&frame), "one of two conditions is not enough");
    }

    #[test]
    fn control_frames_are_those_with_the_top_bit_of_the_opcode() {
        let control = Filter {
            control_only: true,
            ..Filter::default()
        };
        for raw in 0..=0xf {
            let frame = FrameRecord {
                opcode: raw,
                ..frame()
            };
            assert_eq!(control.accepts(&frame), raw >= 8, "{raw}");
        }
    }

    #[test]
    fn blocks_contain_the_addresses_with_their_prefix() {
        for (block, inside, outside) in [
            ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.9.9.9/8", "10.255.1.2", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "fd00::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("10.0.0.7", "::ffff:10.0.0.7", "::10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
        ] {
            let address = |text: &str| text.parse().expect(text);
            assert!(peers(block).contains(address(inside)), "{block} {inside}");
            assert!(
                !peers(block).contains(address(outside)),
                "{block} {outside}"
            );
        }
    }

    #[test]
    fn conditions_are_displayed_in_the_form_they_are_parsed_from() {
        for text in ["10.0.0.0/8", "fd00::/8", "10.0.0.7/32"] {
            assert_eq!(peers(text).to_string(), text);
        }
        let opcodes: Opcodes = "ping, text,reserved-3".parse().expect("opcodes");
        assert_eq!(opcodes.to_string(), "text,reserved-3,ping");
        for (text, share) in [("1/100", "1/100"), ("7", "1/7"), ("1", "1/1")] {
            assert_eq!(text.parse::<OneIn>().expect(text).to_string(), share);
        }
    }

    #[test]
    fn an_invalid_value_is_quoted_in_its_refusal() {
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/",
            "host",
        ] {
            let error = wrong.parse::<Peers>().expect_err(wrong).to_string();
            assert!(
                error.starts_with(&format!("invalid address {wrong:?}")),
                "{error}"
            );
        }
        for wrong in ["", "text,", "TEXT", "text ping"] {
            assert!(wrong.parse::<Opcodes>().is_err(), "{wrong}");
        }
        for wrong in ["", "0", "1/0", "2/3", "-1", "1/", "0.5"] {
            assert!(wrong.parse::<OneIn>().is_err(), "{wrong}");
        }
    }
}
