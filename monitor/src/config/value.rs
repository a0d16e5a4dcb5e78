//! Values with their own syntax inside a quoted string. Each error has the value's position in the file
//! and the expected form.

use std::{
    fmt, marker::PhantomData, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration,
};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{endpoint::Endpoint, listeners::PortRange, metrics_address::MetricsAddress};

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

/// The name of a host, as a label of its alerts.
pub(crate) fn instance(text: &str) -> Result<String, String> {
    // An empty label would be none, and Prometheus' own has no blank at an end.
    match text.is_empty() || text.trim() != text || text.contains(char::is_control) {
        true => Err("expected a name like node-7 or 10.0.0.7:6455".to_owned()),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn instance_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    instance(&text)
        .map(Some)
        .map_err(|expected| D::Error::custom(format!("invalid instance {text:?}, {expected}")))
}

/// The connections that can be tracked.
pub(crate) fn max_connections(text: &str) -> Result<u32, String> {
    in_range(text, 1..=16_777_216)
}

/// The workloads of a listener that can have labels.
pub(crate) fn max_workloads(text: &str) -> Result<u16, String> {
    in_range(text, 1..=10_000)
}

fn in_range<T: FromStr + PartialOrd + fmt::Display>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected {} to {}", range.start(), range.end()))
}

struct Number;

impl Visitor<'_> for Number {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }
}

/// The value of `key`, a number that `parse` accepts.
fn number<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    let wanted = deserializer.deserialize_i64(Number)?;
    parse(&wanted.to_string())
        .map(Some)
        .map_err(|expected| D::Error::custom(format!("invalid {key} {wanted}, {expected}")))
}

pub(super) fn connections<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    number(deserializer, "max_connections", max_connections)
}

pub(super) fn workloads<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u16>, D::Error> {
    number(deserializer, "max_workloads", max_workloads)
}

/// One string or a list of them, each parsed as a `T`.
struct OneOrMany<T> {
    what: &'static str,
    value: PhantomData<T>,
}

/// A string of a list.
struct Element<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quoted(deserializer, "a string in quotes").map(Self)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list of them", self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        Ok(vec![text.parse().map_err(E::custom)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(Element(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }
}

pub(super) fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    deserializer.deserialize_any(OneOrMany {
        what: "an address like \"https://host/path\"",
        value: PhantomData,
    })
}

pub(super) fn metrics_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<MetricsAddress>, D::Error> {
    deserializer.deserialize_any(OneOrMany {
        what: "an address in quotes like \"127.0.0.1:6455\"",
        value: PhantomData,
    })
}
