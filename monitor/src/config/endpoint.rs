//! The address of a receiver over HTTP.

use std::{fmt, str::FromStr};

use hyper::Uri;

/// An `http` or `https` URL. Displayed without its path, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("invalid URL {0:?}, expected one like http://127.0.0.1:9093")]
    NotAUrl(String),
    #[error("it must begin with http:// or https://")]
    Scheme,
    #[error(
        "a user name in a URL is not sent; put the secret into the path, or a proxy in between"
    )]
    UserInfo,
}

impl Endpoint {
    /// The URL with `path` appended to its own.
    pub fn join(&self, path: &str) -> String {
        let text = self.0.to_string();
        format!("{}{path}", text.trim_end_matches('/'))
    }

    /// The URL as given.
    pub fn url(&self) -> String {
        self.0.to_string()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let not_a_url = || EndpointError::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not_a_url());
        };
        if scheme != "http" && scheme != "https" {
            return Err(EndpointError::Scheme);
        }
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(not_a_url());
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self
            .0
            .authority()
            .map_or("", |authority| authority.as_str());
        write!(
            f,
            "{}://{authority}",
            self.0.scheme_str().unwrap_or_default()
        )
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_and_never_shown() {
        let endpoint: Endpoint = "https://hooks.example.com/T0/secret"
            .parse()
            .expect("a URL");
        assert_eq!(endpoint.url(), "https://hooks.example.com/T0/secret");
        assert_eq!(endpoint.to_string(), "https://hooks.example.com");
        assert_eq!(format!("{endpoint:?}"), "https://hooks.example.com");
    }

    #[test]
    fn a_path_is_appended_to_the_existing_one() {
        for (given, joined) in [
            ("http://[::1]:9093", "http://[::1]:9093/api"),
            ("http://a:9093/", "http://a:9093/api"),
            ("http://a/alertmanager/", "http://a/alertmanager/api"),
        ] {
            let endpoint: Endpoint = given.parse().expect(given);
            assert_eq!(endpoint.join("/api"), joined);
        }
    }

    #[test]
    fn an_invalid_address_is_refused_with_the_reason() {
        let refusal = |text: &str| text.parse::<Endpoint>().expect_err(text);
        for text in ["", "9093", "/api", "http://", "http:// a", "127.0.0.1"] {
            assert_eq!(refusal(text), EndpointError::NotAUrl(text.to_owned()));
        }
        assert_eq!(refusal("ftp://a"), EndpointError::Scheme);
        assert_eq!(refusal("https://user:pw@a"), EndpointError::UserInfo);
    }
}
