//! One frame as a record: the line of `wsmon frames` and of `wsmon replay`.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use jiff::Timestamp;
use monitor_common::frame::opcode;
use serde::{Deserialize, Serialize};

use crate::records::json;
use monitor_core::{ConnId, facts::Direction};

mod filter;
mod frame_row;

pub use filter::{Filter, OneIn, Opcodes, Peers};
pub use frame_row::{Clock, FrameLayout, FrameRow, RoundTrip};

/// One WebSocket frame header (RFC 6455 §5.2) and its connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "frame")]
pub struct FrameRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    #[serde(with = "json::cookie")]
    pub cookie: ConnId,
    /// The listener's name.
    pub listener: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// As seen from this host.
    #[serde(with = "json::direction")]
    pub direction: Direction,
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as bits 2, 1, 0.
    pub rsv: u8,
    /// The raw four bits; see [`opcode`].
    #[serde(with = "json::opcode")]
    pub opcode: u8,
    pub masked: bool,
    /// Payload length, bytes.
    pub length: u64,
    /// For a pong that answers a ping.
    #[serde(
        default,
        rename = "ping_rtt_seconds",
        skip_serializing_if = "Option::is_none",
        with = "json::seconds"
    )]
    pub ping_rtt: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
}

/// An opcode in text form: its name, with its number if it is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpcodeName(pub u8);

impl fmt::Display for OpcodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match opcode::name(self.0) {
            "reserved" => f.pad(&format!("reserved-{}", self.0)),
            name => f.pad(name),
        }
    }
}

/// Not one of RFC 6455's opcodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid opcode {0:?}, expected continuation, text, binary, close, ping, pong, or reserved-3 to reserved-15"
)]
pub struct InvalidOpcode(String);

impl FromStr for OpcodeName {
    type Err = InvalidOpcode;

    fn from_str(text: &str) -> Result<Self, InvalidOpcode> {
        (0..=0xf)
            .map(Self)
            .find(|name| name.to_string() == text)
            .ok_or_else(|| InvalidOpcode(text.to_owned()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An unmasked text frame of 5 bytes from this host.
    pub(crate) fn frame() -> FrameRecord {
        FrameRecord {
            ts: "2026-11-22T18:37:52.533Z".parse().expect("a time stamp"),
            cookie: ConnId(u64::MAX),
            listener: "8080".to_owned(),
            local: ([10, 77, 2, 10], 8080).into(),
            peer: ([10, 77, 1, 12], 53_787).into(),
            direction: Direction::Tx,
            fin: true,
            rsv: 0,
            opcode: opcode::TEXT,
            masked: false,
            length: 5,
            ping_rtt: None,
            close_code: None,
        }
    }

    #[test]
    fn a_frame_is_one_json_object_and_can_be_read_back() {
        let frames = [
            frame(),
            FrameRecord {
                direction: Direction::Rx,
                opcode: opcode::PONG,
                ping_rtt: Some(Duration::from_micros(1500)),
                ..frame()
            },
            FrameRecord {
                opcode: 0xb,
                close_code: Some(1001),
                ..frame()
            },
        ];
        let text = frames.each_ref().map(|frame| {
            let text = serde_json::to_string(frame).expect("JSON");
            let back: FrameRecord = serde_json::from_str(&text).expect("a frame");
            assert_eq!(back, *frame);
            text
        });
        assert_eq!(
            text[0],
            r#"{"type":"frame","ts":"2026-11-22T18:37:52.533000Z","cookie":"18446744073709551615","listener":"8080","local":"10.77.2.10:8080","peer":"10.77.1.12:53787","direction":"tx","fin":true,"rsv":0,"opcode":"text","masked":false,"length":5}"#
        );
        assert!(text[1].contains(r#""opcode":"pong""#), "{}", text[1]);
        assert!(
            text[1].contains(r#""ping_rtt_seconds":0.0015"#),
            "{}",
            text[1]
        );
        assert!(text[2].contains(r#""opcode":"reserved-11""#), "{}", text[2]);
        assert!(text[2].contains(r#""close_code":1001"#), "{}", text[2]);
    }

    #[test]
    fn every_opcode_has_one_name() {
        for raw in 0..=0xf {
            let name = OpcodeName(raw).to_string();
            assert_eq!(name.parse(), Ok(OpcodeName(raw)), "{name}");
        }
        for wrong in ["", "Text", "reserved", "reserved-1", "16"] {
            assert!(wrong.parse::<OpcodeName>().is_err(), "{wrong}");
        }
    }
}
