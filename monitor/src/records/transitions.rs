//! A connection's change of state as a record: in `/v1/events`, `wsmon inspect --follow` and
//! `wsmon replay`.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::json;
use monitor_core::{
    ConnId, Transition,
    facts::Direction,
    handshake::RetryAfter,
    transition::{Reason, State},
};

/// A connection went from one state to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "transition")]
pub struct TransitionRecord {
    #[serde(with = "json::ts")]
    pub ts: Timestamp,
    #[serde(with = "json::cookie")]
    pub cookie: ConnId,
    /// The listener's name.
    pub listener: String,
    /// `None` at an end of which only the cookie is known.
    pub local: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// `None` if the connection was unknown before.
    pub from: Option<State>,
    pub to: State,
    pub trigger: Trigger,
    /// The trigger, for people.
    pub reason: String,
}

/// What changed a connection's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trigger {
    /// An upgrade request passed.
    Requested,
    /// A 101 passed.
    Upgraded {
        /// From TCP's ESTABLISHED to the 101, if the former was seen.
        after_seconds: Option<f64>,
    },
    /// TLS began.
    Tls,
    /// Found in mid-stream: older than the monitor, or missed by it.
    Found,
    /// The response was not a 101.
    Refused {
        /// `None` if it had no status code.
        status: Option<u16>,
        /// When the client may come back (RFC 9110 §10.2.3), as a delay or as a moment.
        retry_after_seconds: Option<u64>,
        #[serde(with = "json::ts::option")]
        retry_at: Option<Timestamp>,
    },
    /// The connection ended, or continued as plain HTTP, and no response was seen.
    NoAnswer,
    CloseFrame {
        #[serde(with = "json::side")]
        initiator: Direction,
        code: Option<u16>,
    },
    Fin {
        #[serde(with = "json::side")]
        initiator: Direction,
    },
    /// The socket reached CLOSE.
    Ended { how: String },
    /// It carried plain HTTP.
    NotWebSocket,
    /// The socket is gone; its end was missed.
    Missed,
}

impl From<Reason> for Trigger {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Requested => Self::Requested,
            Reason::Upgraded { after } => Self::Upgraded {
                after_seconds: after.map(|after| after.as_secs_f64()),
            },
            Reason::Tls => Self::Tls,
            Reason::Found => Self::Found,
            Reason::Refused {
                status,
                retry_after,
            } => Self::Refused {
                status,
                retry_after_seconds: match retry_after {
                    Some(RetryAfter::Delay(delay)) => Some(delay.as_secs()),
                    Some(RetryAfter::At(_)) | None => None,
                },
                retry_at: match retry_after {
                    Some(RetryAfter::At(at)) => Some(at),
                    Some(RetryAfter::Delay(_)) | None => None,
                },
            },
            Reason::NoAnswer => Self::NoAnswer,
            Reason::CloseFrame { by, code } => Self::CloseFrame {
                initiator: by,
                code,
            },
            Reason::Fin { by } => Self::Fin { initiator: by },
            Reason::Ended { how } => Self::Ended {
                how: how.as_str().to_owned(),
            },
            Reason::NotWebSocket => Self::NotWebSocket,
            Reason::Missed => Self::Missed,
        }
    }
}

impl TransitionRecord {
    /// `ts` is [`Transition::at`] as wall-clock time.
    pub fn new(transition: &Transition, listener: &str, ts: Timestamp) -> Self {
        Self {
            ts,
            cookie: transition.conn,
            listener: listener.to_owned(),
            local: transition.endpoints.map(|[local, _]| local),
            peer: transition.endpoints.map(|[_, peer]| peer),
            from: transition.from,
            to: transition.to,
            trigger: transition.reason.into(),
            reason: transition.reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use monitor_core::{Ktime, ListenerId};

    fn record(reason: Reason) -> TransitionRecord {
        let transition = Transition {
            conn: ConnId(u64::MAX),
            listener: ListenerId(0),
            endpoints: None,
            at: Ktime(5),
            from: None,
            to: State::Open,
            reason,
        };
        TransitionRecord::new(&transition, "8080", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_transition_is_one_object_with_a_typed_trigger_and_can_be_read_back() {
        let record = record(Reason::Upgraded {
            after: Some(Duration::from_millis(3)),
        });
        let written = json!(record);
        assert_eq!(
            written,
            json!({
                "type": "transition", "ts": "1970-01-01T00:00:00.000000Z",
                "cookie": "18446744073709551615", "listener": "8080", "local": null, "peer": null,
                "from": null, "to": "open", "reason": "101 after 3 ms",
                "trigger": {"kind": "upgraded", "after_seconds": 0.003},
            })
        );
        let back: TransitionRecord = serde_json::from_value(written).expect("a transition");
        assert_eq!(back, record);
    }

    #[test]
    fn a_refusal_has_a_delay_or_a_moment() {
        let refused = |retry_after| {
            let status = Some(503);
            json!(record(Reason::Refused {
                status,
                retry_after
            }))["trigger"]
                .clone()
        };
        let delay = refused(Some(RetryAfter::Delay(Duration::from_secs(30))));
        assert_eq!(
            delay,
            json!({"kind": "refused", "status": 503, "retry_after_seconds": 30, "retry_at": null})
        );
        let moment = refused(Some(RetryAfter::At(Timestamp::UNIX_EPOCH)));
        assert_eq!(moment["retry_after_seconds"], json!(null));
        assert_eq!(moment["retry_at"], "1970-01-01T00:00:00.000000Z");
    }
}
