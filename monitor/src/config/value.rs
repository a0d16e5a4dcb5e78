//! Values with their own syntax inside a quoted string. Each error has the value's position in the file
//! and the expected form.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{DEFAULT_METRICS_ADDR, endpoint::Endpoint, listeners::PortRange};

/// A duration longer than zero, written `60s`, `5m` or `1500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Duration);

/// A network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

/// A watched port or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports(pub(super) PortRange);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|error| {
            format!("invalid duration {text:?} ({error}), expected one like 60s, 5m or 1500ms")
        })?;
        if duration.is_zero() {
            return Err("it must be longer than zero".into());
        }
        Ok(Self(duration))
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| {
                format!(
                    "invalid network {text:?}, expected one like 10.0.0.0/8, fd00::/8 or 10.0.0.7"
                )
            })
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: crate::config::listeners::PortRangeError| error.to_string())
    }
}

/// A quoted string that is parsed as a `T`.
struct Quoted<'a, T> {
    /// What was expected, in place of the text of `toml`.
    what: &'a str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Quoted<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

fn quoted<'de, D, T>(deserializer: D, what: &str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let value = PhantomData;
    deserializer.deserialize_str(Quoted { what, value })
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quoted(deserializer, "a duration in quotes, like \"60s\"")
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quoted(deserializer, "a network in quotes, like \"10.0.0.0/8\"")
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quoted(
            deserializer,
            "ports in quotes, like \"8080\" or \"9000-9010\"",
        )
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    struct Address(SocketAddr);
    impl FromStr for Address {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            text.parse().map(Self).map_err(|_| {
                format!(
                    "invalid address {text:?}, expected one with a port like {DEFAULT_METRICS_ADDR}"
                )
            })
        }
    }
    let address: Address = quoted(
        deserializer,
        &format!("an address in quotes, like \"{DEFAULT_METRICS_ADDR}\""),
    )?;
    Ok(Some(address.0))
}

pub(super) fn connections<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    let wanted = i64::deserialize(deserializer)?;
    match u32::try_from(wanted) {
        Ok(wanted @ 1..=16_777_216) => Ok(Some(wanted)),
        _ => Err(D::Error::custom(format!(
            "{wanted} is not in 1..=16777216, the connections that can be tracked"
        ))),
    }
}

pub(super) fn workloads<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    let wanted = i64::deserialize(deserializer)?;
    match u16::try_from(wanted) {
        Ok(wanted @ 1..=10_000) => Ok(Some(wanted)),
        _ => Err(D::Error::custom(format!(
            "{wanted} is not in 1..=10000, the workloads that can have labels"
        ))),
    }
}

/// One string or a list of them.
pub(super) fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    #[derive(Deserialize)]
    struct Element(#[serde(deserialize_with = "url")] Endpoint);

    struct Urls;
    impl<'de> Visitor<'de> for Urls {
        type Value = Vec<Endpoint>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address like \"https://host/path\", or a list of them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Endpoint>, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Endpoint>, A::Error> {
            let mut urls = Vec::new();
            while let Some(Element(url)) = list.next_element()? {
                urls.push(url);
            }
            Ok(urls)
        }
    }
    deserializer.deserialize_any(Urls)
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    quoted(
        deserializer,
        "an address in quotes, like \"https://host/path\"",
    )
}
