//! The handshake of an open connection, as it is kept for whoever asks.

use std::net::IpAddr;

use super::{
    handshake::{ClientAddress, Deflate, Faults, UpgradeAnswer, UpgradeRequest},
    strings::{Strings, Symbol},
    time::Ktime,
};

/// How a connection was opened. A field is `None` where the head was lost, cut off, or does not
/// have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake<'a> {
    pub requested_at: Option<Ktime>,
    /// Without the query.
    pub path: Option<&'a str>,
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<&'a str>,
    /// Compression as agreed (RFC 7692).
    pub deflate: Option<Deflate>,
    pub client: Option<ClientAddress>,
    pub faults: Faults,
}

impl<'a> Handshake<'a> {
    pub(super) fn of(
        requested_at: Option<Ktime>,
        request: Option<&'a UpgradeRequest>,
        answer: Option<&'a UpgradeAnswer>,
    ) -> Self {
        let mut handshake = Self {
            requested_at,
            ..Self::default()
        };
        if let Some(request) = request {
            handshake.path = request.path.as_deref();
            handshake.host = request.host.as_deref();
            handshake.origin = request.origin.as_deref();
            handshake.client = request.client;
            handshake.faults = request.faults;
        }
        if let Some(answer) = answer {
            handshake.subprotocol = answer.subprotocol.as_deref();
            handshake.deflate = answer.deflate;
            let faults = request.map_or(answer.faults, |request| answer.faults_after(request));
            handshake.faults = handshake.faults.union(faults);
        }
        handshake
    }
}

/// A [`Handshake`] in 40 bytes: strings are shared, and an address, which few connections have, is
/// elsewhere.
#[derive(Debug)]
pub(super) struct Kept {
    /// [`Ktime::NEVER`] if the request was not seen.
    requested_at: Ktime,
    client: Option<Box<IpAddr>>,
    path: Option<Symbol>,
    host: Option<Symbol>,
    origin: Option<Symbol>,
    subprotocol: Option<Symbol>,
    deflate: Option<Deflate>,
    faults: Faults,
}

impl Kept {
    pub(super) fn new(handshake: &Handshake<'_>, strings: &mut Strings) -> Self {
        let mut hold = |text: Option<&str>| text.map(|text| strings.hold(text));
        Self {
            requested_at: handshake.requested_at.unwrap_or(Ktime::NEVER),
            client: handshake.client.map(|client| Box::new(client.reveal())),
            path: hold(handshake.path),
            host: hold(handshake.host),
            origin: hold(handshake.origin),
            subprotocol: hold(handshake.subprotocol),
            deflate: handshake.deflate,
            faults: handshake.faults,
        }
    }

    pub(super) fn view<'a>(&'a self, strings: &'a Strings) -> Handshake<'a> {
        let text = |symbol: &'a Option<Symbol>| symbol.as_ref().map(|symbol| strings.get(symbol));
        Handshake {
            requested_at: Some(self.requested_at).filter(|at| *at != Ktime::NEVER),
            path: text(&self.path),
            host: text(&self.host),
            origin: text(&self.origin),
            subprotocol: text(&self.subprotocol),
            deflate: self.deflate,
            client: self.client(),
            faults: self.faults,
        }
    }

    pub(super) fn client(&self) -> Option<ClientAddress> {
        self.client.as_deref().copied().map(ClientAddress::new)
    }

    /// Gives the strings back.
    pub(super) fn release(self, strings: &mut Strings) {
        let symbols = [self.path, self.host, self.origin, self.subprotocol];
        for symbol in symbols.into_iter().flatten() {
            strings.release(symbol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_kept_in_40_bytes_and_comes_back_as_it_was() {
        assert_eq!(size_of::<Kept>(), 40);
        let mut strings = Strings::default();
        let handshake = Handshake {
            requested_at: Some(Ktime(7)),
            path: Some("/chat"),
            host: Some("server"),
            origin: None,
            subprotocol: Some("chat"),
            deflate: Some(Deflate::default()),
            client: Some(ClientAddress::new([192, 0, 2, 1].into())),
            faults: Faults::default(),
        };
        let many: Vec<Kept> = (0..10)
            .map(|_| Kept::new(&handshake, &mut strings))
            .collect();
        assert_eq!(strings.len(), 3, "strings are shared");
        for kept in many {
            assert_eq!(kept.view(&strings), handshake);
            kept.release(&mut strings);
        }
        let empty = Kept::new(&Handshake::default(), &mut strings);
        assert_eq!(empty.view(&strings), Handshake::default());
        assert_eq!(strings.len(), 0, "strings go with their last holder");
    }
}
