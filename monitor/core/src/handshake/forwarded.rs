//! The client's address according to a proxy: `Forwarded` (RFC 7239) or `X-Forwarded-For`.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The address of a client as a proxy reported it or the client invented it: nothing proves it.
///
/// It is personal data, kept only for explicit requests for this one connection. `Debug` hides it,
/// so that it does not get into a log by accident.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The address itself; only for the response to an explicit request.
    pub fn reveal(self) -> IpAddr {
        self.0
    }

    /// An IPv4 address in IPv6 form becomes IPv4.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddress(hidden)")
    }
}

/// The first entry, which the first proxy wrote, is the client. The standard header is preferred;
/// `None` if there is no header or if the proxy hides the address (RFC 7239 §6).
pub(super) fn client(
    forwarded: &[Cow<'_, str>],
    x_forwarded_for: Option<&str>,
) -> Option<ClientAddress> {
    let node = match forwarded.first() {
        Some(value) => {
            let hop = split(value, ',').next()?;
            split(hop, ';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then_some(value)
            })?
        }
        None => x_forwarded_for?.split(',').next()?,
    };
    address(node.trim().trim_matches('"')).map(ClientAddress::new)
}

/// An address, with a port or without; IPv6 in brackets or bare (RFC 7239 §6).
fn address(node: &str) -> Option<IpAddr> {
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let bare = node
        .strip_prefix('[')
        .and_then(|node| node.strip_suffix(']'));
    bare.unwrap_or(node).parse().ok()
}

/// The parts between unquoted separators.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |letter| {
        quoted ^= letter == '"';
        letter == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(value: &str) -> Option<String> {
        let client = client(&[value.into()], Some("192.0.2.99"))?;
        Some(client.reveal().to_string())
    }

    #[test]
    fn the_examples_of_rfc_7239_are_read() {
        for (value, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.43, for=198.51.100.17", "192.0.2.43"),
            ("by=\"a,b;c\"; for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("for=\"[::ffff:192.0.2.1]\"", "192.0.2.1"),
        ] {
            assert_eq!(forwarded(value).as_deref(), Some(expected), "{value}");
        }
        for hidden in ["for=_gazonk", "for=unknown", "proto=https", "", "for="] {
            assert_eq!(forwarded(hidden), None, "{hidden}");
        }
    }

    #[test]
    fn x_forwarded_for_is_read_in_the_forms_that_proxies_write() {
        let read = |value| Some(client(&[], Some(value))?.reveal().to_string());
        for (value, expected) in [
            ("203.0.113.195", "203.0.113.195"),
            (
                "203.0.113.195, 70.41.3.18, 150.172.238.178",
                "203.0.113.195",
            ),
            ("2001:db8::1, 10.0.0.1", "2001:db8::1"),
            ("203.0.113.195:41237", "203.0.113.195"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            assert_eq!(read(value).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(read("somebody"), None);
        assert_eq!(client(&[], None), None);
    }

    #[test]
    fn debug_does_not_show_the_address() {
        let client = client(&[], Some("203.0.113.195")).expect("an address");
        assert!(!format!("{client:?}").contains("203"));
    }
}
