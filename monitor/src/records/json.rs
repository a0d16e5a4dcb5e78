//! The JSON forms of the core's types, also parsed by the commands, for serde's `with`; and the text of
//! every record.

mod printable;

pub(crate) use printable::{to_string, write};

/// A moment: RFC 3339, UTC, microseconds. All have the same width, so text sorts like time.
pub(crate) mod ts {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(ts: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{ts:.6}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(from)
    }

    /// A moment that may be unknown.
    pub(crate) mod option {
        use jiff::Timestamp;
        use serde::{Deserialize, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            ts: &Option<Timestamp>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match ts {
                Some(ts) => super::serialize(ts, to),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Option::deserialize(from)
        }
    }
}

/// A cookie is a string, because it does not fit into every JSON reader's numbers.
pub(crate) mod cookie {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use monitor_core::ConnId;

    pub(crate) fn serialize<S: Serializer>(conn: &ConnId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&conn.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ConnId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(ConnId).map_err(D::Error::custom)
    }
}

/// `rx` or `tx`.
pub(crate) mod direction {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use monitor_core::facts::Direction;

    pub(crate) fn serialize<S: Serializer>(
        direction: &Direction,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(direction.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Direction, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The side that sends in a direction: `peer` for `rx`, `local` for `tx`.
pub(crate) mod side {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use monitor_core::facts::Direction;

    pub(crate) fn serialize<S: Serializer>(
        direction: &Direction,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(direction.sender())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Direction, D::Error> {
        let text = String::deserialize(from)?;
        [Direction::Rx, Direction::Tx]
            .into_iter()
            .find(|direction| direction.sender() == text)
            .ok_or_else(|| {
                D::Error::custom(format!("invalid side {text:?}, expected peer or local"))
            })
    }
}

/// The name of an opcode; a reserved one has its number, `reserved-3`.
pub(crate) mod opcode {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::records::frames::OpcodeName;

    pub(crate) fn serialize<S: Serializer>(raw: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&OpcodeName(*raw))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map(|OpcodeName(raw)| raw)
            .map_err(D::Error::custom)
    }
}

/// Seconds, or nothing.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => to.serialize_f64(duration.as_secs_f64()),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom))
            .transpose()
    }
}
