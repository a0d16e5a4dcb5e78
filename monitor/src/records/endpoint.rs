//! An end of a connection, as people write it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::connections::ConnectionRecord;

/// An address, a port, or both: `10.0.0.7`, `[::1]:5000`, `:5000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IPv4 address of a dual-stack socket is in its IPv4 form.
    ip: Option<IpAddr>,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address {0:?}, expected one like 10.0.0.7, 10.0.0.7:53787, [fd00::7]:53787 or :53787"
)]
pub struct InvalidEndpoint(String);

impl Endpoint {
    /// Whether it is either end of the connection.
    pub fn is_end_of(self, record: &ConnectionRecord) -> bool {
        self.matches(record.peer) || self.matches(record.local)
    }

    pub fn matches(self, addr: SocketAddr) -> bool {
        self.ip.is_none_or(|ip| ip == addr.ip().to_canonical())
            && self.port.is_none_or(|port| port == addr.port())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port).fmt(f),
            (Some(ip), None) => ip.fmt(f),
            (None, Some(port)) => write!(f, ":{port}"),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let (ip, port) = if let Some(port) = text.strip_prefix(':')
            && port.bytes().all(|byte| byte.is_ascii_digit())
        {
            (None, Some(port.parse().map_err(|_| invalid())?))
        } else if let Ok(addr) = text.parse::<SocketAddr>() {
            (Some(addr.ip()), Some(addr.port()))
        } else {
            let bare = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            let ip = match bare {
                Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::V6),
                None => text.parse(),
            };
            (Some(ip.map_err(|_| invalid())?), None)
        };
        if port == Some(0) {
            return Err(invalid());
        }
        let ip = ip.map(|ip: IpAddr| ip.to_canonical());
        Ok(Self { ip, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn an_endpoint_matches_what_it_names() {
        for (text, matched, other) in [
            ("10.0.0.7", "10.0.0.7:1", "10.0.0.8:1"),
            ("10.0.0.7:5000", "10.0.0.7:5000", "10.0.0.7:5001"),
            ("10.0.0.7:5000", "[::ffff:10.0.0.7]:5000", "10.0.0.8:5000"),
            ("::ffff:10.0.0.7", "10.0.0.7:1", "[::1]:1"),
            ("::1", "[::1]:5000", "[::2]:5000"),
            ("[::1]", "[::1]:5000", "[::2]:5000"),
            ("[::1]:5000", "[::1]:5000", "[::1]:5001"),
            (":5000", "10.0.0.7:5000", "10.0.0.7:5001"),
            (":5000", "[::1]:5000", "[::1]:50"),
        ] {
            let address = |text: &str| text.parse().expect(text);
            assert!(endpoint(text).matches(address(matched)), "{text} {matched}");
            assert!(!endpoint(text).matches(address(other)), "{text} {other}");
        }
    }

    #[test]
    fn an_endpoint_is_displayed_in_a_form_that_is_parsed_again() {
        for text in ["10.0.0.7", "10.0.0.7:5000", "::1", "[::1]:5000", ":5000"] {
            assert_eq!(endpoint(text).to_string(), text);
        }
        assert_eq!(endpoint("[::1]").to_string(), "::1");
    }

    #[test]
    fn an_invalid_endpoint_is_quoted_in_its_refusal() {
        for wrong in [
            "",
            ":",
            ":0",
            ":+1",
            ":65536",
            "10.0.0",
            "10.0.0.7:",
            "10.0.0.7:0",
            "[10.0.0.7]",
            "[::1",
            "host:80",
            "10.0.0.0/8",
        ] {
            let error = wrong.parse::<Endpoint>().expect_err(wrong).to_string();
            assert!(
                error.starts_with(&format!("invalid address {wrong:?}, expected")),
                "{error}"
            );
        }
    }
}
