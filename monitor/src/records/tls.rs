//! What the records of a TLS connection show without a key.

use std::fmt;

use serde::Serialize;

use super::numbers::seconds;
use monitor_core::{Detail, detail::TlsFacts};

/// A TLS connection whose records are followed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TlsSummary {
    /// As in `1.3`; `None` if the ServerHello was not seen.
    pub version: Option<&'static str>,
    /// `learned`, `none` as long as no heartbeat was recognised, or `refused`.
    pub heartbeat: &'static str,
    /// Why no heartbeat can be recognised: `h2` or `block_cipher`.
    pub refused_for: Option<&'static str>,
    /// Of the inferred heartbeat; the shorter one if both sides have one.
    pub heartbeat_interval_seconds: Option<f64>,
}

impl TlsSummary {
    /// `None` unless the connection's TLS records are followed.
    pub fn new(detail: &Detail) -> Option<Self> {
        let tls = detail.tls?;
        let sides = [&detail.rx, &detail.tx];
        let interval = sides.iter().filter_map(|side| side.ping_interval).min();
        let refused_for = refused_for(tls);
        Some(Self {
            version: version(tls),
            heartbeat: match (refused_for, interval) {
                (Some(_), _) => "refused",
                (None, Some(_)) => "learned",
                (None, None) => "none",
            },
            refused_for,
            heartbeat_interval_seconds: interval.map(seconds),
        })
    }
}

impl fmt::Display for TlsSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.unwrap_or("version unknown"))?;
        match (self.refused_for, self.heartbeat_interval_seconds) {
            (Some("h2"), _) => f.write_str(", heartbeat unknown: may be HTTP/2"),
            (Some(_), _) => f.write_str(", heartbeat unknown: block cipher"),
            (None, Some(interval)) => write!(f, ", heartbeat {interval:.1} s inferred"),
            (None, None) => Ok(()),
        }
    }
}

fn version(tls: TlsFacts) -> Option<&'static str> {
    match tls.version()? {
        1 => Some("1.0"),
        2 => Some("1.1"),
        3 => Some("1.2"),
        4 => Some("1.3"),
        _ => None,
    }
}

fn refused_for(tls: TlsFacts) -> Option<&'static str> {
    if tls.may_be_h2() {
        Some("h2")
    } else if tls.has_block_cipher() {
        Some("block_cipher")
    } else {
        None
    }
}
