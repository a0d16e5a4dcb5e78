//! The parameters of a query, and sentences about those that are invalid.

use std::{borrow::Cow, error, fmt};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use serde::{
    de::{
        DeserializeOwned, Deserializer, Error, IntoDeserializer, Visitor,
        value::{MapDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

/// The parameters of a query. An invalid one is refused with status 400 and a sentence that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let parsed = parse(parts.uri.query().unwrap_or_default());
        let refused = |error| (StatusCode::BAD_REQUEST, format!("{error}\n"));
        parsed.map(Self).map_err(refused)
    }
}

pub(super) fn parse<T: DeserializeOwned>(query: &str) -> Result<T, ParameterError> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let parameters = pairs.map(|(name, value)| {
        let parameter = Parameter {
            name: name.clone(),
            value,
        };
        (name, parameter)
    });
    T::deserialize(MapDeserializer::new(parameters))
}

/// The value of a parameter.
struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
}

impl Parameter<'_> {
    fn invalid(&self, expected: &str) -> ParameterError {
        let Self { name, value } = self;
        ParameterError(format!("invalid {name} {value:?}, expected {expected}"))
    }
}

impl IntoDeserializer<'_, ParameterError> for Parameter<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Deserializes a number.
macro_rules! number {
    ($method:ident, $visit:ident, $type:ty) => {
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
            match self.value.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(self.invalid(&format!("a number up to {}", <$type>::MAX))),
            }
        }
    };
}

impl<'de> Deserializer<'de> for Parameter<'_> {
    type Error = ParameterError;

    number!(deserialize_u16, visit_u16, u16);
    number!(deserialize_u32, visit_u32, u32);
    number!(deserialize_u64, visit_u64, u64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        match self.value.parse() {
            Ok(flag) => visitor.visit_bool(flag),
            Err(_) => Err(self.invalid("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParameterError> {
        let value: StrDeserializer<'_, ParameterError> = self.value.as_ref().into_deserializer();
        let chosen = value.deserialize_enum(name, variants, visitor);
        chosen.map_err(|_| self.invalid(&variants.join(", ")))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_str(&self.value)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A sentence about what is wrong with a query.
#[derive(Debug)]
pub(super) struct ParameterError(String);

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for ParameterError {}

impl Error for ParameterError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let expected = expected.join(", ");
        Self(format!("unknown parameter {field:?}, expected {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("the parameter {field} is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(format!("the parameter {field} is given twice"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{super::parsed, *};
    use crate::records::{frames::Peers, list_order::ListOrder};

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Query {
        listener: Option<String>,
        #[serde(deserialize_with = "parsed")]
        peer: Option<Peers>,
        order: Option<ListOrder>,
        port: Option<u16>,
        limit: Option<usize>,
        ended: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Grouped {
        #[expect(dead_code, reason = "it is missing in every query of the test")]
        by: ListOrder,
    }

    #[test]
    fn parameters_of_every_type_are_parsed_and_decoded() {
        let query = "listener=a%26b+c&peer=10.0.0.0/8&order=rx-rate&port=443&limit=7&ended=true";
        let expected = Query {
            listener: Some("a&b c".to_owned()),
            peer: Some("10.0.0.0/8".parse().expect("a network")),
            order: Some(ListOrder::RxRate),
            port: Some(443),
            limit: Some(7),
            ended: true,
        };
        assert_eq!(parse::<Query>(query).expect("valid"), expected);
        assert_eq!(parse::<Query>("").expect("valid"), Query::default());
    }

    #[test]
    fn an_invalid_parameter_is_named_with_what_is_expected() {
        for (query, sentence) in [
            ("limit=x", "invalid limit \"x\", expected a number up to "),
            ("limit=-1", "invalid limit \"-1\", expected a number up to "),
            (
                "port=70000",
                "invalid port \"70000\", expected a number up to 65535",
            ),
            ("ended=yes", "invalid ended \"yes\", expected true or false"),
            (
                "order=colour",
                "invalid order \"colour\", expected age, urgency, idle, ",
            ),
            (
                "peer=host",
                "invalid address \"host\", expected one like 10.0.0.7, ",
            ),
            (
                "colour=red",
                "unknown parameter \"colour\", expected listener, peer, ",
            ),
            ("limit=1&limit=2", "the parameter limit is given twice"),
        ] {
            let error = parse::<Query>(query).expect_err(query).to_string();
            assert!(error.starts_with(sentence), "{query}: {error}");
        }
        let error = parse::<Grouped>("").expect_err("by is missing").to_string();
        assert_eq!(error, "the parameter by is missing");
    }
}
