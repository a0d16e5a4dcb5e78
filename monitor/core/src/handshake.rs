//! The opening handshake (RFC 6455 §4): upgrade requests and their responses.
//!
//! The kernel side sends the first bytes of each head, so it may be cut off. Complete parts are
//! kept; a violation is a [`HandshakeFault`], never an error. Only the path of the request target
//! is kept, because a query may hold tokens.

mod extensions;
mod fault;
mod forwarded;

use std::{borrow::Cow, mem::MaybeUninit, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use httparse::{Header, ParserConfig, Status};
use jiff::Timestamp;
use sha1::{Digest, Sha1};

pub use extensions::Deflate;
pub use fault::{Faults, HandshakeFault};
pub use forwarded::ClientAddress;

/// An upgrade request (RFC 6455 §4.2.1). A field is `None` if the head does not have it, or was cut
/// off before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeRequest {
    pub method: Option<Box<str>>,
    /// Without the query.
    pub path: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    /// `Sec-WebSocket-Key`, as sent.
    pub key: Option<Box<str>>,
    /// `Sec-WebSocket-Version`.
    pub version: Option<u8>,
    /// `Sec-WebSocket-Protocol`, in the client's order.
    pub subprotocols: Vec<Box<str>>,
    /// Whether permessage-deflate was offered (RFC 7692).
    pub deflate_offered: bool,
    /// The client's address according to a proxy.
    pub client: Option<ClientAddress>,
    pub faults: Faults,
}

impl UpgradeRequest {
    /// Parses the head of a request. Accepts any bytes.
    pub fn parse(head: &[u8]) -> Self {
        let mut room = NO_HEADERS;
        let mut request = httparse::Request::new(&mut []);
        match lenient().parse_request_with_uninit_headers(&mut request, head, &mut room) {
            Ok(Status::Complete(_)) => Self::of(&request, false),
            Ok(Status::Partial) => {
                let whole = whole_lines(head);
                let mut room = NO_HEADERS;
                let mut lines = httparse::Request::new(&mut []);
                match lenient().parse_request_with_uninit_headers(&mut lines, &whole, &mut room) {
                    Ok(Status::Complete(_)) => Self::of(&lines, true),
                    // Even the first line is incomplete; the method may be complete.
                    _ => {
                        request.headers = &mut [];
                        Self::of(&request, true)
                    }
                }
            }
            Err(_) => Self {
                faults: HandshakeFault::Malformed.into(),
                ..Self::default()
            },
        }
    }

    fn of(request: &httparse::Request<'_, '_>, cut: bool) -> Self {
        use HandshakeFault as Fault;
        let headers = Headers(request.headers);
        let key = headers.first("Sec-WebSocket-Key");
        let version = headers.first("Sec-WebSocket-Version");
        let host = headers.first("Host");
        let is_key = |key: &str| BASE64.decode_slice(key, &mut [0; KEY_ROOM]) == Ok(KEY_LEN);
        let mut faults = Faults::default();
        faults.insert_if(Fault::CutOff, cut);
        faults.insert_if(Fault::NotGet, request.method.is_some_and(|m| m != "GET"));
        faults.insert_if(Fault::OldHttp, request.version == Some(0));
        // A header missing from a head that was cut off may have been in the rest.
        faults.insert_if(Fault::NoHost, !cut && host.is_none());
        faults.insert_if(Fault::NoUpgrade, !cut && !headers.requests_websocket());
        faults.insert_if(Fault::NoConnection, !cut && !headers.connection_upgrades());
        faults.insert_if(Fault::BadKey, key.as_deref().map_or(!cut, |k| !is_key(k)));
        let is_13 = |version: &str| version == "13";
        faults.insert_if(
            Fault::BadVersion,
            version.as_deref().map_or(!cut, |v| !is_13(v)),
        );
        Self {
            method: request.method.map(Box::from),
            path: request.path.map(|target| path_of(target).into()),
            host: boxed(host),
            origin: boxed(headers.first("Origin")),
            key: boxed(key),
            version: version.and_then(|version| version.parse().ok()),
            subprotocols: headers.subprotocols(),
            deflate_offered: extensions::offers_deflate(&headers.collect(EXTENSIONS)),
            client: forwarded::client(
                &headers.collect("Forwarded"),
                headers.first("X-Forwarded-For").as_deref(),
            ),
            faults,
        }
    }
}

/// The response to an upgrade request (RFC 6455 §4.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeResponse {
    /// `None` if there was no status line.
    pub status: Option<u16>,
    /// `Sec-WebSocket-Accept`, as sent.
    pub accept: Option<Box<str>>,
    /// The chosen subprotocol.
    pub subprotocol: Option<Box<str>>,
    /// The agreed compression (RFC 7692); `None` without one.
    pub deflate: Option<Deflate>,
    pub retry_after: Option<RetryAfter>,
    pub faults: Faults,
}

/// When a refused client may come back (RFC 9110 §10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds.
    Delay(Duration),
    At(Timestamp),
}

impl UpgradeResponse {
    pub const SWITCHING_PROTOCOLS: u16 = 101;

    /// Parses the head of a response. Accepts any bytes.
    pub fn parse(head: &[u8]) -> Self {
        let mut room = NO_HEADERS;
        let mut response = httparse::Response::new(&mut []);
        match lenient().parse_response_with_uninit_headers(&mut response, head, &mut room) {
            Ok(Status::Complete(_)) => Self::of(&response, false),
            Ok(Status::Partial) => {
                let whole = whole_lines(head);
                let mut room = NO_HEADERS;
                let mut lines = httparse::Response::new(&mut []);
                match lenient().parse_response_with_uninit_headers(&mut lines, &whole, &mut room) {
                    Ok(Status::Complete(_)) => Self::of(&lines, true),
                    // Even the first line is incomplete; the status may be complete.
                    _ => {
                        response.headers = &mut [];
                        Self::of(&response, true)
                    }
                }
            }
            Err(_) => Self {
                faults: HandshakeFault::Malformed.into(),
                ..Self::default()
            },
        }
    }

    /// The faults of the response, checked against its request.
    pub fn faults_after(&self, request: &UpgradeRequest) -> Faults {
        use HandshakeFault as Fault;
        let mut faults = self.faults;
        if self.status != Some(Self::SWITCHING_PROTOCOLS) {
            return faults;
        }
        if let (Some(key), Some(accept)) = (&request.key, &self.accept) {
            faults.insert_if(Fault::BadAccept, **accept != *accept_of(key));
        }
        // The part that was cut off may have held an offer.
        if !request.faults.contains(Fault::CutOff) {
            let chosen = self.subprotocol.as_ref();
            let unoffered = chosen.is_some_and(|chosen| !request.subprotocols.contains(chosen));
            faults.insert_if(Fault::UnofferedSubprotocol, unoffered);
            faults.insert_if(
                Fault::UnofferedCompression,
                self.deflate.is_some() && !request.deflate_offered,
            );
        }
        faults
    }

    fn of(response: &httparse::Response<'_, '_>, cut: bool) -> Self {
        use HandshakeFault as Fault;
        let headers = Headers(response.headers);
        let accept = headers.first("Sec-WebSocket-Accept");
        let switches = response.code == Some(Self::SWITCHING_PROTOCOLS);
        let deflate = extensions::accepted_deflate(&headers.collect(EXTENSIONS));
        let mut faults = Faults::default();
        faults.insert_if(Fault::CutOff, cut);
        if switches {
            faults.insert_if(Fault::NoUpgrade, !cut && !headers.requests_websocket());
            faults.insert_if(Fault::NoConnection, !cut && !headers.connection_upgrades());
            faults.insert_if(Fault::BadAccept, !cut && accept.is_none());
            faults.insert_if(Fault::BadExtension, deflate.is_err());
        }
        Self {
            status: response.code,
            accept: boxed(accept),
            subprotocol: boxed(headers.first("Sec-WebSocket-Protocol")),
            deflate: deflate.ok().flatten(),
            retry_after: headers
                .first("Retry-After")
                .and_then(|value| retry_after(&value)),
            faults,
        }
    }
}

/// The `Sec-WebSocket-Accept` that belongs to a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_of(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64.encode(digest)
}

/// The fields of a head. Nothing is copied, because a storm of handshakes repeats these look-ups.
struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    /// The values of every header of this name.
    fn all(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let named = self
            .0
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name));
        named.map(|header| String::from_utf8_lossy(header.value.trim_ascii()))
    }

    fn first(&self, name: &str) -> Option<Cow<'a, str>> {
        self.all(name).next()
    }

    fn collect(&self, name: &str) -> Vec<Cow<'a, str>> {
        self.all(name).collect()
    }

    fn subprotocols(&self) -> Vec<Box<str>> {
        let values = self.collect("Sec-WebSocket-Protocol");
        let names = values.iter().flat_map(|value| members(value));
        names.map(Box::from).collect()
    }

    fn requests_websocket(&self) -> bool {
        self.has_member("Upgrade", "websocket")
    }

    fn connection_upgrades(&self) -> bool {
        self.has_member("Connection", "upgrade")
    }

    fn has_member(&self, name: &str, member: &str) -> bool {
        let is_it = |other: &str| other.eq_ignore_ascii_case(member);
        self.all(name).any(|value| members(&value).any(is_it))
    }
}

/// The members of a comma-separated list (RFC 9110 §5.6.1).
fn members(value: &str) -> impl Iterator<Item = &str> {
    let members = value.split(',').map(str::trim);
    members.filter(|member| !member.is_empty())
}

/// One broken header line must not hide the others.
fn lenient() -> ParserConfig {
    let mut config = ParserConfig::default();
    config
        .ignore_invalid_headers_in_requests(true)
        .ignore_invalid_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    config
}

/// The complete lines of a head that was cut off, terminated as if the head ended there.
fn whole_lines(head: &[u8]) -> Vec<u8> {
    let end = head.iter().rposition(|byte| *byte == b'\n');
    let whole = end.map_or(&[][..], |end| &head[..=end]);
    [whole, b"\r\n"].concat()
}

/// The path of a request target in origin or absolute form (RFC 9112 §3.2).
fn path_of(target: &str) -> &str {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let target = &target[..end];
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    }
}

fn retry_after(value: &str) -> Option<RetryAfter> {
    if let Ok(seconds) = value.parse() {
        return Some(RetryAfter::Delay(Duration::from_secs(seconds)));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    Some(RetryAfter::At(date.timestamp()))
}

fn boxed(value: Option<Cow<'_, str>>) -> Option<Box<str>> {
    value.map(|value| value.into_owned().into_boxed_str())
}

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
/// Bytes of a key's nonce (RFC 6455 §4.1), and the room that decoding it takes.
const KEY_LEN: usize = 16;
const KEY_ROOM: usize = 18;
/// As many as fit into a kilobyte: a name, a colon and a line end take at least 3 bytes.
const MAX_HEADERS: usize = 342;
/// Uninitialised room for headers, because filling it would cost more than parsing a head.
const NO_HEADERS: [MaybeUninit<Header<'_>>; MAX_HEADERS] = [MaybeUninit::uninit(); MAX_HEADERS];

#[cfg(test)]
mod tests;
