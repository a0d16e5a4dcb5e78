//! The life of a connection in the terms of RFC 6455 (§4, §7): CONNECTING, OPEN, CLOSING, CLOSED.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{
    event::CloseHow,
    facts::{Closing, ClosingBy, ConnId, Direction, Facts, ListenerId, Protocol},
    handshake::RetryAfter,
    time::Ktime,
    verdict::Ending,
};

/// A connection went from one state to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub conn: ConnId,
    pub listener: ListenerId,
    /// This host's address and the peer's; `None` at an end of which only the cookie is known.
    pub endpoints: Option<[SocketAddr; 2]>,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: Ktime,
    /// `None` if the connection was unknown before.
    pub from: Option<State>,
    pub to: State,
    pub reason: Reason,
}

/// The states of a WebSocket connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// An upgrade was requested (RFC 6455 §4.1).
    Connecting,
    Open,
    /// A close frame or a FIN passed (§7.1.3).
    Closing,
    Closed,
}

impl State {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a connection changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An upgrade request passed.
    Requested,
    /// A 101 passed.
    Upgraded {
        /// Since TCP's ESTABLISHED, if that was seen.
        after: Option<Duration>,
    },
    /// TLS began.
    Tls,
    /// Found in mid-stream: older than the monitor, or missed by it.
    Found,
    /// The response was not a 101; `None` if it had no status code.
    Refused {
        status: Option<u16>,
        retry_after: Option<RetryAfter>,
    },
    /// The connection ended, or continued as plain HTTP, and no response was seen.
    NoAnswer,
    CloseFrame {
        by: Direction,
        code: Option<u16>,
    },
    Fin {
        by: Direction,
    },
    /// The socket reached CLOSE.
    Ended {
        how: CloseHow,
    },
    /// It carried plain HTTP.
    NotWebSocket,
    /// The socket is gone; its end was missed.
    Missed,
}

impl Transition {
    /// The opening of a connection that is first seen after its handshake. `upgraded` means that
    /// its 101 is known.
    pub fn opened(facts: &Facts, from: Option<State>, upgraded: bool) -> Self {
        let at = facts.opened_at.unwrap_or(facts.at);
        let reason = match (facts.protocol, facts.established_at) {
            (Protocol::Opaque, _) => Reason::Tls,
            (Protocol::WebSocket, Some(established_at)) => Reason::Upgraded {
                after: Some(at.since(established_at)),
            },
            (Protocol::WebSocket, None) if upgraded => Reason::Upgraded { after: None },
            (Protocol::WebSocket | Protocol::Assumed, _) => Reason::Found,
        };
        Self {
            conn: facts.conn,
            listener: facts.listener,
            endpoints: Some([facts.local, facts.peer]),
            at,
            from,
            to: State::Open,
            reason,
        }
    }

    pub fn closing(facts: &Facts, closing: Closing) -> Self {
        let reason = match closing.by {
            ClosingBy::CloseFrame(close) => Reason::CloseFrame {
                by: close.initiator,
                code: close.code,
            },
            ClosingBy::Fin(by) => Reason::Fin { by },
        };
        Self {
            conn: facts.conn,
            listener: facts.listener,
            endpoints: Some([facts.local, facts.peer]),
            at: closing.at,
            from: Some(State::Open),
            to: State::Closing,
            reason,
        }
    }
}

impl Ending {
    /// Why a connection without final facts is closed.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Dismissed => Reason::NotWebSocket,
            Self::Closed(how) => Reason::Ended { how },
            Self::Recovered | Self::Superseded | Self::Reaped | Self::Gone => Reason::Missed,
        }
    }
}

/// Human-readable: `close frame 1000 from peer`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Requested => f.write_str("upgrade requested"),
            Self::Upgraded { after: None } => f.write_str("101"),
            Self::Upgraded { after: Some(after) } => {
                write!(f, "101 after {} ms", after.as_millis())
            }
            Self::Tls => f.write_str("TLS began"),
            Self::Found => f.write_str("found"),
            Self::Refused {
                status,
                retry_after,
            } => {
                match status {
                    Some(status) => write!(f, "refused {status}")?,
                    None => f.write_str("refused without a status")?,
                }
                match retry_after {
                    Some(RetryAfter::Delay(delay)) => {
                        write!(f, ", retry after {} s", delay.as_secs())
                    }
                    Some(RetryAfter::At(at)) => write!(f, ", retry after {at}"),
                    None => Ok(()),
                }
            }
            Self::NoAnswer => f.write_str("no answer"),
            Self::CloseFrame {
                by,
                code: Some(code),
            } => write!(f, "close frame {code} from {}", by.sender()),
            Self::CloseFrame { by, code: None } => {
                write!(f, "close frame without code from {}", by.sender())
            }
            Self::Fin { by } => write!(f, "fin from {}", by.sender()),
            Self::Ended { how } => f.write_str(how.as_str()),
            Self::NotWebSocket => f.write_str("not a WebSocket"),
            Self::Missed => f.write_str("end missed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_human_readable() {
        let second = Duration::from_secs(1);
        let date = "2026-11-22T20:00:00Z".parse().expect("a date");
        let refused = |status, retry_after| Reason::Refused {
            status,
            retry_after,
        };
        let (peer, local) = (Direction::Rx, Direction::Tx);
        for (reason, expected) in [
            (
                Reason::Upgraded {
                    after: Some(second),
                },
                "101 after 1000 ms",
            ),
            (refused(Some(403), None), "refused 403"),
            (
                refused(Some(429), Some(RetryAfter::Delay(second * 30))),
                "refused 429, retry after 30 s",
            ),
            (
                refused(Some(503), Some(RetryAfter::At(date))),
                "refused 503, retry after 2026-11-22T20:00:00Z",
            ),
            (
                Reason::CloseFrame {
                    by: peer,
                    code: Some(1000),
                },
                "close frame 1000 from peer",
            ),
            (Reason::Fin { by: local }, "fin from local"),
            (
                Reason::Ended {
                    how: CloseHow::RstReceived,
                },
                "rst_received",
            ),
            (Reason::NoAnswer, "no answer"),
        ] {
            assert_eq!(reason.to_string(), expected);
        }
    }
}
