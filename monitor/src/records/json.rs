//! The JSON forms of the core's types, also parsed by the commands. For serde's `with`.

/// A cookie is a string, because it does not fit into every JSON reader's numbers.
pub(crate) mod conn {
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
