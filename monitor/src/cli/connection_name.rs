//! How a command line names a connection.

use std::str::FromStr;

use crate::records::endpoint::{Endpoint, InvalidEndpoint};

/// A cookie, or an end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionName {
    Cookie(u64),
    Endpoint(Endpoint),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid connection {0:?}, expected a cookie like 315653 or an address like 10.0.0.7, \
     10.0.0.7:53787, [fd00::7]:53787 or :53787"
)]
pub struct InvalidConnectionName(String);

impl FromStr for ConnectionName {
    type Err = InvalidConnectionName;

    fn from_str(text: &str) -> Result<Self, InvalidConnectionName> {
        let invalid = || InvalidConnectionName(text.to_owned());
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Cookie).map_err(|_| invalid());
        }
        let endpoint = text.parse().map(Self::Endpoint);
        endpoint.map_err(|_: InvalidEndpoint| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_cookie_and_anything_else_an_address() {
        let name = |text: &str| text.parse::<ConnectionName>();
        assert_eq!(name("5000"), Ok(ConnectionName::Cookie(5000)));
        for text in ["10.0.0.7", "10.0.0.7:5000", "::1", "[::1]:5000", ":5000"] {
            let endpoint = text.parse().expect(text);
            assert_eq!(name(text), Ok(ConnectionName::Endpoint(endpoint)));
        }
        for wrong in ["", "abc", "-1", "18446744073709551616", "10.0.0.0/8"] {
            let error = name(wrong).expect_err(wrong).to_string();
            let expected = format!("invalid connection {wrong:?}, expected a cookie");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
