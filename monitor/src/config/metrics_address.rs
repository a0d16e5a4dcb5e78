//! Where the metrics server listens, in the spellings that people use.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::DEFAULT_METRICS_ADDR;

/// An address of the metrics server. Its names are resolved when it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// No metrics server.
    None,
    /// `:6455`: every address of this host.
    Everywhere(u16),
    /// One address: `6455` on loopback, `10.0.0.5:6455`, `[::1]`.
    Address(SocketAddr),
    /// `localhost:6455`: every address of this name.
    Name(String, u16),
}

/// Where the metrics are, once an address is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsUrl {
    pub addr: SocketAddr,
    pub has_tls: bool,
}

impl MetricsUrl {
    /// For others, if the address is that of `host`.
    pub fn on(&self, host: &str) -> String {
        match self.addr.ip().is_unspecified() {
            true => format!("{}://{host}:{}/metrics", self.scheme(), self.addr.port()),
            false => self.to_string(),
        }
    }

    fn scheme(&self) -> &'static str {
        match self.has_tls {
            true => "https",
            false => "http",
        }
    }
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/metrics", self.scheme(), self.addr)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address {0:?}, expected ADDR:PORT, NAME:PORT, :PORT for every address, PORT for loopback, or none"
)]
pub struct InvalidMetricsAddress(String);

impl FromStr for MetricsAddress {
    type Err = InvalidMetricsAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMetricsAddress(text.to_owned());
        let port = |port: &str| port.parse::<u16>().map_err(|_| invalid());
        let default_port = DEFAULT_METRICS_ADDR.port();
        if text == "none" {
            return Ok(Self::None);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(number) = text.parse() {
            let loopback = DEFAULT_METRICS_ADDR.ip();
            return Ok(Self::Address(SocketAddr::new(loopback, number)));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(ip, default_port)));
        }
        match text.rsplit_once(':') {
            Some(("", number)) => Ok(Self::Everywhere(port(number)?)),
            Some((name, number)) if is_name(name) => Ok(Self::Name(name.to_owned(), port(number)?)),
            None if is_name(text) => Ok(Self::Name(text.to_owned(), default_port)),
            _ => Err(invalid()),
        }
    }
}

/// Whether it can be the name of a host. A word of digits and dots is a mistyped address.
fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.chars().all(is_letter) && text.contains(|c: char| c.is_ascii_alphabetic())
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let address: MetricsAddress = text.parse().expect(text);
        address.to_string()
    }

    #[test]
    fn the_usual_spellings_are_read() {
        for (given, meaning) in [
            ("none", "none"),
            ("127.0.0.1:6455", "127.0.0.1:6455"),
            ("9436", "127.0.0.1:9436"),
            (":9436", ":9436"),
            ("0.0.0.0", "0.0.0.0:6455"),
            ("[::1]:9436", "[::1]:9436"),
            ("[::1]", "[::1]:6455"),
            ("::1", "[::1]:6455"),
            ("localhost:9436", "localhost:9436"),
            ("metrics.example", "metrics.example:6455"),
        ] {
            assert_eq!(shown(given), meaning);
        }
        assert_eq!(
            ":9436".parse(),
            Ok(MetricsAddress::Everywhere(9436)),
            "not loopback alone"
        );
    }

    #[test]
    fn a_url_names_the_host_if_the_address_is_every_address() {
        let url = |addr: &str, has_tls| MetricsUrl {
            addr: addr.parse().expect(addr),
            has_tls,
        };
        let everywhere = url("[::]:6455", true);
        assert_eq!(everywhere.to_string(), "https://[::]:6455/metrics");
        assert_eq!(everywhere.on("db1"), "https://db1:6455/metrics");
        let loopback = url("127.0.0.1:1", false);
        assert_eq!(loopback.on("db1"), "http://127.0.0.1:1/metrics");
    }

    #[test]
    fn a_mistyped_address_is_no_name() {
        for text in [
            "",
            ":",
            ":http",
            "70000",
            "127.0.0.1:70000",
            "127.0.0",
            "127.0.0:80",
            "[::1]:",
            "::1:x",
            "a b:80",
            "http://localhost:6455",
        ] {
            let refusal = text.parse::<MetricsAddress>().expect_err(text).to_string();
            assert!(refusal.starts_with("invalid address"), "{refusal}");
        }
    }
}
