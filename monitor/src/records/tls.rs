//! What the records of a TLS connection show without a key.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::numbers::seconds;
use monitor_core::{Detail, detail::TlsFacts, facts::InferredHeartbeat};

/// A TLS connection whose records are followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsSummary {
    /// As in `1.3`; `None` if the ServerHello was not seen.
    pub version: Option<Cow<'static, str>>,
    pub heartbeat: InferredHeartbeat,
    /// Why no heartbeat can be recognised: `h2` or `block_cipher`.
    pub refused_for: Option<Cow<'static, str>>,
    /// Of the inferred heartbeat; the shorter one if both sides have one.
    pub heartbeat_interval_seconds: Option<f64>,
}

impl TlsSummary {
    /// `None` unless the connection's TLS records are followed.
    pub fn new(detail: &Detail) -> Option<Self> {
        let tls = detail.tls?;
        let sides = [&detail.rx, &detail.tx];
        let interval = sides.iter().filter_map(|side| side.ping_interval).min();
        Some(Self {
            version: version(tls).map(Cow::Borrowed),
            heartbeat: detail.facts.heartbeat?,
            refused_for: refused_for(tls).map(Cow::Borrowed),
            heartbeat_interval_seconds: interval.map(seconds),
        })
    }
}

impl fmt::Display for TlsSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.as_deref().unwrap_or("version unknown"))?;
        match (self.refused_for.as_deref(), self.heartbeat_interval_seconds) {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::records::connections::tests::detail;

    /// With TLS 1.3 and a heartbeat of 25 s.
    pub(crate) fn with_heartbeat() -> TlsSummary {
        TlsSummary {
            version: Some("1.3".into()),
            heartbeat: InferredHeartbeat::Learned,
            refused_for: None,
            heartbeat_interval_seconds: Some(25.0),
        }
    }

    #[test]
    fn the_text_has_the_interval_or_why_there_is_none() {
        let summary = with_heartbeat();
        assert_eq!(summary.to_string(), "1.3, heartbeat 25.0 s inferred");
        let unlearned = TlsSummary {
            version: None,
            heartbeat: InferredHeartbeat::Unlearned,
            heartbeat_interval_seconds: None,
            ..summary.clone()
        };
        assert_eq!(unlearned.to_string(), "version unknown");
        for (reason, text) in [
            ("h2", "1.3, heartbeat unknown: may be HTTP/2"),
            ("block_cipher", "1.3, heartbeat unknown: block cipher"),
        ] {
            let refused = TlsSummary {
                heartbeat: InferredHeartbeat::Refused,
                refused_for: Some(reason.into()),
                ..summary.clone()
            };
            assert_eq!(refused.to_string(), text);
        }
    }

    #[test]
    fn its_json_has_the_names_of_the_metrics_and_can_be_read_back() {
        for &state in InferredHeartbeat::ALL {
            let summary = TlsSummary {
                heartbeat: state,
                ..with_heartbeat()
            };
            let json = serde_json::to_string(&summary).expect("JSON");
            let field = format!(r#""heartbeat":"{}""#, state.as_str());
            assert!(json.contains(&field), "{json}");
            assert_eq!(
                serde_json::from_str::<TlsSummary>(&json).ok(),
                Some(summary)
            );
        }
    }

    #[test]
    fn other_connections_have_none() {
        assert_eq!(TlsSummary::new(&detail(7)), None);
    }
}
